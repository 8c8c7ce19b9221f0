//! Entries as lines of JSON, out of a file and into another. The first line has the salt: keys mean nothing without it.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::Fault;
use super::now;
use super::row::{Stored, endpoint_name, endpoint_of};
use crate::key::Key;
use crate::ledger::{Money, Usage};
use crate::store::About;

/// Rises when a line changes its meaning.
const FORMAT: u32 = 1;
const PAGE: i64 = 256;

#[derive(Deserialize)]
struct First {
    farthing_cache: u32,
    salt: String,
}

#[derive(Deserialize)]
struct Line {
    key: String,
    #[serde(default)]
    namespace: String,
    endpoint: String,
    model: Option<String>,
    tag: Option<String>,
    usage: Option<Usage>,
    cost: Option<Money>,
    stored: i64,
    expires: Option<i64>,
    #[serde(default)]
    own_time: bool,
    #[serde(default)]
    deterministic: bool,
    headers: Vec<(String, String)>,
    body: String,
}

pub fn line(stored: &Stored) -> Value {
    let headers: Vec<(String, String)> = String::from_utf8_lossy(&stored.head)
        .lines()
        .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    json!({
        "key": hex(&stored.key.0),
        "namespace": stored.namespace,
        "endpoint": endpoint_name(stored.about.endpoint),
        "model": stored.about.model_answered,
        "tag": stored.about.tag,
        "usage": stored.about.usage,
        "cost": stored.about.cost,
        "stored": stored.stored,
        "expires": stored.expires,
        "own_time": stored.about.is_own_ttl,
        "deterministic": stored.about.is_deterministic,
        "headers": headers,
        "body": String::from_utf8_lossy(&stored.body),
    })
}

pub fn export(connection: &Connection, after: Option<i64>) -> Result<(Vec<String>, Option<i64>), Fault> {
    let mut lines = Vec::new();
    if after.is_none() {
        let salt = salt(connection)?.ok_or(Fault::Corrupt(None))?;
        lines.push(json!({"farthing_cache": FORMAT, "salt": hex(&salt)}).to_string());
    }
    let page = Stored::page(connection, after.unwrap_or(i64::MIN), PAGE)?;
    let last = page.last().map(|(id, _)| *id).filter(|_| page.len() == PAGE as usize);
    let good = page.into_iter().filter_map(|(_, stored)| stored.ok());
    lines.extend(good.map(|stored| line(&stored).to_string()));
    Ok((lines, last))
}

/// The salt that an export's first line has.
pub fn first_salt(line: &str) -> Result<[u8; 32], Fault> {
    let first: First = serde_json::from_str(line)
        .map_err(|_| Fault::Refused("not an export: its first line has no salt".to_owned()))?;
    if first.farthing_cache != FORMAT {
        return Err(odd(&format!("its format is {}, this version reads {FORMAT}", first.farthing_cache)));
    }
    unhex(&first.salt).and_then(|salt| salt.try_into().ok()).ok_or_else(|| odd("its salt is not 32 bytes"))
}

/// Lines after the first. All of them are taken, or none; an answer that is there and younger stays. On failure: which
/// line, from 0 on.
pub fn import(connection: &mut Connection, lines: &[String]) -> Result<u64, (usize, Fault)> {
    let write = |error: rusqlite::Error| (0, error.into());
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(write)?;
    let now = now();
    let mut taken = 0;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = serde_json::from_str::<Line>(line).map_err(|error| odd(&error.to_string())).and_then(stored);
        read.and_then(|stored| stored.write_unless_younger(&transaction, now)).map_err(|fault| (at, fault))?;
        taken += 1;
    }
    transaction.commit().map_err(write)?;
    Ok(taken)
}

/// Whether keys of an export with this salt mean something here.
pub fn fits(connection: &Connection, theirs: [u8; 32]) -> Result<(), Fault> {
    if salt(connection)?.as_deref() == Some(&theirs) {
        return Ok(());
    }
    Err(Fault::Refused(
        "the export has another salt, so its keys would never be found here; import it into a new file".to_owned(),
    ))
}

fn stored(line: Line) -> Result<Stored, Fault> {
    let key = unhex(&line.key).and_then(|key| <[u8; 32]>::try_from(key).ok()).ok_or_else(|| odd("a key"))?;
    let mut head = Vec::new();
    for (name, value) in &line.headers {
        if [name, value].into_iter().any(|text| text.contains('\n')) || name.contains(':') {
            return Err(odd("a header"));
        }
        head.extend_from_slice(format!("{name}:{value}\n").as_bytes());
    }
    let endpoint = endpoint_of(&line.endpoint).ok_or_else(|| odd(&format!("the endpoint {}", line.endpoint)))?;
    if !serde_json::from_str::<Value>(&line.body).is_ok_and(|body| body.is_object()) {
        return Err(odd("the body is no JSON object"));
    }
    let about = About {
        endpoint,
        usage: line.usage,
        model_answered: line.model.map(Into::into),
        cost: line.cost,
        tag: line.tag.map(Into::into),
        ttl: None,
        is_own_ttl: line.own_time,
        is_deterministic: line.deterministic,
    };
    Ok(Stored {
        key: Key(key),
        namespace: line.namespace,
        about,
        stored: line.stored,
        expires: line.expires,
        head,
        body: line.body.into_bytes().into(),
    })
}

fn odd(what: &str) -> Fault {
    Fault::Refused(format!("not a line of a cache's export ({what})"))
}

fn salt(connection: &Connection) -> Result<Option<Vec<u8>>, Fault> {
    Ok(connection.query_row("SELECT value FROM meta WHERE name = 'salt'", (), |row| row.get(0)).optional()?)
}

/// USD as text, from the whole number that a row has.
pub fn cost_text(units: Option<String>) -> Option<String> {
    units?.parse().ok().map(|units| Money::from_pico(units).to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
