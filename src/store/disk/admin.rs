//! A cache file as its owner sees it: counts, lists, one entry, removal, vacuum, the ledger. For the command line; no call
//! comes here, and nothing here makes, moves or migrates a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::{Value, json};

use super::fault::Fault;
use super::gate::Gate;
use super::row::Stored;
use super::schema::{self, Kind};
use super::steps::{immediately, in_steps};
use super::{Size, books, budget, file, invalidation, labels, now, transfer};
use crate::ledger::Report;

/// A file that is opened for each thing that is asked of it.
pub struct CacheFile {
    path: PathBuf,
    gate: Arc<Gate>,
}

/// Which entries are meant; nothing = all.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    pub tag: Option<String>,
    pub model: Option<String>,
}

impl CacheFile {
    /// # Errors
    /// There is no such file, or it is not one that this version can read.
    pub fn open(path: &Path, gate: &Arc<Gate>) -> Result<Self, Fault> {
        let opened = Self { path: path.to_owned(), gate: Arc::clone(gate) };
        opened.with(|_| Ok(()))?;
        Ok(opened)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        if !self.path.is_file() {
            return Err(Fault::Refused("there is no such file".to_owned()));
        }
        let _pass = self.gate.enter();
        let mut connection = file::connect(&self.path)?;
        match schema::kind(&connection)? {
            Kind::Ours(schema::VERSION) => work(&mut connection),
            Kind::Ours(version) if version > schema::VERSION => Err(Fault::Newer { version }),
            Kind::Ours(_) => Err(Fault::Refused(
                "the cache file is of an older farthing; a client that uses it brings it up".to_owned(),
            )),
            Kind::Empty | Kind::Foreign => Err(Fault::Foreign),
        }
    }

    pub fn stats(&self) -> Result<Value, Fault> {
        self.with(|connection| {
            // One walk through the file, as it may be large.
            let sql = format!(
                "SELECT model, tag, namespace, count(*), sum(size), coalesce(sum(expires <= ?1), 0) FROM {}
                 GROUP BY model, tag, namespace",
                invalidation::source(connection)?
            );
            let (mut all, mut expired) = (Count::default(), 0);
            let mut groups: [BTreeMap<Option<String>, Count>; 3] = Default::default();
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([now()])?;
            while let Some(row) = rows.next()? {
                let count = Count { entries: row.get(3)?, bytes: row.get(4)? };
                all.add(count);
                expired += row.get::<_, i64>(5)?;
                for (at, group) in groups.iter_mut().enumerate() {
                    group.entry(row.get(at)?).or_default().add(count);
                }
            }
            let [by_model, by_tag, by_namespace] = groups.map(listed);
            Ok(json!({
                "entries": all.entries,
                "expired": expired,
                "labels": labels::count(connection)?,
                "bytes": bytes_in_use(connection)?,
                "file_bytes": std::fs::metadata(&self.path).map_or(0, |file| file.len()),
                "by_model": by_model,
                "by_tag": by_tag,
                "by_namespace": by_namespace,
            }))
        })
    }

