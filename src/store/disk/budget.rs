//! The sums of budgets in a cache file, and what is reserved in them: one row for each attempt and account.
//!
//! The arithmetic is `budget/purse.rs`. Here is only where it is written, who reserved, and whether that process still
//! lives: what a dead one reserved is freed by whoever needs the room.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::now;
use super::owner::{Life, Owner};
use crate::budget::purse::{Account, Settlement, Shelf, Sums, Want};
use crate::ledger::Money;

/// How long a reservation lasts whose process cannot be seen from here, in milliseconds: longer than calls take.
const LEASE: i64 = 3_600_000;
/// Days that are kept when they are over.
const KEPT_DAYS: i64 = 35;

/// Sums in a file, within one transaction.
pub struct FileShelf<'tables> {
    tables: &'tables Connection,
    /// Which attempt reserves.
    pub attempt: i64,
}

/// One account as it is written down.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// For people.
    pub subject: String,
    pub limit: Option<Money>,
    pub sums: Sums,
    pub day: Option<i64>,
}

impl<'tables> FileShelf<'tables> {
    pub fn new(tables: &'tables Connection) -> Self {
        Self { tables, attempt: 0 }
    }

    /// Books how an attempt ended; `attempt`: the reservation that it had here.
    pub fn settle(
        &mut self,
        account: &Account,
        attempt: Option<i64>,
        held: Option<Money>,
        how: Settlement,
    ) -> Result<(), Fault> {
        if let Some(attempt) = attempt {
            let sql = "DELETE FROM reservation WHERE owner = ?1 AND attempt = ?2 AND name = ?3 AND subject = ?4";
            let mut delete = self.tables.prepare_cached(sql)?;
            delete.execute(params![Owner::of_us().text, attempt, &*account.name, &*account.subject])?;
        }
        let (spent, unknown, unpriced) = match (how, held) {
            (Settlement::Paid(cost), _) => (cost, Money::ZERO, 0),
            (Settlement::Unknown, Some(held)) => (Money::ZERO, held, 0),
            (Settlement::Unknown, None) => (Money::ZERO, Money::ZERO, 1),
            (Settlement::Nothing, _) => return Ok(()),
        };
        self.make(account)?;
        let sql = "UPDATE budget SET spent = spent + ?3, unknown = unknown + ?4, unpriced = unpriced + ?5
                   WHERE name = ?1 AND subject = ?2";
        let mut update = self.tables.prepare_cached(sql)?;
        update.execute(params![&*account.name, &*account.subject, units(spent), units(unknown), unpriced])?;
        Ok(())
    }

    /// The accounts of a budget that are of `today`, or of no day.
    pub fn accounts(&self, name: &Arc<str>, today: i64) -> Result<Vec<(Account, Sums)>, Fault> {
        let sql = "SELECT subject, day FROM budget WHERE name = ?1 AND (day IS NULL OR day = ?2)";
        let mut select = self.tables.prepare_cached(sql)?;
        let rows = select.query_map(params![&**name, today], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        let mut found = Vec::new();
        for row in rows {
            let (subject, day) = row?;
            let account = Account { name: Arc::clone(name), subject: subject.into(), day, is_local: false };
            let sums = read(self.tables, &account)?;
            found.push((account, sums));
        }
        Ok(found)
    }

    fn make(&self, account: &Account) -> Result<(), Fault> {
        let sql = "INSERT OR IGNORE INTO budget (name, subject, day, most, spent, unknown, expired, unpriced, warned)
                   VALUES (?1, ?2, ?3, NULL, 0, 0, 0, 0, 0)";
        self.tables.prepare_cached(sql)?.execute(params![&*account.name, &*account.subject, account.day])?;
        Ok(())
    }
}

impl Shelf for FileShelf<'_> {
    type Error = Fault;

    fn sums(&mut self, account: &Account) -> Result<Sums, Fault> {
        read(self.tables, account)
    }

    fn hold(&mut self, want: &Want, amount: Money, warned: u8) -> Result<(), Fault> {
        let account = &want.account;
        self.make(account)?;
        let sql = "UPDATE budget SET most = ?3, warned = ?4 WHERE name = ?1 AND subject = ?2 AND (most IS NOT ?3 OR warned <> ?4)";
        let mut update = self.tables.prepare_cached(sql)?;
        update.execute(params![&*account.name, &*account.subject, units(want.limit), warned])?;
        let sql =
            "INSERT INTO reservation (name, subject, owner, attempt, amount, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = self.tables.prepare_cached(sql)?;
        let owner = Owner::of_us();
        let until = now().saturating_add(LEASE);
        insert.execute(params![&*account.name, &*account.subject, owner.text, self.attempt, units(amount), until])?;
        Ok(())
    }

