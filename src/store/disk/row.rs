//! An answer as a row of the file, and back: compressed when that pays, with a digest over all of it.
//!
//! A row that does not match its digest is no answer. No API key is in it, nor any header but the few that an entry
//! keeps (`store/mod.rs`).

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::file;
use crate::exchange::Endpoint;
use crate::key::Key;
use crate::ledger::Money;
use crate::store::{About, Entry};

/// Smaller bodies stay as they are.
const COMPRESSED_FROM: usize = 1024;
/// The library's own default: three times smaller than text, and quicker than the disk.
const LEVEL: i32 = 3;
/// No answer is as large; a damaged size must not ask for so much memory.
const MOST_BYTES: usize = 1 << 30;

/// What a row weighs besides its head and body; as in `schema.rs`.
const WEIGHT: i64 = 400;

const COLUMNS: &str = "key, namespace, endpoint, model, tag, usage, cost, stored, expires, own_time, deterministic, head, \
                       size, compressed, body, digest";

/// A row with its place in the table.
pub type Placed = (i64, Result<Stored, Fault>);

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub key: Key,
    pub namespace: String,
    /// Its `ttl` is not kept: `expires` says it.
    pub about: About,
    /// Milliseconds since 1970.
    pub stored: i64,
    pub expires: Option<i64>,
    pub head: Vec<u8>,
    pub body: Bytes,
}

impl Stored {
    /// An entry that was stored `now`, or as long ago as it says.
    pub fn of_entry(key: Key, namespace: &str, entry: &Entry, now: i64) -> Self {
        let stored = now.saturating_sub(millis(entry.age()));
        Self {
            key,
            namespace: namespace.to_owned(),
            about: About { ttl: None, ..entry.about.clone() },
            stored,
            expires: entry.about.ttl.map(|ttl| stored.saturating_add(millis(ttl))),
            head: entry.head().to_vec(),
            body: entry.body.clone(),
        }
    }

    /// The entry in memory. `ttl`: what the reader's policy says of the age of answers.
    pub fn into_entry(self, now: i64, ttl: Option<Duration>) -> Entry {
        let own = self.expires.map(|expires| between(self.stored, expires));
        let ttl = own.into_iter().chain(ttl.filter(|_| !self.about.is_own_ttl)).min();
        let age = between(self.stored, now);
        Entry::from_parts(About { ttl, ..self.about }, self.body, self.head.into_boxed_slice(), age)
    }

    /// What it takes in memory as long as it waits, in bytes; and about what it takes on disk.
    pub fn weight(&self) -> usize {
        self.body.len() + self.head.len() + WEIGHT as usize
    }

    /// Writes the row, in place of one with the same key.
    pub fn write(&self, connection: &Connection, used: i64) -> Result<(), Fault> {
        self.write_over(connection, used, "TRUE")
    }

    /// The same, unless the row that is there is younger.
    pub fn write_unless_younger(&self, connection: &Connection, used: i64) -> Result<(), Fault> {
        self.write_over(connection, used, "excluded.stored >= entry.stored")
    }

