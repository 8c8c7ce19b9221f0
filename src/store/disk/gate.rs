//! Who may be inside SQLite, and when: nobody while the process forks.
//!
//! SQLite's locks belong to a process, and its own mutexes do not survive a fork that another thread is caught in. So
//! every use of a connection holds a [`Pass`]; before a fork the gate is shut, which waits for all passes and closes all
//! connections. Parent and child open their own when they need one. A child's gate is a new one (`py/state.rs`).
//!
//! What is asked of a connection is not here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::connections::Connections;

/// Forks that wait for somebody to come out, in the whole process: whoever waits for another process' lock gives up.
static WAITED_FOR: AtomicUsize = AtomicUsize::new(0);

pub fn is_waited_for() -> bool {
    WAITED_FOR.load(Ordering::Relaxed) > 0
}

/// One for all files of a process.
#[derive(Default)]
pub struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Default)]
struct Inside {
    passes: usize,
    /// Forks under way.
    shut: usize,
    files: Vec<Weak<Connections>>,
    /// Files whose last writes are under way.
    closing: usize,
    /// A child whose parent had no time to shut its gate: what SQLite remembers of locks is not true here.
    barred: bool,
}

/// The right to use SQLite. Not to be held while Python's GIL is asked for: whoever forks holds that.
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// The gate of a forked child. `prepared`: the parent shut its own before the fork.
    pub fn of_child(prepared: bool) -> Self {
        WAITED_FOR.store(0, Ordering::Relaxed);
        let gate = Self::default();
        gate.lock().barred = !prepared;
        gate
    }

    /// Whether files may be opened at all.
    pub fn is_barred(&self) -> bool {
        self.lock().barred
    }

    /// Waits while the gate is shut.
    pub fn enter(&self) -> Pass<'_> {
        let mut inside = self.lock();
        while inside.shut > 0 {
            inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        inside.passes += 1;
        Pass(self)
    }

    /// Connections that are closed when the gate is shut.
    pub fn add(&self, file: &Arc<Connections>) {
        let mut inside = self.lock();
        inside.files.retain(|file| file.strong_count() > 0);
        inside.files.push(Arc::downgrade(file));
    }

    /// A file whose last writes begin.
    pub fn begin_closing(&self) {
        self.lock().closing += 1;
    }

    pub fn end_closing(&self) {
        self.lock().closing -= 1;
        self.changed.notify_all();
    }

    /// Waits for the last writes of files that are being closed.
    pub fn wait_for_closing(&self, patience: Duration) {
        let inside = self.lock();
        let _ = self.changed.wait_timeout_while(inside, patience, |inside| inside.closing > 0);
    }

    /// Lets nobody in any more, waits for those who are inside, closes their connections. False: somebody is still
    /// inside after `patience`. Each call is followed by one of [`Self::open`], in the parent.
    pub fn shut(&self, patience: Duration) -> bool {
        let ends = Instant::now() + patience;
        let _waiting = Waiting::new();
        let mut inside = self.lock();
        inside.shut += 1;
        while inside.passes > 0 {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for file in inside.files.iter().filter_map(Weak::upgrade) {
            file.close_for_fork();
        }
        true
    }

    pub fn open(&self) {
        let mut inside = self.lock();
        inside.shut = inside.shut.saturating_sub(1);
        drop(inside);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITED_FOR.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITED_FOR.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut inside = self.0.lock();
        inside.passes -= 1;
        let waited_for = inside.shut > 0;
        drop(inside);
        if waited_for {
            self.0.changed.notify_all();
        }
    }
}
