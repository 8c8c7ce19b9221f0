//! The ledger's sums in a cache file: by the hour, and by the day when they are older.
//!
//! Sums are added to what is there within one transaction, so that many processes write one book. What counts as spent
//! or saved is decided in `ledger/`.

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use crate::ledger::Report;

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 86_400;
/// Hours older than this are folded into their days. Days are kept: each is a few kilobytes.
const KEPT_HOURS: i64 = 7 * DAY;

/// The sums of one span of time.
pub struct Page {
    /// Seconds since 1970.
    pub start: i64,
    pub span: i64,
    pub report: Report,
}

/// Adds what came in at `now` (seconds since 1970).
pub fn add(connection: &Connection, now: i64, report: &Report) -> Result<(), Fault> {
    add_to(connection, HOUR, now - now.rem_euclid(HOUR), report)
}

/// Folds old hours into days.
pub fn fold(connection: &Connection, now: i64) -> Result<(), Fault> {
    let old = now - KEPT_HOURS;
    let hours = read_where(connection, "span = ?1 AND start < ?2", HOUR, old - old.rem_euclid(DAY))?;
    for page in &hours {
        add_to(connection, DAY, page.start - page.start.rem_euclid(DAY), &page.report)?;
        connection.execute("DELETE FROM ledger WHERE span = ?1 AND start = ?2", [page.span, page.start])?;
    }
    Ok(())
}

/// What was written down for the time from `since` (seconds since 1970) on, oldest first. A span that `since` is in the
/// middle of counts as a whole.
pub fn read(connection: &Connection, since: i64) -> Result<Vec<Page>, Fault> {
    read_where(connection, "span > ?1 AND start + span > ?2", 0, since)
}

/// Takes over what can be read of a file that was moved aside.
pub fn salvage(connection: &Connection, from: &Connection) -> Result<(), Fault> {
    for page in read(from, i64::MIN)? {
        add_to(connection, page.span, page.start, &page.report)?;
    }
    Ok(())
}

fn read_where(connection: &Connection, condition: &str, first: i64, second: i64) -> Result<Vec<Page>, Fault> {
    let sql = format!("SELECT start, span, report FROM ledger WHERE {condition} ORDER BY start, span");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([first, second], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
    let mut pages = Vec::new();
    for row in rows {
        let (start, span, text) = row?;
        // SQLite found its page in order, and yet this is no report of ours: one span is missing, the rest is right.
        pages.extend(parse(&text).map(|report| Page { start, span, report }));
    }
    Ok(pages)
}

fn add_to(connection: &Connection, span: i64, start: i64, report: &Report) -> Result<(), Fault> {
    let mut select = connection.prepare_cached("SELECT report FROM ledger WHERE span = ?1 AND start = ?2")?;
    let found: Option<String> = select.query_row([span, start], |row| row.get(0)).optional()?;
    let mut sums = found.and_then(|text| parse(&text)).unwrap_or_default();
    sums.add(report);
    let text = serde_json::to_string(&sums).map_err(|error| Fault::Other(error.to_string()))?;
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO ledger VALUES (?1, ?2, ?3)")?;
    insert.execute(params![span, start, text])?;
    Ok(())
}

fn parse(text: &str) -> Option<Report> {
    serde_json::from_str(text).ok()
}
