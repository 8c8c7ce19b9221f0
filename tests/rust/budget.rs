//! The arithmetic of budgets, and that what is spent and reserved never goes beyond a limit.

use std::sync::Arc;

use farthing::budget::keeper::{Held, Keeper};
use farthing::budget::purse::{Account, Settlement, Want};
use farthing::budget::rules::date;
use farthing::ledger::{ModelPrice, Money, PriceTable};
use farthing::store::disk::gate::Gate;
use farthing::store::disk::{DiskStore, Settings};
use farthing::store::memory::MemoryStore;
use proptest::prelude::*;

fn account(name: &str) -> Account {
    Account::new(name.into(), &[], None, false)
}

fn want(name: &str, limit: i128, refuses: bool) -> Want {
    Want { account: account(name), limit: Money::from_pico(limit), refuses, warn_at: None }
}

fn pico(units: i128) -> Money {
    Money::from_pico(units)
}

#[derive(Clone, Debug)]
enum Step {
    /// In the small budget, the large one, or both.
    Reserve(u8, i128),
    /// The nth open reservation, and the share of its bound that it cost, in percent.
    Paid(usize, i128),
    Unknown(usize),
    Nothing(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..4_u8, 0..400_i128).prop_map(|(which, bound)| Step::Reserve(which, bound)),
        (0..8_usize, 0..=100_i128).prop_map(|(index, share)| Step::Paid(index, share)),
        (0..8_usize).prop_map(Step::Unknown),
        (0..8_usize).prop_map(Step::Nothing),
    ];
    prop::collection::vec(step, 0..60)
}

const SMALL: i128 = 1000;
const LARGE: i128 = 2500;

/// Runs the steps, and looks at the sums after each.
fn run(keeper: &Keeper, steps: &[Step]) {
    let mut open: Vec<(Held, Vec<Want>, Money)> = Vec::new();
    let (mut spent, mut unknown) = ([0_i128; 2], [0_i128; 2]);
    let names = [("small", SMALL), ("large", LARGE)];
    for step in steps {
        let (index, how, cost, lost) = match step {
            Step::Reserve(which, bound) => {
                let wants: Vec<Want> = (0..2)
                    .filter(|bit| which & (1 << bit) != 0)
                    .map(|bit| want(names[bit].0, names[bit].1, true))
                    .collect();
                let before: Vec<_> = wants.iter().map(|want| keeper.sums(&want.account)).collect();
                let fits = wants.iter().zip(&before).all(|(want, sums)| sums.taken() + pico(*bound) <= want.limit);
                let reserved = keeper.reserve(&wants, Some(pico(*bound))).unwrap();
                assert_eq!(reserved.is_ok(), fits);
                match reserved {
                    Ok(held) => open.push((held, wants, pico(*bound))),
                    // All or nothing.
                    Err(_) => {
                        let after: Vec<_> = wants.iter().map(|want| keeper.sums(&want.account)).collect();
                        assert_eq!(before, after);
                    }
                }
                continue;
            }
            Step::Paid(index, share) => {
                let Some((_, _, bound)) = open.get(*index) else { continue };
                let cost = bound.pico() * share / 100;
                (*index, Settlement::Paid(pico(cost)), cost, 0)
            }
            Step::Unknown(index) => {
                let Some((_, _, bound)) = open.get(*index) else { continue };
                (*index, Settlement::Unknown, 0, bound.pico())
            }
            Step::Nothing(index) if *index < open.len() => (*index, Settlement::Nothing, 0, 0),
            Step::Nothing(_) => continue,
        };
        let (held, wants, bound) = open.remove(index);
        let accounts: Vec<Account> = wants.iter().map(|want| want.account.clone()).collect();
        keeper.settle(&accounts, held.attempt, Some(bound), held.in_file, how);
        for bit in 0..2 {
            if accounts.contains(&account(names[bit].0)) {
                spent[bit] += cost;
                unknown[bit] += lost;
            }
        }
    }
    for (bit, (name, limit)) in names.iter().enumerate() {
        let sums = keeper.sums(&account(name));
        let reserved: Money = open
            .iter()
            .filter(|(_, wants, _)| wants.iter().any(|want| want.account == account(name)))
            .map(|(_, _, bound)| *bound)
            .sum();
        assert_eq!((sums.spent, sums.unknown, sums.reserved), (pico(spent[bit]), pico(unknown[bit]), reserved));
        assert!(sums.taken() <= pico(*limit));
    }
}

