//! Answers on disk, below those in memory: one SQLite file that many processes share, and the ledger's sums in it.
//!
//! Read when memory has nothing; written behind the caller's back by a thread of its own (`writer.rs`). A failure here is
//! a miss and a note, never a failed call; who wants to hear of it asks [`DiskStore::take_news`]. Which answers are stored
//! and which calls may be answered is decided in `stages/cache.rs`.
//!
//! `file.rs` opens the file, `schema.rs` has its tables, `row.rs` an answer in them, `books.rs` the sums, `budget.rs` what budgets have and who reserved (`owner.rs`),
//! `labels.rs` what own traffic taught,
//! `invalidation.rs` what is to be forgotten; `gate.rs` and `connections.rs` keep SQLite out of forks; `admin.rs` is what the command line does with a file.

pub mod admin;
mod books;
pub mod budget;
mod connections;
pub mod fault;
pub mod file;
pub mod gate;
mod invalidation;
pub mod labels;
pub mod network;
mod news;
mod owner;
mod queue;
pub mod row;
pub mod schema;
mod steps;
mod transfer;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Transaction;

use self::connections::Connections;
use self::fault::Fault;
use self::gate::Gate;
use self::news::News;
use self::queue::{Job, Order, Queue};
use self::row::Stored;
use crate::key::Key;
use crate::labels::Label;
use crate::ledger::Ledger;
use crate::store::Entry;
use crate::store::memory::MemoryStore;

/// How long somebody waits for an order: longer than a lock is held by those who mean well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clocks of one machine differ by less, those that were set back by more.
const CLOCK_SLACK: i64 = 60_000;

/// Where the file is and what it may hold.
#[derive(Clone, Debug)]
pub struct Settings {
    pub path: PathBuf,
    /// Bytes of the file that are in use.
    pub max_bytes: u64,
    /// Sets caches in one file apart.
    pub namespace: String,
}

impl Settings {
    /// Bytes that labels may take of the file: they are not to crowd out the answers.
    fn most_label_bytes(&self) -> i64 {
        i64::try_from(self.max_bytes / 4).unwrap_or(i64::MAX)
    }
}

/// See the module. Dropped, it writes what waits and closes the file, on its own thread.
pub struct DiskStore(Arc<Shared>);

/// What callers and the writer's thread share.
struct Shared {
    settings: Settings,
    connections: Arc<Connections>,
    /// Entries that another process invalidates are removed from it.
    memory: MemoryStore,
    /// The salt that a file gets which is made here.
    own_salt: [u8; 32],
    salt: OnceLock<[u8; 32]>,
    queue: Queue,
    news: News,
    /// What calls added since it was last written down.
    book: Arc<Ledger>,
    hits: AtomicU64,
    invalidations: AtomicU64,
    has_writer: AtomicBool,
}

/// What the writer was asked to do; it does so also when nobody waits.
pub struct Ordered {
    answer: Option<Receiver<Result<u64, Fault>>>,
    until: Instant,
}

impl Ordered {
    /// Waits until it is done.
    ///
    /// # Errors
    /// What kept the writer from it.
    pub fn wait(mut self) -> Result<u64, Fault> {
        loop {
            if let Some(done) = self.wait_for(PATIENCE) {
                return done;
            }
        }
    }

    /// Waits for a turn; None when it is not done yet, and there is patience left.
    pub fn wait_for(&mut self, turn: Duration) -> Option<Result<u64, Fault>> {
        let Some(answer) = &self.answer else { return Some(Err(Fault::Forked)) };
        let left = self.until.saturating_duration_since(Instant::now());
        match answer.recv_timeout(turn.min(left)) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) if turn < left => None,
            Err(_) => Some(Err(Fault::Locked)),
        }
    }
}

/// Counts of the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    pub entries: u64,
    /// Of the file, in use.
    pub bytes: u64,
}

