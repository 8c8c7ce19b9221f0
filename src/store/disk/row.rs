//! An answer as a row of the file, and back: compressed when that pays, with a digest over all of it.
//!
//! A row that does not match its digest is no answer. No API key is in it, nor any header but the few that an entry
//! keeps (`store/mod.rs`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::fault::Fault;
use crate::exchange::Endpoint;
use crate::key::Key;
use crate::ledger::{Money, Usage};
use crate::store::Entry;

/// Smaller bodies stay as they are.
const COMPRESSED_FROM: usize = 1024;
/// The library's own default: three times smaller than text, and quicker than the disk.
const LEVEL: i32 = 3;
/// No answer is as large; a damaged size must not ask for so much memory.
const MOST_BYTES: usize = 1 << 30;

const COLUMNS: &str =
    "key, namespace, endpoint, model, tag, usage, cost, stored, expires, head, size, compressed, body, digest";

/// A row with its place in the table.
pub type Placed = (i64, Result<Stored, Fault>);

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub key: Key,
    pub namespace: String,
    pub endpoint: Endpoint,
    pub model: Option<Arc<str>>,
    pub tag: Option<Arc<str>>,
    pub usage: Option<Usage>,
    pub cost: Option<Money>,
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
            endpoint: entry.endpoint,
            model: entry.model_answered.clone(),
            tag: entry.tag.clone(),
            usage: entry.usage.clone(),
            cost: entry.cost,
            stored,
            expires: entry.ttl.map(|ttl| stored.saturating_add(millis(ttl))),
            head: entry.head().to_vec(),
            body: entry.body.clone(),
        }
    }

    /// The entry in memory. `ttl`: what the reader's policy says of the age of answers.
    pub fn into_entry(self, now: i64, ttl: Option<Duration>) -> Entry {
        let own = self.expires.map(|expires| between(self.stored, expires));
        let ttl = own.into_iter().chain(ttl).min();
        let age = between(self.stored, now);
        let head = self.head.into_boxed_slice();
        Entry::from_parts(self.endpoint, self.body, head, self.usage, self.model, self.cost, self.tag, ttl, age)
    }

    /// Writes the row, in place of one with the same key.
    pub fn write(&self, connection: &Connection, used: i64) -> Result<(), Fault> {
        let packed = (self.body.len() >= COMPRESSED_FROM)
            .then(|| zstd::bulk::compress(&self.body, LEVEL).ok())
            .flatten()
            .filter(|packed| packed.len() < self.body.len());
        let body = packed.as_deref().unwrap_or(&self.body);
        let usage = self.usage.as_ref().and_then(|usage| serde_json::to_string(usage).ok());
        let cost = self.cost.map(|cost| cost.pico().to_string());
        let digest = self.digest(usage.as_deref(), cost.as_deref(), packed.is_some(), body);
        let mut statement = connection.prepare_cached(&format!(
            "INSERT OR REPLACE INTO entry (epoch, id, used, {COLUMNS})
             VALUES ((SELECT coalesce(max(id), 0) FROM invalidation), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
        ))?;
        statement.execute(params![
            id(&self.namespace, &self.key),
            used,
            self.key.0.as_slice(),
            self.namespace,
            endpoint_name(self.endpoint),
            self.model.as_deref(),
            self.tag.as_deref(),
            usage,
            cost,
            self.stored,
            self.expires,
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
        let rows = statement.query_map([after, most], |row| Ok((row.get::<_, i64>(14)?, Self::of_row(row))))?;
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
        let size = usize::try_from(row.get::<_, i64>(10)?).ok().filter(|size| *size <= MOST_BYTES);
        let compressed: bool = row.get(11)?;
        let packed = row.get_ref(12)?.as_blob()?;
        let digest = row.get_ref(13)?.as_blob()?;
        let (Some(key), Some(size), Some(endpoint)) = (key, size, endpoint_of(row.get_ref(2)?.as_str()?)) else {
            return Ok(Err(Fault::Damaged));
        };
        let mut stored = Self {
            key: Key(key),
            namespace: row.get(1)?,
            endpoint,
            model: row.get(3)?,
            tag: row.get(4)?,
            usage: None,
            cost: None,
            stored: row.get(7)?,
            expires: row.get(8)?,
            head: row.get(9)?,
            body: Bytes::new(),
        };
        if stored.digest(usage.as_deref(), cost.as_deref(), compressed, packed) != digest {
            return Ok(Err(Fault::Damaged));
        }
        let body = if compressed { zstd::bulk::decompress(packed, size).ok() } else { Some(packed.to_vec()) };
        let Some(body) = body.filter(|body| body.len() == size) else { return Ok(Err(Fault::Damaged)) };
        stored.body = body.into();
        // Written by us as the digest shows; a field of a later version is left out.
        stored.usage = usage.and_then(|usage| serde_json::from_str(&usage).ok());
        stored.cost = cost.and_then(|cost| cost.parse().ok()).map(Money::from_pico);
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
        part(Some(endpoint_name(self.endpoint).as_bytes()));
        part(self.model.as_deref().map(str::as_bytes));
        part(self.tag.as_deref().map(str::as_bytes));
        part(usage.map(str::as_bytes));
        part(cost.map(str::as_bytes));
        part(Some(&self.stored.to_le_bytes()));
        part(self.expires.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        part(Some(&self.head));
        part(Some(&[u8::from(compressed)]));
        part(Some(body));
        let whole: [u8; 32] = hasher.finalize().into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        digest
    }
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