fn file(path: &std::path::Path) -> Arc<DiskStore> {
    let settings = Settings { path: path.to_owned(), max_bytes: 1 << 30, namespace: String::new() };
    Arc::new(DiskStore::open(settings, [7; 32], &Arc::new(Gate::default()), MemoryStore::new(0)))
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("farthing-budget-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

proptest! {
    #[test]
    fn limits_hold_in_memory(steps in steps()) {
        run(&Keeper::new(None, false), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn limits_hold_in_a_file(steps in steps()) {
        let folder = Folder::new();
        run(&Keeper::new(Some(file(&folder.0.join("x.db"))), true), &steps);
    }
}

/// Many at once, each with a mind of its own, over two keepers of one file as two processes would have them.
#[test]
fn limits_hold_for_many_at_once() {
    let folder = Folder::new();
    let path = folder.0.join("x.db");
    let keepers = [Keeper::new(Some(file(&path)), true), Keeper::new(Some(file(&path)), true)];
    let limit = 10_000_i128;
    std::thread::scope(|scope| {
        for worker in 0..8_usize {
            let keeper = &keepers[worker % 2];
            scope.spawn(move || {
                for round in 0..40_i128 {
                    let wants = [want("x", limit, true)];
                    let bound = pico(97 + round + worker as i128);
                    let Ok(held) = keeper.reserve(&wants, Some(bound)).unwrap() else { continue };
                    assert!(keeper.sums(&account("x")).taken() <= pico(limit));
                    let how = match round % 3 {
                        0 => Settlement::Paid(bound),
                        1 => Settlement::Nothing,
                        _ => Settlement::Unknown,
                    };
                    keeper.settle(&[account("x")], held.attempt, Some(bound), held.in_file, how);
                }
            });
        }
    });
    let sums = keepers[0].sums(&account("x"));
    assert_eq!(sums, keepers[1].sums(&account("x")));
    assert_eq!(sums.reserved, Money::ZERO);
    assert!(sums.taken() <= pico(limit) && sums.taken() > pico(limit - 200), "{sums:?}");
}

#[test]
fn a_warning_is_given_once() {
    let keeper = Keeper::new(None, false);
    let wants = [Want { warn_at: Some(pico(50)), ..want("x", 100, false) }];
    let levels: Vec<usize> = [40, 20, 20, 90, 90]
        .into_iter()
        .map(|bound| keeper.reserve(&wants, Some(pico(bound))).unwrap().unwrap().alarms.len())
        .collect();
    assert_eq!(levels, [0, 1, 0, 1, 0]);
}

#[test]
fn days_have_names() {
    assert_eq!(date(0), "1970-01-01");
    assert_eq!(date(11_016), "2000-02-29");
    assert_eq!(date(20_783), "2026-11-26");
    assert_eq!(date(-1), "1969-12-31");
}

#[test]
fn the_dearest_price_that_may_apply() {
    let prices = PriceTable::bundled();
    let url = "https://api.openai.com/v1/chat/completions";
    let now = 1_795_600_000;
    let most = |tier| prices.most(url, &["gpt-4o"], (1_000_000, 1_000_000), tier, now).unwrap();
    assert_eq!(most(Some("default")), Money::parse("12.5").unwrap());
    // Nobody said that it is not the priority tier.
    assert!(most(None) > most(Some("default")));
    assert_eq!(most(None), most(Some("priority")));
    assert_eq!(most(Some("flex")), most(Some("default")));
    assert_eq!(prices.most(url, &["gpt-4o"], (1, 1), Some("scale"), now), None);
    assert_eq!(prices.most(url, &["unheard-of"], (1, 1), None, now), None);
    assert_eq!(prices.max_output(url, &["gpt-4o"]), Some(16_384));
    assert_eq!(prices.max_output("http://localhost/v1", &["gpt-4o"]), None);
    let price = ModelPrice::parse("1", "2", None, Some("3")).unwrap();
    let table = PriceTable::bundled()
        .with_overrides([("mine".to_owned(), price)].into())
        .with_longest([("mine".to_owned(), 7), ("gpt-4o".to_owned(), 9)].into());
    // All of it may have been written to the provider's cache.
    assert_eq!(table.most("http://x", &["m", "mine"], (1_000_000, 0), None, now), Money::parse("3"));
    assert_eq!(table.max_output("http://x", &["m", "mine"]), Some(7));
    // Also where the price is the bundled one.
    assert_eq!(table.max_output(url, &["gpt-4o"]), Some(9));
}