    fn expire(&mut self, account: &Account) -> Result<bool, Fault> {
        let sql = "SELECT DISTINCT owner FROM reservation WHERE name = ?1 AND subject = ?2";
        let mut select = self.tables.prepare_cached(sql)?;
        let owners = select.query_map([&*account.name, &*account.subject], |row| row.get::<_, String>(0))?;
        let owners: Vec<String> = owners.collect::<rusqlite::Result<_>>()?;
        let mut changed = false;
        for owner in owners.iter().filter(|owner| *owner != &Owner::of_us().text) {
            // What can be seen counts; what cannot has an hour.
            let before = match Owner::life(owner) {
                Life::Lives => continue,
                Life::Gone => i64::MAX,
                Life::Unknown => now(),
            };
            let sql = "SELECT coalesce(sum(amount), 0), count(*) FROM reservation
                       WHERE name = ?1 AND subject = ?2 AND owner = ?3 AND until < ?4";
            let key = params![&*account.name, &*account.subject, owner, before];
            let (amount, count): (i64, i64) =
                self.tables.prepare_cached(sql)?.query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))?;
            if count == 0 {
                continue;
            }
            let sql = "DELETE FROM reservation WHERE name = ?1 AND subject = ?2 AND owner = ?3 AND until < ?4";
            self.tables.prepare_cached(sql)?.execute(key)?;
            let sql = "UPDATE budget SET expired = expired + ?3 WHERE name = ?1 AND subject = ?2";
            self.tables.prepare_cached(sql)?.execute(params![&*account.name, &*account.subject, amount])?;
            changed = true;
        }
        Ok(changed)
    }
}

fn read(tables: &Connection, account: &Account) -> Result<Sums, Fault> {
    let key = [&*account.name, &*account.subject];
    let sql = "SELECT spent, unknown, expired, unpriced, warned FROM budget WHERE name = ?1 AND subject = ?2";
    let mut select = tables.prepare_cached(sql)?;
    let found = select.query_row(key, |row| {
        Ok(Sums {
            spent: money(row.get(0)?),
            unknown: money(row.get(1)?),
            expired: money(row.get(2)?),
            unpriced: row.get::<_, i64>(3)?.max(0).unsigned_abs(),
            warned: row.get(4)?,
            reserved: Money::ZERO,
        })
    });
    let sums = found.optional()?.unwrap_or_default();
    let sql = "SELECT coalesce(sum(amount), 0) FROM reservation WHERE name = ?1 AND subject = ?2";
    let reserved = tables.prepare_cached(sql)?.query_row(key, |row| row.get(0))?;
    Ok(Sums { reserved: money(reserved), ..sums })
}

/// All accounts of a file.
pub fn lines(tables: &Connection) -> Result<Vec<Line>, Fault> {
    let mut select = tables.prepare("SELECT name, subject, day, most FROM budget ORDER BY name, day, subject")?;
    let rows = select.query_map((), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, Option<i64>>(3)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (name, subject, day, most) = row?;
        let account = Account { name: name.as_str().into(), subject: subject.into(), day, is_local: false };
        let sums = read(tables, &account)?;
        found.push(Line { name, subject: account.words_without_day(), limit: most.map(money), sums, day });
    }
    Ok(found)
}

/// Takes over what can be read of a file that was moved aside. What was reserved in it is settled here, by those who live.
pub fn salvage(tables: &Connection, from: &Connection) -> Result<(), Fault> {
    let columns = "name, subject, day, most, spent, unknown, expired, unpriced, warned";
    let mut select = from.prepare(&format!("SELECT {columns} FROM budget"))?;
    let mut rows = select.query(())?;
    let sql = format!("INSERT OR IGNORE INTO budget ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    let mut insert = tables.prepare(&sql)?;
    while let Some(row) = rows.next()? {
        let column = |at: usize| row.get::<_, rusqlite::types::Value>(at);
        let values: Vec<_> = (0..9).map(column).collect::<rusqlite::Result<_>>()?;
        insert.execute(rusqlite::params_from_iter(values))?;
    }
    Ok(())
}

/// Frees what dead processes hold, and forgets days that are long over.
pub fn maintain(tables: &Connection, today: i64) -> Result<(), Fault> {
    tables.execute("DELETE FROM budget WHERE day < ?1", [today - KEPT_DAYS])?;
    let mut select = tables.prepare("SELECT DISTINCT name, subject FROM reservation")?;
    let rows = select.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let (name, subject) = row;
        let account = Account { name: name.into(), subject: subject.into(), day: None, is_local: false };
        FileShelf::new(tables).expire(&account)?;
    }
    Ok(())
}

/// Nine million dollars fit in a row; no budget is that large.
fn units(amount: Money) -> i64 {
    i64::try_from(amount.pico()).unwrap_or(if amount < Money::ZERO { i64::MIN } else { i64::MAX })
}

fn money(units: i64) -> Money {
    Money::from_pico(units.into())
}
