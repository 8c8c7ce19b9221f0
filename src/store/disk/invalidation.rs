//! Answers that somebody wants forgotten: noted in one row, hidden from that moment on, removed bit by bit.
//!
//! A million answers are not removed in one transaction, which would keep everybody else from the file for as long. The
//! note alone hides what was written before it (the view `live`, `schema.rs`); who noted it sweeps, and when that process
//! is gone, another one does. Memory is told by the same notes (`writer.rs`).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::row::Stored;
use crate::key::{Key, KeyHasher};

/// Rows that one step looks at.
const STEP: i64 = 512;
/// Notes are kept for processes that slept this long, in milliseconds.
const KEPT: i64 = 86_400_000;
/// Whoever noted it has had this long to remove it, in milliseconds.
const OWN_TIME: i64 = 60_000;

/// A note whose answers are still there.
pub struct Sweep {
    id: i64,
    namespace: Option<String>,
    tag: Option<String>,
    /// The last row that was looked at.
    cursor: i64,
}

/// Notes of the last minute: an answer that is older than one may still wait to be written.
#[derive(Default)]
pub struct Recent {
    keys: HashMap<Key, i64, KeyHasher>,
    /// None: everything.
    tags: HashMap<Option<String>, i64>,
}

impl Recent {
    pub fn add(&mut self, note: Note, at: i64) {
        match note {
            Note::Key(key) => self.keys.insert(key, at),
            Note::Tag(tag) => self.tags.insert(Some(tag), at),
            Note::Everything => self.tags.insert(None, at),
        };
    }

    pub fn hides(&self, stored: &Stored) -> bool {
        let tagged = || stored.about.tag.as_deref().and_then(|tag| self.tags.get(&Some(tag.to_owned())));
        let is_after = |at: Option<&i64>| at.is_some_and(|at| *at >= stored.stored);
        !(self.keys.is_empty() && self.tags.is_empty())
            && (is_after(self.keys.get(&stored.key)) || is_after(self.tags.get(&None)) || is_after(tagged()))
    }

    pub fn forget(&mut self, now: i64) {
        self.keys.retain(|_, at| *at + OWN_TIME > now);
        self.tags.retain(|_, at| *at + OWN_TIME > now);
    }
}

/// A note as another process reads it.
pub enum Note {
    Key(Key),
    Tag(String),
    Everything,
}

/// Notes that what was stored under a tag (None: everything) in one namespace (None: in all) is not to be read any more;
/// returns what is to be removed, and how many answers that are.
pub fn add(
    connection: &Connection,
    namespace: Option<&str>,
    tag: Option<&str>,
    now: i64,
) -> Result<(Sweep, u64), Fault> {
    let count = match (tag, namespace) {
        (Some(tag), None) => count(connection, "tag = ?1", [tag])?,
        (Some(tag), Some(namespace)) => count(connection, "tag = ?1 AND namespace = ?2", [tag, namespace])?,
        (None, None) => count(connection, "TRUE", [])?,
        // Nobody asks, and there is no index to count by.
        (None, Some(_)) => 0,
    };
    let note = "INSERT INTO invalidation (namespace, tag, at, done) VALUES (?1, ?2, ?3, FALSE)";
    connection.prepare_cached(note)?.execute(params![namespace, tag, now])?;
    let id = connection.last_insert_rowid();
    let sweep = Sweep { id, namespace: namespace.map(Into::into), tag: tag.map(Into::into), cursor: i64::MIN };
    Ok((sweep, count))
}

fn count<const N: usize>(connection: &Connection, condition: &str, values: [&str; N]) -> Result<u64, Fault> {
    let sql = format!("SELECT count(*) FROM {} WHERE {condition}", source(connection)?);
    let count: i64 =
        connection.prepare_cached(&sql)?.query_row(rusqlite::params_from_iter(values), |row| row.get(0))?;
    Ok(count.max(0) as u64)
}

