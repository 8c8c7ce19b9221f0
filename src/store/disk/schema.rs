//! The tables of a cache file, their version, and the way from each version to the next.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;

/// Marks a file as ours ("fthg"): a database of somebody else's is left alone.
const APPLICATION: i32 = 0x6674_6867;

/// Step n makes version n + 1 of version n. A step that was released is never changed again.
const STEPS: [&str; 4] = [ENTRIES, LEDGER, BUDGET, LABELS];

pub const VERSION: i32 = STEPS.len() as i32;

/// `id` is the beginning of a hash of namespace and key, so that a look-up is one walk of one tree; `key` is compared as
/// well. Times are milliseconds since 1970. `cost` is in 1e-12 USD. `digest` is over all of a row (`row.rs`).
/// `epoch` is the newest invalidation when the row was written: a newer one that is not done yet hides the row, so answers
/// are read from `live`. 'bytes' in `meta` is what all rows weigh (`row.rs`).
const ENTRIES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        namespace TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        model TEXT,
        tag TEXT,
        usage TEXT,
        cost TEXT,
        stored INTEGER NOT NULL,
        expires INTEGER,
        own_time INTEGER NOT NULL,
        deterministic INTEGER NOT NULL,
        used INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        head BLOB NOT NULL,
        size INTEGER NOT NULL,
        compressed INTEGER NOT NULL,
        body BLOB NOT NULL,
        digest BLOB NOT NULL
    );
    CREATE INDEX entry_used ON entry (used);
    CREATE INDEX entry_tag ON entry (tag, namespace) WHERE tag IS NOT NULL;
    CREATE INDEX entry_expires ON entry (expires) WHERE expires IS NOT NULL;
    CREATE TABLE invalidation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT,
        tag TEXT,
        key BLOB,
        at INTEGER NOT NULL,
        done INTEGER NOT NULL
    );
    INSERT INTO meta VALUES ('bytes', 0);
    CREATE TRIGGER entry_comes AFTER INSERT ON entry BEGIN
        UPDATE meta SET value = value + length(new.body) + length(new.head) + 400 WHERE name = 'bytes';
    END;
    CREATE TRIGGER entry_goes AFTER DELETE ON entry BEGIN
        UPDATE meta SET value = value - length(old.body) - length(old.head) - 400 WHERE name = 'bytes';
    END;
    CREATE TRIGGER entry_changes AFTER UPDATE OF body, head ON entry BEGIN
        UPDATE meta SET value = value + length(new.body) + length(new.head) - length(old.body) - length(old.head)
        WHERE name = 'bytes';
    END;
    CREATE INDEX invalidation_open ON invalidation (id) WHERE NOT done;
    CREATE VIEW live AS SELECT * FROM entry WHERE NOT EXISTS (
        SELECT 1 FROM invalidation AS open
        WHERE NOT open.done AND open.id > entry.epoch
            AND (open.tag IS NULL OR open.tag = entry.tag)
            AND (open.namespace IS NULL OR open.namespace = entry.namespace)
    );
";

/// Sums of what was spent and saved from `start` (seconds since 1970) on, for `span` seconds.
const LEDGER: &str = "
    CREATE TABLE ledger (
        span INTEGER NOT NULL,
        start INTEGER NOT NULL,
        report TEXT NOT NULL,
        PRIMARY KEY (span, start)
    ) WITHOUT ROWID;
";

/// `subject` is a JSON list ("tag=x"), or empty; `day` is the UTC day since 1970 of a budget by the day; `most` is its limit as
/// it was last. Money is in 1e-12 USD. A reservation is one attempt's in one account; `owner` is its process (`owner.rs`),
/// `until` milliseconds since 1970.
const BUDGET: &str = "
    CREATE TABLE budget (
        name TEXT NOT NULL,
        subject TEXT NOT NULL,
        day INTEGER,
        most INTEGER,
        spent INTEGER NOT NULL,
        unknown INTEGER NOT NULL,
        expired INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        warned INTEGER NOT NULL,
        PRIMARY KEY (name, subject)
    ) WITHOUT ROWID;
    CREATE INDEX budget_day ON budget (day) WHERE day IS NOT NULL;
    CREATE TABLE reservation (
        name TEXT NOT NULL,
        subject TEXT NOT NULL,
        owner TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (name, subject, owner, attempt)
    ) WITHOUT ROWID;
";

/// `at` is milliseconds since 1970, `prompt` a SHA-256, `features` and `scores` are JSON; money is decimal text, USD. `size`
/// is what a row weighs (`labels.rs`), 'label bytes' in `meta` their sum.
const LABELS: &str = "
    CREATE TABLE labels (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        model TEXT NOT NULL,
        rung TEXT NOT NULL,
        kind TEXT NOT NULL,
        prompt BLOB NOT NULL,
        features TEXT NOT NULL,
        score REAL,
        scores TEXT NOT NULL,
        good REAL,
        cost TEXT,
        dear_cost TEXT,
        overhead TEXT,
        size INTEGER NOT NULL,
        text TEXT
    );
    INSERT INTO meta VALUES ('label bytes', 0);
    CREATE TRIGGER label_comes AFTER INSERT ON labels BEGIN
        UPDATE meta SET value = value + new.size WHERE name = 'label bytes';
    END;
    CREATE TRIGGER label_goes AFTER DELETE ON labels BEGIN
        UPDATE meta SET value = value - old.size WHERE name = 'label bytes';
    END;
";

/// What a file is, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No tables yet.
    Empty,
    Ours(i32),
    /// A database that farthing did not make.
    Foreign,
}

pub fn kind(connection: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(match (number("application_id")?, tables) {
        (APPLICATION, _) => Kind::Ours(number("user_version")?),
        (0, 0) => Kind::Empty,
        _ => Kind::Foreign,
    })
}

/// Brings a file to this version, in one transaction; `salt` is what a new file gets.
pub fn migrate(connection: &mut Connection, salt: &[u8; 32]) -> Result<(), Fault> {
    // Whoever only looks waits for no lock.
    if kind(connection)? == Kind::Ours(VERSION) {
        return Ok(());
    }
    migrate_to(connection, salt, VERSION)
}

/// [`migrate`] to an older version, for tests of the steps.
pub fn migrate_to(connection: &mut Connection, salt: &[u8; 32], target: i32) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Under the lock: another process may have made the tables since we looked.
    let version = match kind(&transaction)? {
        Kind::Foreign => return Err(Fault::Foreign),
        Kind::Ours(version) if version > VERSION => return Err(Fault::Newer { version }),
        Kind::Ours(version) => version,
        Kind::Empty => 0,
    };
    for step in STEPS.iter().take(target.max(0) as usize).skip(version.max(0) as usize) {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        transaction.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?1)", [salt.as_slice()])?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    if version < target {
        transaction.pragma_update(None, "user_version", target)?;
    }
    transaction.commit()?;
    Ok(())
}
