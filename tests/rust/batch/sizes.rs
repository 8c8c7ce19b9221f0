//! How big packs get, and whether they pay.

use farthing::batch::{Rates, Sizes, packs, worth};
use farthing::ledger::{Money, price};
use proptest::prelude::*;

fn lengths(tokens: &[u64], most_items: usize, most_prompt: u64) -> Vec<usize> {
    packs(tokens, 10, most_items, most_prompt, 1_000).into_iter().map(|pack| pack.len()).collect()
}

#[test]
fn packs_are_few_and_even() {
    assert_eq!(lengths(&[1; 11], 10, 1_000), [6, 5]);
    assert_eq!(lengths(&[1; 7], 3, 1_000), [3, 2, 2]);
    assert_eq!(lengths(&[1; 10], 10, 1_000), [10]);
    assert_eq!(lengths(&[], 10, 1_000), [0_usize; 0]);
    assert_eq!(lengths(&[4, 4, 2, 2, 2, 2], 10, 8), [2, 4]);
    assert_eq!(lengths(&[1, 1, 99, 1, 1], 10, 8), [2, 1, 2]);
    assert_eq!(lengths(&[1; 3], 0, 0), [1, 1, 1]);
    assert_eq!(packs(&[1; 6], 400, 10, 100, 1_000), [0..2, 2..4, 4..6]);
    assert_eq!(packs(&[1; 6], 0, 10, 100, 0).len(), 1);
    assert_eq!(packs(&[u64::MAX; 2], u64::MAX, 10, u64::MAX, 1), [0..1, 1..2]);
}

proptest! {
    #[test]
    fn packs_cover_all_within_their_budgets(
        tokens in proptest::collection::vec(0_u64..100, 0..80),
        answer in 0_u64..50,
        most_items in 0_usize..20,
        most_prompt in 0_u64..300,
        most_answer in 0_u64..300,
    ) {
        let packs = packs(&tokens, answer, most_items, most_prompt, most_answer);
        let mut next = 0;
        for pack in &packs {
            prop_assert_eq!(pack.start, next);
            prop_assert!(pack.end > pack.start);
            next = pack.end;
            let fits = pack.len() <= most_items
                && tokens[pack.clone()].iter().sum::<u64>() <= most_prompt
                && answer * pack.len() as u64 <= most_answer;
            prop_assert!(fits || pack.len() == 1);
        }
        prop_assert_eq!(next, tokens.len());
    }
}

const RATES: Rates = Rates { input: 400_000, cached: Some(100_000), output: 1_600_000 };

#[test]
fn a_pack_saves_the_prefix() {
    // 9 times 500 tokens at 0.40 USD a million, against 100 and 10 times 5 at 1.60.
    let sizes = Sizes { prefix: 500, items: 10, overhead: 100, output_overhead: 5 };
    let found = worth(&sizes, Some(&RATES));
    assert_eq!((found.saved_tokens, found.overhead_tokens), (4_500, 150));
    assert_eq!(found.saved, Some(Money::from_pico(1_800_000_000)));
    assert_eq!(found.overhead, Some(Money::from_pico(40_000_000 + 80_000_000)));
    assert!(found.pays());
}

#[test]
fn the_providers_cache_would_have_saved_most_of_it() {
    let sizes = Sizes { prefix: 1_024, items: 3, overhead: 200, output_overhead: 5 };
    let found = worth(&sizes, Some(&RATES));
    assert_eq!(found.saved, Some(Money::from_pico(2 * 1_024 * 100_000)));
    assert_eq!(found.overhead, Some(Money::from_pico(200 * 400_000 + 15 * 1_600_000)));
    assert!(found.pays());
    let shorter = worth(&Sizes { prefix: 1_023, ..sizes }, Some(&RATES));
    assert_eq!(shorter.saved, Some(Money::from_pico(2 * 1_023 * 400_000)));
    let undiscounted = worth(&sizes, Some(&Rates { cached: None, ..RATES }));
    assert_eq!(undiscounted.saved, Some(Money::from_pico(2 * 1_024 * 400_000)));
}

#[test]
fn output_is_dear_and_small_prefixes_do_not_pay() {
    // 90 tokens saved against 80 by count; by money 36 against 28 + 16.
    let sizes = Sizes { prefix: 90, items: 2, overhead: 70, output_overhead: 5 };
    assert!(worth(&sizes, None).pays());
    assert!(!worth(&sizes, Some(&RATES)).pays());
    assert_eq!(worth(&sizes, None).saved, None);
    for items in [0, 1] {
        assert!(!worth(&Sizes { items, ..sizes }, None).pays());
    }
    // What costs nothing saves nothing.
    assert!(!worth(&sizes, Some(&Rates { input: 0, cached: None, output: 0 })).pays());
    let most = Sizes { prefix: u64::MAX, items: u64::MAX, overhead: u64::MAX, output_overhead: u64::MAX };
    assert!(!worth(&most, Some(&Rates { input: u64::MAX, cached: None, output: u64::MAX })).pays());
}

#[test]
fn rates_are_the_models() {
    let price = price::Rates { input: Some(1), cached: None, output: Some(2), ..price::Rates::default() };
    assert_eq!(Rates::of(&price), Some(Rates { input: 1, cached: None, output: 2 }));
    assert_eq!(Rates::of(&price::Rates { output: None, ..price }), None);
}