    fn write_over(&self, connection: &Connection, used: i64, condition: &str) -> Result<(), Fault> {
        let packed = (self.body.len() >= COMPRESSED_FROM)
            .then(|| zstd::bulk::compress(&self.body, LEVEL).ok())
            .flatten()
            .filter(|packed| packed.len() < self.body.len());
        let body = packed.as_deref().unwrap_or(&self.body);
        let about = &self.about;
        let usage = about.usage.as_ref().and_then(|usage| serde_json::to_string(usage).ok());
        let cost = about.cost.map(|cost| cost.pico().to_string());
        let digest = self.digest(usage.as_deref(), cost.as_deref(), packed.is_some(), body);
        let renewed: Vec<String> = COLUMNS.split(", ").map(|name| format!("{name} = excluded.{name}")).collect();
        let mut statement = connection.prepare_cached(&format!(
            "INSERT INTO entry (epoch, id, used, {COLUMNS})
             VALUES ((SELECT coalesce(max(id), 0) FROM invalidation),
                     ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, used = excluded.used, {} WHERE {condition}",
            renewed.join(", ")
        ))?;
        statement.execute(params![
            id(&self.namespace, &self.key),
            used,
            self.key.0.as_slice(),
            self.namespace,
            endpoint_name(about.endpoint),
            about.model_answered.as_deref(),
            about.tag.as_deref(),
            usage,
            cost,
            self.stored,
            self.expires,
            about.is_own_ttl,
            about.is_deterministic,
            self.head,
            self.body.len() as i64,
            packed.is_some(),
            body,
            digest.as_slice(),
        ])?;
        Ok(())
    }

    /// The row of `key`. [`Fault::Damaged`] when it is not what was written.
    pub fn read(connection: &Connection, namespace: &str, key: &Key) -> Result<Option<Self>, Fault> {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM live WHERE id = ?1"))?;
        let found = statement.query_row([id(namespace, key)], |row| Ok(Self::of_row(row))).optional()?;
        match found {
            Some(stored) => Ok(Some(stored?).filter(|stored| stored.key == *key && stored.namespace == namespace)),
            None => Ok(None),
        }
    }

    /// Rows after `id` in their order, `most` of them at most: for who goes through all of them.
    pub fn page(connection: &Connection, after: i64, most: i64) -> Result<Vec<Placed>, Fault> {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS}, id FROM live WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
        let rows = statement.query_map([after, most], |row| Ok((row.get::<_, i64>(16)?, Self::of_row(row))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn of_row(row: &Row<'_>) -> Result<Self, Fault> {
        // What has another type than was written is as wrong as another value.
        Self::columns(row).unwrap_or(Err(Fault::Damaged))
    }

    fn columns(row: &Row<'_>) -> rusqlite::Result<Result<Self, Fault>> {
        let key: Option<[u8; 32]> = row.get_ref(0)?.as_blob()?.try_into().ok();
        let usage: Option<String> = row.get(5)?;
        let cost: Option<String> = row.get(6)?;
        let size = usize::try_from(row.get::<_, i64>(12)?).ok().filter(|size| *size <= MOST_BYTES);
        let compressed: bool = row.get(13)?;
        let packed = row.get_ref(14)?.as_blob()?;
        let digest = row.get_ref(15)?.as_blob()?;
        let (Some(key), Some(size), Some(endpoint)) = (key, size, endpoint_of(row.get_ref(2)?.as_str()?)) else {
            return Ok(Err(Fault::Damaged));
        };
        let about = About {
            endpoint,
            usage: None,
            model_answered: row.get(3)?,
            cost: None,
            tag: row.get(4)?,
            ttl: None,
            is_own_ttl: row.get(9)?,
            is_deterministic: row.get(10)?,
        };
        let (stored, expires, head) = (row.get(7)?, row.get(8)?, row.get(11)?);
        let (key, namespace) = (Key(key), row.get(1)?);
        let mut stored = Self { key, namespace, about, stored, expires, head, body: Bytes::new() };
        if stored.digest(usage.as_deref(), cost.as_deref(), compressed, packed) != digest {
            return Ok(Err(Fault::Damaged));
        }
        let body = if compressed { zstd::bulk::decompress(packed, size).ok() } else { Some(packed.to_vec()) };
        let Some(body) = body.filter(|body| body.len() == size) else { return Ok(Err(Fault::Damaged)) };
        stored.body = body.into();
        // Written by us as the digest shows; a field of a later version is left out.
        stored.about.usage = usage.and_then(|usage| serde_json::from_str(&usage).ok());
        stored.about.cost = cost.and_then(|cost| cost.parse().ok()).map(Money::from_pico);
        Ok(Ok(stored))
    }

    fn digest(&self, usage: Option<&str>, cost: Option<&str>, compressed: bool, body: &[u8]) -> [u8; 16] {
        let mut hasher = Sha256::new();
        let mut part = |bytes: Option<&[u8]>| {
            hasher.update(bytes.map_or(-1, |bytes| bytes.len() as i64).to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(Some(&self.key.0));
        part(Some(self.namespace.as_bytes()));
        part(Some(endpoint_name(self.about.endpoint).as_bytes()));
        part(self.about.model_answered.as_deref().map(str::as_bytes));
        part(self.about.tag.as_deref().map(str::as_bytes));
        part(usage.map(str::as_bytes));
        part(cost.map(str::as_bytes));
        part(Some(&self.stored.to_le_bytes()));
        part(self.expires.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        part(Some(&self.head));
        part(Some(&[self.about.is_own_ttl, self.about.is_deterministic, compressed].map(u8::from)));
        part(Some(body));
        let whole: [u8; 32] = hasher.finalize().into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        digest
    }
}

/// What all rows weigh.
pub fn all_weigh(connection: &Connection) -> Result<i64, Fault> {
    Ok(file::number(connection, "bytes")?.unwrap_or(0))
}

/// Removes rows, those that were not used for longest first, until all weigh `enough`; true when they do. No more than
/// `most` in one step.
pub fn evict(connection: &Connection, enough: i64, most: i64) -> Result<bool, Fault> {
    let mut excess = all_weigh(connection)? - enough;
    if excess <= 0 {
        return Ok(true);
    }
    let mut oldest =
        connection.prepare_cached("SELECT id, length(body) + length(head) + ?1 FROM entry ORDER BY used LIMIT ?2")?;
    let mut rows = oldest.query([WEIGHT, most])?;
    let mut chosen = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| excess > 0) {
        chosen.push(row.get::<_, i64>(0)?);
        excess -= row.get::<_, i64>(1)?;
    }
    drop(rows);
    let mut delete = connection.prepare_cached("DELETE FROM entry WHERE id = ?1")?;
    for id in &chosen {
        delete.execute([id])?;
    }
    Ok(excess <= 0 || chosen.is_empty())
}

/// The place of a key in the table.
pub fn id(namespace: &str, key: &Key) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    let own = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    if namespace.is_empty() {
        return own;
    }
    let digest: [u8; 32] = Sha256::new_with_prefix(key.0).chain_update(namespace).finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

pub fn endpoint_name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "chat",
        Endpoint::Responses => "responses",
        Endpoint::Embeddings => "embeddings",
        Endpoint::Other => "other",
    }
}

pub fn endpoint_of(name: &str) -> Option<Endpoint> {
    [Endpoint::Chat, Endpoint::Responses, Endpoint::Embeddings].into_iter().find(|known| endpoint_name(*known) == name)
}

pub fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// None of it when the clock was set back in between.
pub fn between(earlier: i64, later: i64) -> Duration {
    Duration::from_millis(u64::try_from(later.saturating_sub(earlier)).unwrap_or(0))
}
