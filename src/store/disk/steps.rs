//! Long work on a file in short transactions, so that other processes get it in between, and forks.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::Fault;

/// A round of steps; a fork waits for one at most.
const ROUND: Duration = Duration::from_millis(100);

/// Takes steps until one says that it was the last (true), or a round is over (false). Between them the file is free for
/// as long as it was taken: whoever waits for SQLite's lock asks again only now and then.
pub fn in_steps(mut step: impl FnMut() -> Result<bool, Fault>) -> Result<bool, Fault> {
    let ends = Instant::now() + ROUND;
    loop {
        let begun = Instant::now();
        if step()? {
            return Ok(true);
        }
        if Instant::now() > ends {
            return Ok(false);
        }
        std::thread::sleep(begun.elapsed());
    }
}

/// A transaction that may write from its beginning on.
pub fn immediately<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}