impl DiskStore {
    /// Opens the file, or goes on without it and tries again later. `own_salt`: for a file that is made now.
    pub fn open(settings: Settings, own_salt: [u8; 32], gate: &Arc<Gate>, memory: MemoryStore) -> Self {
        let shared = Arc::new(Shared {
            connections: Connections::new(&settings.path, gate),
            settings,
            memory,
            own_salt,
            salt: OnceLock::new(),
            queue: Queue::default(),
            news: News::default(),
            book: Arc::default(),
            hits: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            has_writer: AtomicBool::new(false),
        });
        if gate.is_barred() {
            shared.note(&Fault::Forked);
            shared.queue.close();
            return Self(shared);
        }
        let writer = writer::Writer::open(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("farthing-disk".to_owned()).spawn(move || writer.run());
        if let Err(error) = thread {
            shared.note(&Fault::Other(error.to_string()));
            shared.queue.close();
        } else {
            shared.has_writer.store(true, Ordering::Relaxed);
        }
        Self(shared)
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What keys of this file are salted with; None as long as it could not be read.
    pub fn salt(&self) -> Option<&[u8; 32]> {
        self.0.salt.get()
    }

    /// The answer of a key, if its age is right. `ttl`: what the policy says of that.
    pub fn get(&self, key: &Key, ttl: Option<Duration>) -> Option<Entry> {
        let shared = &self.0;
        match shared.connections.read(|connection| Stored::read(connection, &shared.settings.namespace, key))? {
            Ok(stored) => {
                let stored = stored?;
                let now = now();
                if stored.stored > now + CLOCK_SLACK && (stored.expires.is_some() || ttl.is_some()) {
                    // How old it is, nobody knows.
                    shared.note(&Fault::Clock);
                    shared.queue.push(Job::Remove(*key));
                    return None;
                }
                if stored.expires.is_some_and(|expires| expires <= now) {
                    return None;
                }
                let entry = stored.into_entry(now, ttl);
                if !entry.is_fresh(None) {
                    return None;
                }
                shared.queue.push(Job::Used(*key));
                shared.hits.fetch_add(1, Ordering::Relaxed);
                Some(entry)
            }
            // A miss; when it lasts, the writer says so.
            Err(Fault::Locked) => None,
            Err(fault) => {
                shared.note(&fault);
                match fault {
                    Fault::Damaged => _ = shared.queue.push(Job::Remove(*key)),
                    fault if fault.is_corrupt() => {
                        shared.news.set_suspect();
                        shared.queue.hurry();
                    }
                    _ => {}
                }
                None
            }
        }
    }

    /// Stores an answer, soon. One that would take the room of many is not stored.
    pub fn put(&self, key: Key, entry: &Entry) {
        if !self.0.has_writer.load(Ordering::Relaxed) {
            return;
        }
        let stored = Stored::of_entry(key, &self.0.settings.namespace, entry, now());
        let most = usize::try_from(self.0.settings.max_bytes).unwrap_or(usize::MAX).min(queue::MOST_BYTES) / 4;
        if stored.weight() <= most && !self.0.queue.push(Job::Put(Box::new(stored))) {
            self.0.note(&Fault::Overflow);
        }
    }

    /// Keeps a label, soon; gives it back when nobody can write it.
    pub fn keep_label(&self, label: Label) -> Option<Label> {
        if !self.0.has_writer.load(Ordering::Relaxed) {
            return Some(label);
        }
        match self.0.queue.offer(Job::Label(Box::new(label)))? {
            Job::Label(label) => Some(*label),
            _ => None,
        }
    }

    /// The labels that are in the file; none when there is no file.
    ///
    /// # Errors
    /// What kept them from being read.
    pub fn labels(&self) -> Result<Vec<Label>, Fault> {
        self.0.connections.read(labels::all).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Rises when answers were invalidated, here or by another process.
    pub fn invalidations(&self) -> u64 {
        self.0.invalidations.load(Ordering::Acquire)
    }

    /// Removes what was stored under a tag (None: everything) here and, within a second, from the memory of other
    /// processes; the number of answers that were.
    pub fn invalidate(&self, tag: Option<&str>) -> Ordered {
        self.0.invalidations.fetch_add(1, Ordering::AcqRel);
        self.order(Order::Invalidate(tag.map(Into::into)), PATIENCE)
    }

    /// Writes everything that was stored and noted before.
    pub fn flush(&self, patience: Duration) -> Ordered {
        self.order(Order::Flush, patience)
    }

    /// Writes soon, and waits for nothing.
    pub fn hurry(&self) {
        self.0.queue.hurry();
    }

    fn order(&self, order: Order, patience: Duration) -> Ordered {
        let answer = (!self.0.connections.gate.is_barred()).then(|| self.0.queue.order(order));
        Ordered { answer, until: Instant::now() + patience }
    }

    /// The sums that are to go into the file.
    pub fn book(&self) -> &Arc<Ledger> {
        &self.0.book
    }

    /// One transaction on the tables of budgets, on the caller's thread.
    ///
    /// # Errors
    /// What kept it from being written; noted, as all faults are.
    pub fn budget<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let Some(done) = self.0.connections.book(|connection| steps::immediately(connection, work)) else {
            // Why there is no file was noted by whoever tried to open it.
            return Err(Fault::Refused("budgets are kept in memory until there is a cache file".to_owned()));
        };
        if let Err(fault) = &done {
            self.0.note(fault);
            if fault.is_corrupt() {
                self.0.news.set_suspect();
                self.0.queue.hurry();
            }
        }
        done
    }

    /// Answers that were read from the file by this process.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }

    pub fn size(&self) -> Option<Size> {
        self.0.connections.read(admin::size)?.ok()
    }

    /// What went wrong, in a few words and with all that can be said: each kind once; to a strict policy as long as it
    /// goes on.
    pub fn take_news(&self, strict: bool) -> Option<(&'static str, String)> {
        let fault = self.0.news.take(strict)?;
        Some((fault.kind(), fault.explain(&self.0.settings.path)))
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if self.0.has_writer.load(Ordering::Relaxed) {
            self.0.connections.gate.begin_closing();
        }
        self.0.queue.close();
    }
}

impl Shared {
    /// Notes a failure, in the book as well.
    fn note(&self, fault: &Fault) {
        if self.news.note(fault) {
            self.book.record_fault(fault.kind());
        }
    }
}

/// Milliseconds since 1970, by the clock of the machine.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, row::millis)
}
