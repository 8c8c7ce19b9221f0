//! What the process owns: the runtime, the connection pool, the engines and ledgers. A forked child gets all of it anew.
//!
//! Threads do not survive a fork and locks may be held at it, so the child forgets what was there (dropping a runtime
//! whose threads are gone hangs) and Python objects hold numbers, not the things themselves.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, Report};
use crate::store::disk::gate::Gate;
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
    /// Who may be inside SQLite.
    pub gate: Arc<Gate>,
    /// Objects that are to be let go by a thread that has the GIL.
    left: Mutex<Vec<Py<PyAny>>>,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static EXITING: AtomicBool = AtomicBool::new(false);
static EXIT_THREAD: OnceLock<ThreadId> = OnceLock::new();
/// Longer than a write takes, and than it waits for a lock.
const LONGEST_SHUT: Duration = Duration::from_secs(3);
/// How long an exit waits for a cache file.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);

/// The fork that is under way.
#[derive(Clone, Copy)]
enum Fork {
    None,
    Prepared,
    Unprepared,
}

static FORKS: AtomicU8 = AtomicU8::new(Fork::None as u8);
/// Python threads that wait in the core without the GIL.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl State {
    /// A child keeps its parent's salt: parts of keys that it computed before the fork stay right.
    fn new(generation: u64, salt: [u8; 32], gate: Gate) -> Self {
        Self {
            generation,
            runtime: OnceLock::new(),
            http: Arc::default(),
            locals: Locals::default(),
            engines: RwLock::default(),
            ledgers: RwLock::default(),
            retired: Mutex::default(),
            salt,
            gate: Arc::new(gate),
            left: Mutex::default(),
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

    /// The engine `id`, if this process has got it yet.
    pub fn engine(&self, id: u64) -> Option<Arc<Engine>> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    /// Makes the engine `id` from its policy, in place of the engine `before`.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn make_engine(&self, id: u64, policy: &str, before: Option<u64>) -> Result<Arc<Engine>> {
        let before = before.and_then(|before| self.engine(before));
        let engine = Engine::new(Config::from_json(policy)?, self.salt, &self.gate, before.as_deref())?;
        let engine = Arc::new(engine);
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(engines.entry(id).or_insert(engine)))
    }

    pub fn forget_engine(&self, id: u64) {
        let forgotten = self.engines.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        drop(forgotten);
    }

    /// Writes what waits for a cache file.
    fn flush(&self, patience: Duration) {
        let engines: Vec<_> =
            self.engines.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        let ends = Instant::now() + patience;
        let disks = engines.iter().filter_map(|engine| engine.cache().disk());
        // All of them write at the same time.
        let ordered: Vec<_> = disks.map(|disk| disk.flush(patience)).collect();
        for written in ordered {
            let _ = written.wait();
        }
        self.gate.wait_for_closing(ends.saturating_duration_since(Instant::now()));
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

/// An object that may be let go on any thread. pyo3 keeps what is let go without the GIL in a list of its own, whose lock a
/// forked child inherits: held by another thread at that moment, it is held for ever, and the child waits for it before any
/// hook of ours runs. This list is the process' own, as all of [`State`].
pub struct Kept(ManuallyDrop<Py<PyAny>>);

impl Kept {
    pub fn new(object: Py<PyAny>) -> Self {
        Self(ManuallyDrop::new(object))
    }

    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: this is the only place that takes it out, and it runs once.
        let object = unsafe { ManuallyDrop::take(&mut self.0) };
        if is_exiting() {
            // There may be no interpreter any more to take it back.
            std::mem::forget(object);
            return;
        }
        state().left.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }
}

/// Lets go of what was left. Called where objects are made, so that there are never many.
pub fn release_left(_py: Python<'_>) {
    let left = std::mem::take(&mut *state().left.lock().unwrap_or_else(PoisonError::into_inner));
    // Beyond the lock: an object's end may be anything.
    drop(left);
}

/// This process' state.
pub fn state() -> &'static State {
    let existing = STATE.load(Ordering::Acquire);
    if !existing.is_null() {
        // SAFETY: the pointer was leaked from a Box below and is never freed.
        return unsafe { &*existing };
    }
    let fresh = Box::into_raw(Box::new(State::new(0, random_bytes(), Gate::default())));
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

/// For `os.register_at_fork(before=...)`: nobody is inside SQLite then, and its files are closed.
#[pyfunction]
pub fn before_fork() {
    let prepared = state().gate.shut(LONGEST_SHUT);
    FORKS.store(if prepared { Fork::Prepared } else { Fork::Unprepared } as u8, Ordering::SeqCst);
}

/// For `os.register_at_fork(after_in_parent=...)`.
#[pyfunction]
pub fn after_fork_in_parent() {
    FORKS.store(Fork::None as u8, Ordering::SeqCst);
    state().gate.open();
}

/// For `os.register_at_fork(after_in_child=...)`.
#[pyfunction]
pub fn after_fork_in_child() {
    let parent = state();
    WAITING.store(0, Ordering::Relaxed);
    // Whoever forks in C calls this and not the other: SQLite may have been in the middle of something then.
    let prepared = FORKS.swap(Fork::None as u8, Ordering::SeqCst) == Fork::Prepared as u8;
    let gate = Gate::of_child(prepared);
    STATE.store(Box::into_raw(Box::new(State::new(parent.generation + 1, parent.salt, gate))), Ordering::Release);
}

/// For `atexit`: from here on no thread of ours enters the interpreter any more.
#[pyfunction]
pub fn at_exit(py: Python<'_>) {
    flush_files(py);
    let _ = EXIT_THREAD.set(std::thread::current().id());
    EXITING.store(true, Ordering::SeqCst);
    // Threads that wait without the GIL see the flag within one turn of their loop, and stay outside.
    if WAITING.load(Ordering::SeqCst) > 0 {
        py.detach(|| std::thread::sleep(super::wait::TURN + Duration::from_millis(10)));
    }
}

/// Writes what waits for cache files, and waits for that.
#[pyfunction]
pub fn flush_files(py: Python<'_>) {
    without_gil(py, || state().flush(LONGEST_FLUSH));
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
