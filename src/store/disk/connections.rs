//! The connections of a process to one cache file: some that read, one that writes, all of them closed before a fork.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::fault::Fault;
use super::file;
use super::gate::Gate;

/// Readers that are kept open while nobody reads.
const MOST_IDLE: usize = 8;

/// See the module.
pub struct Connections {
    pub path: PathBuf,
    pub gate: Arc<Gate>,
    /// With the epoch that they were opened in.
    readers: Mutex<Vec<(u64, Connection)>>,
    writer: Mutex<Option<Connection>>,
    /// The one that budgets are booked with, on the threads of those who ask; with its epoch.
    booker: Mutex<Option<(u64, Connection)>>,
    /// Rises when the path means another file.
    epoch: AtomicU64,
    /// There is a file that can be read.
    ready: AtomicBool,
}

impl Connections {
    pub fn new(path: &Path, gate: &Arc<Gate>) -> Arc<Self> {
        let made = Arc::new(Self {
            path: path.to_owned(),
            gate: Arc::clone(gate),
            readers: Mutex::default(),
            writer: Mutex::default(),
            booker: Mutex::default(),
            epoch: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        });
        gate.add(&made);
        made
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Reads; None when there is no file to read.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Option<Result<T, Fault>> {
        if !self.is_ready() {
            return None;
        }
        let _pass = self.gate.enter();
        let epoch = self.epoch.load(Ordering::Acquire);
        let kept = {
            let mut readers = lock(&self.readers);
            readers.retain(|(opened, _)| *opened == epoch);
            readers.pop()
        };
        let connection = match kept {
            Some((_, connection)) => connection,
            None => match file::open_reader(&self.path) {
                Ok(connection) => connection,
                Err(fault) => return Some(Err(fault)),
            },
        };
        let result = work(&connection);
        // One that failed may have a broken file behind it, or a lock in its hand.
        if result.is_ok() {
            let mut readers = lock(&self.readers);
            if readers.len() < MOST_IDLE {
                readers.push((epoch, connection));
            }
        } else if self.epoch.load(Ordering::Acquire) != epoch {
            // It was about a file that is not there any more.
            return None;
        }
        Some(result)
    }

    /// Works with a connection that may write, one at a time; None when there is no file.
    pub fn book<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Option<Result<T, Fault>> {
        if !self.is_ready() {
            return None;
        }
        let _pass = self.gate.enter();
        let epoch = self.epoch.load(Ordering::Acquire);
        let mut place = lock(&self.booker);
        if place.as_ref().is_some_and(|(opened, _)| *opened != epoch) {
            *place = None;
        }
        let (_, connection) = match place.as_mut() {
            Some(kept) => kept,
            None => match file::connect_to_book(&self.path) {
                Ok(connection) => place.insert((epoch, connection)),
                Err(fault) => return Some(Err(fault)),
            },
        };
        let result = work(connection);
        if result.is_err() {
            *place = None;
        }
        Some(result)
    }

    /// The writer's place; its thread holds a pass.
    pub fn writer(&self) -> MutexGuard<'_, Option<Connection>> {
        lock(&self.writer)
    }

    /// The file is there, and may be another one than before.
    pub fn set_ready(&self, is_other_file: bool) {
        if is_other_file {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.ready.store(true, Ordering::Release);
    }

    pub fn set_gone(&self) {
        self.ready.store(false, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The gate is shut, so nobody uses them.
    pub fn close_for_fork(&self) {
        let readers = std::mem::take(&mut *lock(&self.readers)).into_iter().map(|(_, connection)| connection);
        let booker = lock(&self.booker).take().map(|(_, connection)| connection);
        for connection in readers.chain(lock(&self.writer).take()).chain(booker) {
            // The log is written back by whoever closes last in the end; a fork does not wait for that.
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    /// Closes all of them for good.
    pub fn close(&self) {
        let _pass = self.gate.enter();
        self.set_gone();
        lock(&self.readers).clear();
        lock(&self.writer).take();
        lock(&self.booker).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
