//! The arithmetic of budgets: reserve, settle, release; the same in memory and in a file.
//!
//! A reservation takes room in all accounts of an attempt, or in none. What is spent, reserved and unknown together is
//! what is taken of a limit.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use crate::ledger::Money;

/// Where an attempt is booked: a budget, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    pub name: Arc<str>,
    /// A JSON list of "tag=x", "day=2026-11-26" and the like; empty for a budget that is one for all.
    pub subject: Arc<str>,
    /// The day that it ends with, in UTC days since 1970.
    pub day: Option<i64>,
    /// It is of one client, and so of this process alone.
    pub is_local: bool,
}

impl Account {
    pub fn new(name: Arc<str>, parts: &[String], day: Option<i64>, is_local: bool) -> Self {
        let subject = if parts.is_empty() { String::new() } else { serde_json::Value::from(parts).to_string() };
        Self { name, subject: subject.into(), day, is_local }
    }

    /// The subject for people.
    pub fn words(&self) -> String {
        self.parts().join(", ")
    }

    pub fn words_without_day(&self) -> String {
        self.parts().into_iter().filter(|part| !part.starts_with("day=")).collect::<Vec<_>>().join(", ")
    }

    pub fn is_of_client(&self, number: u64) -> bool {
        self.parts().contains(&format!("client={number}"))
    }

    fn parts(&self) -> Vec<String> {
        serde_json::from_str(&self.subject).unwrap_or_default()
    }
}

/// How an account stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub spent: Money,
    /// For attempts in flight.
    pub reserved: Money,
    /// Bounds of attempts that may have been billed, nobody knows how much.
    pub unknown: Money,
    /// Of processes that died: it may have been billed, and is not counted.
    pub expired: Money,
    /// Attempts whose cost is unknown and could not be bounded.
    pub unpriced: u64,
    /// The highest level that was warned of.
    pub warned: u8,
}

impl Sums {
    /// What is gone of the limit, or may be.
    pub fn taken(&self) -> Money {
        self.spent + self.reserved + self.unknown
    }

    fn settle(&mut self, held: Option<Money>, how: Settlement) {
        self.reserved = self.reserved - held.unwrap_or_default();
        match (how, held) {
            (Settlement::Paid(cost), _) => self.spent += cost,
            (Settlement::Unknown, Some(held)) => self.unknown += held,
            (Settlement::Unknown, None) => self.unpriced += 1,
            (Settlement::Nothing, _) => {}
        }
    }
}

/// How far a budget is used, when there is something to say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Early = 1,
    Full = 2,
}

/// What a rule asks of an account.
#[derive(Clone, Debug)]
pub struct Want {
    pub account: Account,
    pub limit: Money,
    /// A call that does not fit does not leave.
    pub refuses: bool,
    pub warn_at: Option<Money>,
}

impl Want {
    fn fits(&self, sums: &Sums, bound: Option<Money>) -> bool {
        sums.taken() + bound.unwrap_or_default() <= self.limit
    }

    /// What is to be said, unless it was said before.
    fn level(&self, sums: &Sums, bound: Option<Money>) -> Option<Level> {
        let level = if !self.fits(sums, bound) {
            Level::Full
        } else if self.warn_at.is_some_and(|at| sums.taken() + bound.unwrap_or_default() >= at) {
            Level::Early
        } else {
            return None;
        };
        (level as u8 > sums.warned).then_some(level)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Paid(Money),
    /// It may have been billed, nobody knows how much.
    Unknown,
    /// Nothing was billed.
    Nothing,
}

/// Where sums are kept.
pub trait Shelf {
    type Error;
    fn sums(&mut self, account: &Account) -> Result<Sums, Self::Error>;
    /// Reserves `amount` and notes what was warned of.
    fn hold(&mut self, want: &Want, amount: Money, warned: u8) -> Result<(), Self::Error>;
    /// Frees what processes held that are gone. True: there was something.
    fn expire(&mut self, account: &Account) -> Result<bool, Self::Error>;
}

/// A warning: of which want, how serious, and how its account stood before.
pub type Alarm = (usize, Level, Sums);
/// The want that has no room, and how its account stands.
pub type Refusal = (usize, Sums);

/// Whether all accounts have room; how each of them stands.
pub fn look<S: Shelf>(
    shelf: &mut S,
    wants: &[Want],
    bound: Option<Money>,
) -> Result<Result<Vec<Sums>, Refusal>, S::Error> {
    let mut all = Vec::with_capacity(wants.len());
    for (index, want) in wants.iter().enumerate() {
        let mut sums = shelf.sums(&want.account)?;
        if want.refuses && !want.fits(&sums, bound) && shelf.expire(&want.account)? {
            sums = shelf.sums(&want.account)?;
        }
        if want.refuses && !want.fits(&sums, bound) {
            return Ok(Err((index, sums)));
        }
        all.push(sums);
    }
    Ok(Ok(all))
}

/// Reserves `bound` in all accounts, or in none.
pub fn reserve<S: Shelf>(
    shelf: &mut S,
    wants: &[Want],
    bound: Option<Money>,
) -> Result<Result<Vec<Alarm>, Refusal>, S::Error> {
    let all = match look(shelf, wants, bound)? {
        Ok(all) => all,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut alarms = Vec::new();
    for (index, (want, sums)) in wants.iter().zip(all).enumerate() {
        let level = want.level(&sums, bound);
        alarms.extend(level.map(|level| (index, level, sums)));
        shelf.hold(want, bound.unwrap_or_default(), level.map_or(sums.warned, |level| level as u8))?;
    }
    Ok(Ok(alarms))
}

/// Sums in memory.
#[derive(Debug, Default)]
pub struct Purse {
    accounts: HashMap<Account, Sums>,
    /// The newest day that was booked in.
    day: i64,
}

impl Purse {
    pub fn get(&self, account: &Account) -> Sums {
        self.accounts.get(account).copied().unwrap_or_default()
    }

    /// Takes over what another shelf says.
    pub fn set(&mut self, account: &Account, sums: Sums) {
        self.forget_days_before(account.day);
        self.accounts.insert(account.clone(), sums);
    }

    pub fn settle(&mut self, account: &Account, held: Option<Money>, how: Settlement) {
        self.accounts.entry(account.clone()).or_default().settle(held, how);
    }

    pub fn accounts(&self) -> impl Iterator<Item = (&Account, &Sums)> {
        self.accounts.iter()
    }

    /// Days that are over have nothing to say any more, but for attempts that began in them.
    fn forget_days_before(&mut self, day: Option<i64>) {
        if let Some(day) = day.filter(|day| *day > self.day) {
            self.day = day;
            self.accounts
                .retain(|account, sums| account.day.is_none_or(|kept| kept >= day - 1) || sums.reserved != Money::ZERO);
        }
    }
}

impl Shelf for Purse {
    type Error = Infallible;

    fn sums(&mut self, account: &Account) -> Result<Sums, Infallible> {
        Ok(self.get(account))
    }

    fn hold(&mut self, want: &Want, amount: Money, warned: u8) -> Result<(), Infallible> {
        self.forget_days_before(want.account.day);
        let sums = self.accounts.entry(want.account.clone()).or_default();
        sums.reserved += amount;
        sums.warned = warned;
        Ok(())
    }

    fn expire(&mut self, _: &Account) -> Result<bool, Infallible> {
        Ok(false)
    }
}