    /// Entries, the last used first.
    pub fn list(&self, choice: &Choice, most: u32) -> Result<Value, Fault> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, namespace, endpoint, model, tag, stored, expires, used, size, cost FROM live
                 WHERE (?1 IS NULL OR tag = ?1) AND (?2 IS NULL OR model = ?2) ORDER BY used DESC LIMIT ?3",
            )?;
            let rows = statement.query_map(params![choice.tag, choice.model, most], |row| {
                Ok(json!({
                    "entry": name(row.get(0)?),
                    "namespace": row.get::<_, String>(1)?,
                    "endpoint": row.get::<_, String>(2)?,
                    "model": row.get::<_, Option<String>>(3)?,
                    "tag": row.get::<_, Option<String>>(4)?,
                    "stored": seconds(row.get(5)?),
                    "expires": row.get::<_, Option<i64>>(6)?.map(seconds),
                    "used": seconds(row.get(7)?),
                    "bytes": row.get::<_, i64>(8)?,
                    "cost": transfer::cost_text(row.get(9)?),
                }))
            })?;
            Ok(Value::Array(rows.collect::<Result<_, _>>()?))
        })
    }

    /// The entry whose name begins like this, with its answer; None when none or several do.
    pub fn show(&self, beginning: &str) -> Result<Option<Value>, Fault> {
        let Some((low, high)) = range(beginning) else { return Ok(None) };
        self.with(|connection| {
            let sql = "SELECT id FROM live WHERE id BETWEEN ?1 AND ?2 LIMIT 2";
            let found: Vec<i64> =
                connection.prepare(sql)?.query_map([low, high], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let &[id] = found.as_slice() else { return Ok(None) };
            let mut page = Stored::page(connection, id - 1, 1)?;
            let (_, stored) = page.pop().ok_or(Fault::Damaged)?;
            let mut shown = transfer::line(&stored?);
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("entry".to_owned(), name(id).into());
            }
            Ok(Some(shown))
        })
    }

    /// Removes the entries of a tag, of a model, or all; also from the memory of running processes, within a second.
    pub fn invalidate(&self, choice: &Choice) -> Result<u64, Fault> {
        self.with(|connection| match &choice.model {
            None => {
                let (mut sweep, removed) =
                    immediately(connection, |tables| invalidation::add(tables, None, choice.tag.as_deref(), now()))?;
                while !in_steps(|| immediately(connection, |tables| invalidation::step(tables, &mut sweep)))? {}
                Ok(removed)
            }
            Some(model) => {
                let (mut removed, mut from) = (0, i64::MIN);
                let chosen = (Some(model.as_str()), choice.tag.as_deref());
                let mut step = || {
                    let place = (from, i64::MAX);
                    let (count, next) =
                        immediately(connection, |tables| invalidation::remove(tables, chosen, place, now()))?;
                    removed += count;
                    from = next.unwrap_or(i64::MAX);
                    Ok(next.is_none())
                };
                while !in_steps(&mut step)? {}
                Ok(removed)
            }
        })
    }

    /// Removes the entry whose name begins like this; false when none or several do.
    pub fn remove(&self, beginning: &str) -> Result<bool, Fault> {
        let Some(place) = range(beginning) else { return Ok(false) };
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (removed, _) = invalidation::remove(&transaction, (None, None), place, now())?;
            if removed == 1 {
                transaction.commit()?;
            }
            Ok(removed == 1)
        })
    }

    /// Removes what has expired and gives the room back to the disk; bytes of the file and its log before and after, and
    /// whether that is all: a program that reads all the time keeps the log long.
    pub fn vacuum(&self) -> Result<(u64, u64, bool), Fault> {
        let length = || {
            let files = [self.path.clone(), file::with_ending(&self.path, "-wal")];
            files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum::<u64>()
        };
        let before = length();
        let done = self.with(|connection| {
            connection.execute("DELETE FROM entry WHERE expires <= ?1 OR id NOT IN (SELECT id FROM live)", [now()])?;
            connection.execute_batch("VACUUM")?;
            for _ in 0..20 {
                let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
                if !is_busy {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(false)
        })?;
        Ok((before, length(), done))
    }

    /// The sums from `since` (seconds since 1970) on.
    pub fn report(&self, since: i64) -> Result<Report, Fault> {
        let mut sum = Report::default();
        for page in self.with(|connection| books::read(connection, since))? {
            sum.add(&page.report);
        }
        Ok(sum)
    }

    /// How the budgets stand.
    pub fn budget(&self) -> Result<Vec<budget::Line>, Fault> {
        self.with(|connection| budget::lines(connection))
    }

    /// The same by day: its beginning in seconds since 1970, and its sums.
    pub fn report_by_day(&self, since: i64) -> Result<Vec<(i64, Report)>, Fault> {
        let mut days: Vec<(i64, Report)> = Vec::new();
        for page in self.with(|connection| books::read(connection, since))? {
            let day = page.start - page.start.rem_euclid(books::DAY);
            match days.last_mut().filter(|(last, _)| *last == day) {
                Some((_, sum)) => sum.add(&page.report),
                None => days.push((day, page.report)),
            }
        }
        Ok(days)
    }

    /// Lines of an export, and where to go on; None = that was all. Damaged entries are left out. `after`: None = from
    /// the beginning.
    pub fn export(&self, after: Option<i64>) -> Result<(Vec<String>, Option<i64>), Fault> {
        self.with(|connection| transfer::export(connection, after))
    }

    /// Whether lines of an export that begins with `first` may come in; a file that is not there is made for it.
    pub fn prepare_import(path: &Path, gate: &Arc<Gate>, first: &str) -> Result<(), Fault> {
        let salt = transfer::first_salt(first)?;
        if !path.exists() {
            let _pass = gate.enter();
            file::open(path, &salt, None)?;
        }
        Self::open(path, gate)?.with(|connection| transfer::fits(connection, salt))
    }

    /// Takes lines of an export in, but the first; returns how many entries that were. On failure none of them is taken;
    /// which line it was, from 0 on.
    pub fn import(&self, lines: &[String]) -> Result<u64, (usize, Fault)> {
        let mut done = Ok(0);
        self.with(|connection| {
            done = transfer::import(connection, lines);
            Ok(())
        })
        .map_err(|fault| (0, fault))?;
        done
    }
}

pub fn size(connection: &Connection) -> Result<Size, Fault> {
    let sql = format!("SELECT count(*) FROM {}", invalidation::source(connection)?);
    let entries: i64 = connection.query_row(&sql, (), |row| row.get(0))?;
    Ok(Size { entries: entries.max(0) as u64, bytes: bytes_in_use(connection)? })
}

/// Of the file, without pages that are free for what comes.
pub fn bytes_in_use(connection: &Connection) -> Result<u64, Fault> {
    let number = |pragma: &str| {
        connection.prepare_cached(pragma)?.query_row((), |row| row.get::<_, i64>(0)).optional().map(|n| n.unwrap_or(0))
    };
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok((pages * number("PRAGMA page_size")?).max(0) as u64)
}

#[derive(Clone, Copy, Default)]
struct Count {
    entries: i64,
    bytes: i64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }
}

/// The largest groups first.
fn listed(groups: BTreeMap<Option<String>, Count>) -> Value {
    const MOST: usize = 100;
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(count.entries));
    let shown = groups.into_iter().take(MOST);
    shown.map(|(name, count)| json!({"name": name, "entries": count.entries, "answer_bytes": count.bytes})).collect()
}

/// How an entry is called on the command line: 16 hex digits.
fn name(id: i64) -> String {
    format!("{:016x}", id as u64)
}

/// The places that a name's beginning may mean.
fn range(beginning: &str) -> Option<(i64, i64)> {
    let digits = beginning.to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 16 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let end = |fill: char| u64::from_str_radix(&format!("{digits}{}", fill.to_string().repeat(16 - digits.len())), 16);
    Some((end('0').ok()? as i64, end('f').ok()? as i64))
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
