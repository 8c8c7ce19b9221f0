//! Where the sums of budgets are: in memory, or in the cache file, with memory to go on with while the file fails.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::purse::{self, Account, Alarm, Purse, Refusal, Settlement, Sums, Want};
use super::rules::{Action, Per, Rule, date};
use crate::error::{Error, Result};
use crate::ledger::Money;
use crate::store::disk::DiskStore;
use crate::store::disk::budget::{self as table, FileShelf};
use crate::store::disk::fault::Fault;

/// After a failure of the file, memory does without asking it.
const REST: Duration = Duration::from_secs(1);
/// Settlements that wait for a file that fails; what is beyond is counted by this process alone.
const MOST_WAITING: usize = 100_000;

/// See the module.
pub struct Keeper {
    state: Mutex<State>,
    file: Option<Arc<DiskStore>>,
}

#[derive(Default)]
struct State {
    /// The accounts of this process, and those of the file as they were last seen.
    purse: Purse,
    /// What the file has not got yet.
    waiting: Vec<Waiting>,
    /// Attempts in flight that were reserved while the file failed, and what: the file is told when it is there again.
    loose: HashMap<i64, (Vec<Want>, Money)>,
    /// Those that it was told of.
    told: HashSet<i64>,
    rests_until: Option<Instant>,
    /// A file that fails is an error, each time.
    strict: bool,
}

struct Waiting {
    account: Account,
    /// The reservation in the file that this ends.
    attempt: Option<i64>,
    held: Option<Money>,
    how: Settlement,
}

/// What was reserved.
pub struct Held {
    pub attempt: i64,
    pub in_file: bool,
    pub alarms: Vec<Alarm>,
}

/// One account as `client.budget()` shows it. Money as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// "tag=x" and the like.
    pub subject: String,
    pub action: &'static str,
    pub limit: Option<Money>,
    pub spent: Money,
    pub reserved: Money,
    pub unknown: Money,
    pub expired: Money,
    pub unpriced: u64,
    pub left: Option<Money>,
    /// The UTC day, for a budget of each day.
    pub period: Option<String>,
}

impl Keeper {
    pub fn new(file: Option<Arc<DiskStore>>, strict: bool) -> Self {
        Self { state: Mutex::new(State { strict, ..State::default() }), file }
    }

    /// An account of this process starts with what was spent before.
    pub fn begin_with(&self, account: &Account, spent: Money) {
        self.lock().purse.set(account, Sums { spent, ..Sums::default() });
    }

    /// Reserves in all accounts, or in none. The inner error says which one has no room.
    ///
    /// # Errors
    /// The file failed, and the policy is strict.
    pub fn reserve(&self, wants: &[Want], bound: Option<Money>) -> Result<Result<Held, Refusal>> {
        // In a file, an attempt is known by its process and this number.
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let attempt = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let Some(file) = &self.file else {
            let alarms = always(purse::reserve(&mut state.purse, wants, bound));
            return Ok(alarms.map(|alarms| Held { attempt, in_file: false, alarms }));
        };
        let (local, shared): (Vec<usize>, Vec<usize>) =
            (0..wants.len()).partition(|index| wants[*index].account.is_local);
        let pick = |indices: &[usize]| indices.iter().map(|index| wants[*index].clone()).collect::<Vec<_>>();
        let (own, others) = (pick(&local), pick(&shared));
        // Its own accounts first, by a look: nothing is to be undone in the file.
        if let Err((index, sums)) = always(purse::look(&mut state.purse, &own, bound)) {
            return Ok(Err((local[index], sums)));
        }
        let mut in_file = false;
        let mut alarms = Vec::new();
        if !others.is_empty() {
            let asked = state.ask(file, |shelf, seen| {
                shelf.attempt = attempt;
                let reserved = purse::reserve(shelf, &others, bound)?;
                for want in &others {
                    seen.push((want.account.clone(), purse::Shelf::sums(shelf, &want.account)?));
                }
                Ok(reserved)
            });
            let reserved = match asked {
                Some(Ok(reserved)) => {
                    in_file = true;
                    reserved
                }
                Some(Err(fault)) if state.strict => {
                    return Err(Error::Internal(fault.explain(&file.settings().path)));
                }
                _ => {
                    let reserved = always(purse::reserve(&mut state.purse, &others, bound));
                    if reserved.is_ok() {
                        state.loose.insert(attempt, (others, bound.unwrap_or_default()));
                    }
                    reserved
                }
            };
            match reserved {
                Ok(found) => alarms.extend(found.into_iter().map(|(index, level, sums)| (shared[index], level, sums))),
                Err((index, sums)) => return Ok(Err((shared[index], sums))),
            }
        }
        match always(purse::reserve(&mut state.purse, &own, bound)) {
            Ok(found) => alarms.extend(found.into_iter().map(|(index, level, sums)| (local[index], level, sums))),
            // Looked at above, under the same lock.
            Err((index, sums)) => return Ok(Err((local[index], sums))),
        }
        Ok(Ok(Held { attempt, in_file, alarms }))
    }