/// Removes some of the answers; true when there are no more. One transaction of the caller's.
pub fn step(connection: &Connection, sweep: &mut Sweep) -> Result<bool, Fault> {
    let ended = match &sweep.tag {
        Some(tag) => {
            let sql = "DELETE FROM entry WHERE id IN (SELECT id FROM entry
                 WHERE tag = ?1 AND (?2 IS NULL OR namespace = ?2) AND epoch < ?3 LIMIT ?4)";
            let removed = connection.prepare_cached(sql)?.execute(params![tag, sweep.namespace, sweep.id, STEP])?;
            removed < STEP as usize
        }
        None => {
            let sql = "SELECT max(id), count(*) FROM (SELECT id FROM entry WHERE id > ?1 ORDER BY id LIMIT ?2)";
            let (last, seen): (Option<i64>, i64) = connection
                .prepare_cached(sql)?
                .query_row([sweep.cursor, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let last = last.unwrap_or(sweep.cursor);
            let sql = "DELETE FROM entry WHERE id > ?1 AND id <= ?2 AND (?3 IS NULL OR namespace = ?3) AND epoch < ?4";
            connection.prepare_cached(sql)?.execute(params![sweep.cursor, last, sweep.namespace, sweep.id])?;
            sweep.cursor = last;
            seen < STEP
        }
    };
    if ended {
        connection.prepare_cached("UPDATE invalidation SET done = TRUE WHERE id = ?1")?.execute([sweep.id])?;
    }
    Ok(ended)
}

/// Forgets notes that everybody has read and nothing hangs on; the oldest one that nobody removes the answers of.
pub fn maintain(connection: &Connection, now: i64) -> Result<Option<Sweep>, Fault> {
    connection.prepare_cached("DELETE FROM invalidation WHERE done AND at < ?1")?.execute([now - KEPT])?;
    let sql = "SELECT id, namespace, tag FROM invalidation WHERE NOT done AND at < ?1 ORDER BY id LIMIT 1";
    let found = connection.prepare_cached(sql)?.query_row([now - OWN_TIME], |row| {
        Ok(Sweep { id: row.get(0)?, namespace: row.get(1)?, tag: row.get(2)?, cursor: i64::MIN })
    });
    Ok(found.optional()?)
}

/// The newest note.
pub fn newest(connection: &Connection) -> Result<i64, Fault> {
    let sql = "SELECT coalesce(max(id), 0) FROM invalidation";
    Ok(connection.prepare_cached(sql)?.query_row((), |row| row.get(0))?)
}

/// Notes after `after` that hold in a namespace, in their order, with their times.
pub fn since(connection: &Connection, after: i64, namespace: &str) -> Result<Vec<(i64, Note, i64)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT id, tag, key, at FROM invalidation WHERE id > ?1 AND (namespace IS NULL OR namespace = ?2) ORDER BY id",
    )?;
    let notes = statement.query_map(params![after, namespace], |row| {
        let note = match (row.get::<_, Option<[u8; 32]>>(2)?, row.get(1)?) {
            (Some(key), _) => Note::Key(Key(key)),
            (None, Some(tag)) => Note::Tag(tag),
            (None, None) => Note::Everything,
        };
        Ok((row.get(0)?, note, row.get(3)?))
    })?;
    Ok(notes.collect::<Result<_, _>>()?)
}

/// Removes some of the answers of a model and a tag (None: of any) whose place is between two, and notes each by its key;
/// how many that were, and where to go on when there may be more.
pub fn remove(
    connection: &Connection,
    (model, tag): (Option<&str>, Option<&str>),
    (from, to): (i64, i64),
    now: i64,
) -> Result<(u64, Option<i64>), Fault> {
    let sql =
        "SELECT id FROM live WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR tag = ?2) AND id BETWEEN ?3 AND ?4
         ORDER BY id LIMIT ?5";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params![model, tag, from, to, STEP], |row| row.get(0))?;
    let found: Vec<i64> = found.collect::<Result<_, _>>()?;
    for id in &found {
        let note = "INSERT INTO invalidation (namespace, key, at, done) SELECT namespace, key, ?2, TRUE FROM entry WHERE id = ?1";
        connection.prepare_cached(note)?.execute([*id, now])?;
        connection.prepare_cached("DELETE FROM entry WHERE id = ?1")?.execute([id])?;
    }
    let last = found.last().filter(|_| found.len() == STEP as usize);
    Ok((found.len() as u64, last.map(|last| last.saturating_add(1))))
}

/// Where answers are read from that may be: the table itself is quicker where no note is open.
pub fn source(connection: &Connection) -> Result<&'static str, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM invalidation WHERE NOT done)";
    let open: bool = connection.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
    Ok(if open { "live" } else { "entry" })
}
