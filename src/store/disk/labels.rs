//! Labels (`labels.rs` in the core) as rows of the file. Bounded by rows and by bytes: the oldest go.

use rusqlite::{Connection, Row, params};

use super::fault::Fault;
use super::file;
use crate::labels::{Kind, Label};
use crate::ledger::Money;

/// Labels of one file.
pub const MOST: i64 = 100_000;
/// Rows that one statement removes.
const STEP: i64 = 256;
const COLUMNS: &str =
    "at, model, rung, kind, prompt, features, score, scores, good, cost, dear_cost, overhead, size, text";

/// Adds a row.
pub fn add(connection: &Connection, label: &Label) -> Result<(), Fault> {
    let sql =
        format!("INSERT INTO labels ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)");
    let scores = serde_json::to_string(&label.scores).map_err(|error| Fault::Other(error.to_string()))?;
    let money = |sum: Option<Money>| sum.map(|sum| sum.to_string());
    let size = i64::try_from(label.weight()).unwrap_or(i64::MAX);
    connection.prepare_cached(&sql)?.execute(params![
        label.at,
        label.model,
        label.rung,
        label.kind.name(),
        label.prompt.as_slice(),
        label.features.to_string(),
        label.score,
        scores,
        label.good,
        money(label.cost),
        money(label.dear_cost),
        money(label.overhead),
        size,
        label.text,
    ])?;
    Ok(())
}

/// Removes the oldest until there are `most` rows, of `most_bytes` together.
pub fn trim(connection: &Connection, most: i64, most_bytes: i64) -> Result<(), Fault> {
    // Numbers are never used twice, and rows go in their order.
    connection.prepare_cached("DELETE FROM labels WHERE id <= (SELECT max(id) FROM labels) - ?1")?.execute([most])?;
    while file::number(connection, "label bytes")?.is_some_and(|bytes| bytes > most_bytes) {
        let sql = "DELETE FROM labels WHERE id IN (SELECT id FROM labels ORDER BY id LIMIT ?1)";
        if connection.prepare_cached(sql)?.execute([STEP])? == 0 {
            break;
        }
    }
    Ok(())
}

/// All of them, the oldest first. A row that is not as we write them is left out.
pub fn all(connection: &Connection) -> Result<Vec<Label>, Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM labels ORDER BY id"))?;
    let mut rows = statement.query(())?;
    let mut labels = Vec::new();
    while let Some(row) = rows.next()? {
        labels.extend(parse(row));
    }
    Ok(labels)
}

pub fn count(connection: &Connection) -> Result<i64, Fault> {
    Ok(connection.query_row("SELECT count(*) FROM labels", (), |row| row.get(0))?)
}

/// Takes over what can be read of a file that was moved aside: traffic is not repeated.
pub fn salvage(connection: &Connection, from: &Connection) -> Result<(), Fault> {
    all(from)?.iter().try_for_each(|label| add(connection, label))
}

fn parse(row: &Row<'_>) -> Option<Label> {
    let money = |at| row.get::<_, Option<String>>(at).ok()?.and_then(|text| Money::parse(&text));
    let json = |at| row.get::<_, String>(at).ok();
    Some(Label {
        at: row.get(0).ok()?,
        model: row.get(1).ok()?,
        rung: row.get(2).ok()?,
        kind: Kind::from_name(&json(3)?)?,
        prompt: row.get(4).ok()?,
        features: serde_json::from_str(&json(5)?).ok()?,
        score: row.get(6).ok()?,
        scores: serde_json::from_str(&json(7)?).ok()?,
        good: row.get(8).ok()?,
        cost: money(9),
        dear_cost: money(10),
        overhead: money(11),
        text: row.get(13).ok()?,
    })
}