    /// Books how an attempt ended.
    pub fn settle(&self, accounts: &[Account], attempt: i64, held: Option<Money>, in_file: bool, how: Settlement) {
        let mut state = self.lock();
        let Some(file) = &self.file else {
            for account in accounts {
                state.purse.settle(account, held, how);
            }
            return;
        };
        state.loose.remove(&attempt);
        let in_file = state.told.remove(&attempt) || in_file;
        let mut has_shared = false;
        for account in accounts {
            if account.is_local {
                state.purse.settle(account, held, how);
                continue;
            }
            has_shared = true;
            // What memory knows is what it goes on with, should the file fail.
            state.purse.settle(account, held, how);
            if state.waiting.len() < MOST_WAITING {
                let attempt = in_file.then_some(attempt);
                state.waiting.push(Waiting { account: account.clone(), attempt, held, how });
            }
        }
        if has_shared {
            let _ = state.ask(file, |_, _| Ok(()));
        }
    }

    /// How an account stands.
    pub fn sums(&self, account: &Account) -> Sums {
        let mut state = self.lock();
        if let Some(file) = self.file.as_ref().filter(|_| !account.is_local) {
            let _ = state.ask(file, |shelf, seen| {
                let sums = purse::Shelf::sums(shelf, account)?;
                seen.push((account.clone(), sums));
                Ok(())
            });
        }
        state.purse.get(account)
    }

    /// All accounts of these rules that are of today, or of no day, and of this client, or of none.
    pub fn rows(&self, rules: &[Rule], client: u64, today: i64) -> Vec<Row> {
        let mut state = self.lock();
        if let Some(file) = &self.file {
            let _ = state.ask(file, |shelf, seen| {
                for rule in rules {
                    seen.extend(shelf.accounts(&rule.name, today)?);
                }
                Ok(())
            });
        }
        let mut rows = Vec::new();
        for rule in rules {
            let is_of_all = rule.per.iter().all(|per| *per == Per::Day);
            let mut found: Vec<(Account, Sums)> = state
                .purse
                .accounts()
                .filter(|(account, _)| account.name == rule.name && account.day.is_none_or(|day| day == today))
                .filter(|(account, _)| !account.is_local || account.is_of_client(client))
                .map(|(account, sums)| (account.clone(), *sums))
                .collect();
            if found.is_empty() && is_of_all {
                let day = rule.per.contains(&Per::Day).then_some(today);
                found.push((Account::new(Arc::clone(&rule.name), &[], day, false), Sums::default()));
            }
            found.sort_by(|(one, _), (two, _)| one.subject.cmp(&two.subject));
            rows.extend(found.into_iter().map(|(account, sums)| Row::of(rule, &account, &sums)));
        }
        rows
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One transaction: what waits for the file, and `work`. What `work` has seen is what memory goes on with. None: the
    /// file has just failed, and rests.
    fn ask<T>(
        &mut self,
        file: &DiskStore,
        work: impl FnOnce(&mut FileShelf<'_>, &mut Vec<(Account, Sums)>) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        if !self.strict && self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let mut seen = Vec::new();
        let (waiting, loose) = (&self.waiting, &self.loose);
        let asked = file.budget(|transaction| {
            let mut shelf = FileShelf::new(transaction);
            for settled in waiting {
                shelf.settle(&settled.account, settled.attempt, settled.held, settled.how)?;
            }
            for (attempt, (wants, amount)) in loose {
                shelf.attempt = *attempt;
                for want in wants {
                    let warned = purse::Shelf::sums(&mut shelf, &want.account)?.warned;
                    purse::Shelf::hold(&mut shelf, want, *amount, warned)?;
                }
            }
            work(&mut shelf, &mut seen)
        });
        match &asked {
            Ok(_) => {
                self.rests_until = None;
                self.waiting.clear();
                self.told.extend(self.loose.drain().map(|(attempt, _)| attempt));
                for (account, sums) in seen {
                    self.purse.set(&account, sums);
                }
            }
            Err(_) => self.rests_until = Some(Instant::now() + REST),
        }
        Some(asked)
    }
}

impl Row {
    fn of(rule: &Rule, account: &Account, sums: &Sums) -> Self {
        let action = match rule.action {
            Action::Warn => "warn",
            Action::Block => "block",
            Action::Downgrade { .. } => "downgrade",
        };
        Self {
            name: rule.name.to_string(),
            subject: account.words_without_day(),
            action,
            limit: Some(rule.limit),
            spent: sums.spent,
            reserved: sums.reserved,
            unknown: sums.unknown,
            expired: sums.expired,
            unpriced: sums.unpriced,
            left: Some(left(rule.limit, sums)),
            period: account.day.map(date),
        }
    }

    /// What a file knows of an account: the limit is that of whoever booked in it last.
    pub fn of_file(line: &table::Line) -> Self {
        let sums = &line.sums;
        Self {
            name: line.name.clone(),
            subject: line.subject.clone(),
            action: "",
            limit: line.limit,
            spent: sums.spent,
            reserved: sums.reserved,
            unknown: sums.unknown,
            expired: sums.expired,
            unpriced: sums.unpriced,
            left: line.limit.map(|limit| left(limit, sums)),
            period: line.day.map(date),
        }
    }
}

fn left(limit: Money, sums: &Sums) -> Money {
    (limit - sums.taken()).max(Money::ZERO)
}

fn always<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
