//! What the process owns: the runtime, the connection pool, the engines and ledgers. A forked child gets all of it anew.
//!
//! Threads do not survive a fork and locks may be held at it, so the child forgets what was there (dropping a runtime
//! whose threads are gone hangs) and Python objects hold numbers, not the things themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, Report};
use crate::upstream::http::HttpSender;

use super::local::Locals;

/// See the module.
pub struct State {
    /// Rises with every fork: objects of the parent are told by it.
    pub generation: u64,
    runtime: OnceLock<Result<Runtime>>,
    pub http: Arc<HttpSender>,
    pub locals: Locals,
    engines: RwLock<HashMap<u64, Arc<Engine>>>,
    ledgers: RwLock<HashMap<u64, Arc<Ledger>>>,
    /// The sums of ledgers whose clients are gone.
    retired: Mutex<Report>,
    salt: [u8; 32],
}

static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static EXITING: AtomicBool = AtomicBool::new(false);
static EXIT_THREAD: OnceLock<ThreadId> = OnceLock::new();
/// Python threads that wait in the core without the GIL.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl State {
    /// A child keeps its parent's salt: parts of keys that it computed before the fork stay right.
    fn new(generation: u64, salt: [u8; 32]) -> Self {
        Self {
            generation,
            runtime: OnceLock::new(),
            http: Arc::default(),
            locals: Locals::default(),
            engines: RwLock::default(),
            ledgers: RwLock::default(),
            retired: Mutex::default(),
            salt,
        }
    }

    /// # Errors
    /// [`Error::Internal`] when the process cannot have more threads.
    pub fn runtime(&self) -> Result<&Handle> {
        let runtime = self.runtime.get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("farthing")
                .enable_all()
                .build()
                .map_err(|error| Error::Internal(format!("runtime: {error}")))
        });
        runtime.as_ref().map(Runtime::handle).map_err(Clone::clone)
    }

    /// The engine `id`, made from its policy when this process has not got it yet.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn engine(&self, id: u64, policy: &str) -> Result<Arc<Engine>> {
        if let Some(engine) = self.engines.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(Engine::new(Config::from_json(policy)?, self.salt)?);
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(engines.entry(id).or_insert(engine)))
    }

    pub fn forget_engine(&self, id: u64) {
        self.engines.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub fn ledger(&self, id: u64) -> Arc<Ledger> {
        if let Some(ledger) = self.ledgers.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Arc::clone(ledger);
        }
        let mut ledgers = self.ledgers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(ledgers.entry(id).or_default())
    }

    /// A ledger that nobody holds any more; what it says stays in the process's report.
    pub fn retire_ledger(&self, id: u64) {
        if let Some(ledger) = self.ledgers.write().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).add(&ledger.report());
        }
    }

    /// The sum of all ledgers of the process.
    pub fn report(&self) -> Report {
        let mut sum = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ledger in self.ledgers.read().unwrap_or_else(PoisonError::into_inner).values() {
            sum.add(&ledger.report());
        }
        sum
    }
}

/// This process' state.
pub fn state() -> &'static State {
    let existing = STATE.load(Ordering::Acquire);
    if !existing.is_null() {
        // SAFETY: the pointer was leaked from a Box below and is never freed.
        return unsafe { &*existing };
    }
    let fresh = Box::into_raw(Box::new(State::new(0, random_bytes())));
    match STATE.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: leaked, see above.
        Ok(_) => unsafe { &*fresh },
        Err(first) => {
            // SAFETY: `fresh` was not published, so this is its only owner; `first` is leaked.
            unsafe {
                drop(Box::from_raw(fresh));
                &*first
            }
        }
    }
}

pub fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// For `os.register_at_fork(after_in_child=...)`.
#[pyfunction]
pub fn after_fork_in_child() {
    let parent = state();
    WAITING.store(0, Ordering::Relaxed);
    STATE.store(Box::into_raw(Box::new(State::new(parent.generation + 1, parent.salt))), Ordering::Release);
}

/// For `atexit`: from here on no thread of ours enters the interpreter any more.
#[pyfunction]
pub fn at_exit(py: Python<'_>) {
    let _ = EXIT_THREAD.set(std::thread::current().id());
    EXITING.store(true, Ordering::SeqCst);
    // Threads that wait without the GIL see the flag within one turn of their loop, and stay outside.
    if WAITING.load(Ordering::SeqCst) > 0 {
        py.detach(|| std::thread::sleep(super::wait::TURN + Duration::from_millis(10)));
    }
}

pub fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// Runs `work` without the GIL. A thread that finds the interpreter gone afterwards stays outside for good: entering it
/// would end the thread by an unwind that Rust cannot pass.
pub fn without_gil<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let result = work();
        if is_exiting() && EXIT_THREAD.get() != Some(&std::thread::current().id()) {
            loop {
                std::thread::park();
            }
        }
        WAITING.fetch_sub(1, Ordering::SeqCst);
        result
    })
}

/// From the operating system, through the keys of std's hasher.
fn random_bytes() -> [u8; 32] {
    use sha2::{Digest, Sha256};
    use std::hash::{BuildHasher, RandomState};
    let mut hasher = Sha256::new();
    for round in 0..4_u64 {
        // Two hashes of one RandomState, whose keys std takes from the system's random source.
        let keys = RandomState::new();
        hasher.update(keys.hash_one(round).to_le_bytes());
        hasher.update(keys.hash_one(round + 4).to_le_bytes());
    }
    hasher.update(std::process::id().to_le_bytes());
    hasher.update(std::time::SystemTime::now().elapsed().unwrap_or_default().as_nanos().to_le_bytes());
    hasher.finalize().into()
}
