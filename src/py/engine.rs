//! The door: engines and ledgers as Python sees them. Plain calls are `place.rs`, requests that the SDK built `call.rs`.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_async_runtimes::TaskLocals;

use super::call::{Answer, Call};
use super::deliver::{Job, LoopQueue};
use super::error::{CoreError, guarded, to_python};
use super::sender::RawHeaders;
use super::state::{next_id, state, without_gil};
use super::wait::TURN;
use crate::budget::take_warnings;
use crate::context::Mode;
use crate::engine;
use crate::exchange::Endpoint;
use crate::key;
use crate::store::disk::Ordered;

/// One policy's engine. Clients with the same policy hold the same one.
#[pyclass(frozen, weakref)]
pub struct Engine {
    id: u64,
    policy: String,
    /// The engine that this one took the place of.
    before: Option<u64>,
}

/// A client family's ledger.
#[pyclass(frozen, weakref)]
pub struct Ledger {
    pub id: u64,
}

pub fn endpoint(name: &str) -> Endpoint {
    match name {
        "chat" => Endpoint::Chat,
        "responses" => Endpoint::Responses,
        "embeddings" => Endpoint::Embeddings,
        _ => Endpoint::Other,
    }
}

pub fn mode(name: Option<&str>, policy: Mode) -> PyResult<Mode> {
    match name {
        None => Ok(policy),
        Some(name) => Mode::from_name(name).ok_or_else(|| CoreError::new_err(format!("unknown cache mode: {name}"))),
    }
}

impl Engine {
    pub fn core(&self, py: Python<'_>) -> PyResult<Arc<engine::Engine>> {
        let made = match state().engine(self.id) {
            Some(engine) => return Ok(engine),
            // That opens a file, maybe.
            None => without_gil(py, || state().make_engine(self.id, &self.policy, self.before)),
        };
        made.map_err(|error| to_python(py, &error))
    }
}

#[pymethods]
impl Engine {
    /// `before`: the engine that this one takes the place of; it may go on answering from the same memory.
    #[new]
    #[pyo3(signature = (policy, before=None))]
    fn new(py: Python<'_>, policy: String, before: Option<&Self>) -> PyResult<Self> {
        let engine = Self { id: next_id(), policy, before: before.map(|before| before.id) };
        engine.core(py)?;
        Ok(engine)
    }

    /// The real name of a model that the policy renames; None = no alias.
    fn alias(&self, py: Python<'_>, model: &str) -> PyResult<Option<String>> {
        Ok(self.core(py)?.aliases().get(model).cloned())
    }

    /// Sends a request through the stages and blocks for the answer. None: the body is not for us, send it yourself.
    #[pyo3(signature = (call, sender))]
    fn send(&self, py: Python<'_>, call: &Bound<'_, PyDict>, sender: Option<Py<PyAny>>) -> PyResult<Option<Answer>> {
        guarded(|| {
            let core = self.core(py)?;
            let Some(call) = Call::read(&core, call, sender, None)? else { return Ok(None) };
            tell(py, &core, call.cx.books.client())?;
            call.block(py, core).map(Some)
        })
    }

    /// The same for an event loop: `future` gets the answer. None: send it yourself.
    #[pyo3(signature = (call, sender, queue, future, event_loop, context))]
    #[expect(
        clippy::too_many_arguments,
        reason = "one call across the FFI is cheaper than an object for its arguments"
    )]
    fn send_async(
        &self,
        py: Python<'_>,
        call: &Bound<'_, PyDict>,
        sender: Option<Py<PyAny>>,
        queue: &LoopQueue,
        future: Py<PyAny>,
        event_loop: Bound<'_, PyAny>,
        context: Bound<'_, PyAny>,
    ) -> PyResult<Option<Job>> {
        guarded(|| {
            let core = self.core(py)?;
            let locals = TaskLocals::new(event_loop).with_context(context);
            let Some(call) = Call::read(&core, call, sender, Some(locals))? else { return Ok(None) };
            tell(py, &core, call.cx.books.client())?;
            call.start(py, core, queue, future).map(Some)
        })
    }

    /// Forgets every stored answer.
    fn cache_clear(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.core(py)?;
        core.cache().invalidate(None, |ordered| done(py, &core, ordered)).map(drop)
    }

    /// Forgets what was stored under a tag; returns how many answers that were.
    fn cache_invalidate(&self, py: Python<'_>, tag: &str) -> PyResult<u64> {
        let core = self.core(py)?;
        core.cache().invalidate(Some(tag), |ordered| done(py, &core, ordered))
    }

    /// Waits until the file has what was stored, `seconds` at most; 0: only asks for it. Without a file nothing happens.
    fn cache_flush(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let core = self.core(py)?;
        let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        match core.cache().disk() {
            None => Ok(()),
            Some(disk) if patience.is_zero() => {
                disk.hurry();
                Ok(())
            }
            Some(disk) => done(py, &core, disk.flush(patience)).map(drop),
        }
    }

    /// What went wrong with the cache file, when somebody is to be told; noted in the ledger.
    fn take_news(&self, py: Python<'_>, ledger: &Ledger) -> PyResult<Option<String>> {
        let Some((kind, text)) = self.core(py)?.take_news() else { return Ok(None) };
        state().ledger(ledger.id).record_fault(kind);
        Ok(Some(text))
    }

    /// The labels of this policy's traffic, the oldest first, as JSON.
    fn labels(&self, py: Python<'_>) -> PyResult<String> {
        let core = self.core(py)?;
        if let Some(disk) = core.cache().disk() {
            let mut written = disk.flush(Duration::from_secs(5));
            // What cannot be written is no reason not to read.
            while without_gil(py, || written.wait_for(TURN)).is_none() {
                py.check_signals()?;
            }
        }
        without_gil(py, || {
            let labels = core.labels().all().map_err(|fault| {
                let path = core.cache().disk().map(|disk| disk.settings().path.clone()).unwrap_or_default();
                fault.explain(&path)
            })?;
            serde_json::to_string(&labels).map_err(|error| error.to_string())
        })
        .map_err(CoreError::new_err)
    }

    /// How the budgets stand for the client of this ledger, as JSON.
    fn budget(&self, py: Python<'_>, ledger: &Ledger) -> PyResult<String> {
        let core = self.core(py)?;
        let Some(budgets) = core.budgets() else { return Ok("[]".to_owned()) };
        let client = state().ledger(ledger.id).number();
        let rows = without_gil(py, || budgets.rows(client));
        serde_json::to_string(&rows).map_err(|error| CoreError::new_err(error.to_string()))
    }

    /// Counts of the cache: entries, bytes, max_bytes, hits, misses, stored, in_flight.
    fn cache_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        use std::sync::atomic::Ordering::Relaxed;
        let core = self.core(py)?;
        let cache = core.cache();
        let (entries, bytes) = cache.store().size();
        let counters = cache.counters();
        let stats = PyDict::new(py);
        stats.set_item("entries", entries)?;
        stats.set_item("bytes", bytes)?;
        stats.set_item("max_bytes", cache.max_bytes())?;
        stats.set_item("hits", counters.hits.load(Relaxed))?;
        stats.set_item("misses", counters.misses.load(Relaxed))?;
        stats.set_item("stored", counters.stored.load(Relaxed))?;
        stats.set_item("in_flight", cache.in_flight())?;
        if let Some(disk) = cache.disk() {
            let size = without_gil(py, || disk.size()).unwrap_or_default();
            stats.set_item("disk_entries", size.entries)?;
            stats.set_item("disk_bytes", size.bytes)?;
            stats.set_item("max_disk_bytes", disk.settings().max_bytes)?;
            stats.set_item("disk_hits", disk.hits())?;
        }
        Ok(stats)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        state().forget_engine(self.id);
    }
}

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self { id: next_id() }
    }

    /// The report as JSON.
    fn report(&self) -> PyResult<String> {
        serde_json::to_string(&state().ledger(self.id).report()).map_err(|error| CoreError::new_err(error.to_string()))
    }

    fn reset(&self) {
        state().ledger(self.id).take();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        state().retire_ledger(self.id);
    }
}

/// The report of all ledgers of this process, as JSON.
#[pyfunction]
pub fn process_report() -> PyResult<String> {
    serde_json::to_string(&state().report()).map_err(|error| CoreError::new_err(error.to_string()))
}

/// Says what went wrong with the cache file, and notes it in the ledger of whoever is told: by a warning, or by an error
/// where the policy is strict.
pub fn tell(py: Python<'_>, core: &engine::Engine, ledger: &crate::ledger::Ledger) -> PyResult<()> {
    let Some((kind, text)) = core.take_news() else { return Ok(()) };
    ledger.record_fault(kind);
    let exceptions = py.import("farthing.exceptions")?;
    if core.is_strict() {
        return Err(PyErr::from_value(exceptions.getattr("CacheError")?.call1((text,))?));
    }
    let text = std::ffi::CString::new(text.replace('\0', "?")).unwrap_or_default();
    PyErr::warn(py, &exceptions.getattr("FarthingWarning")?, &text, 4)
}

/// Logs what budgets have to say.
pub fn warn(py: Python<'_>) {
    let warnings = take_warnings();
    if warnings.is_empty() {
        return;
    }
    let log = || {
        let logger = py.import("logging")?.call_method1("getLogger", ("farthing",))?;
        warnings.iter().try_for_each(|text| logger.call_method1("warning", ("%s", text)).map(drop))
    };
    if let Err(error) = log() {
        // A log that fails is not to cost anybody an answer.
        error.write_unraisable(py, None);
    }
}

/// Waits for the file, with an ear for Ctrl-C.
fn done(py: Python<'_>, core: &engine::Engine, mut ordered: Ordered) -> PyResult<u64> {
    loop {
        match without_gil(py, || ordered.wait_for(TURN)) {
            None => py.check_signals()?,
            Some(Ok(count)) => return Ok(count),
            Some(Err(fault)) => {
                let path = core.cache().disk().map(|disk| disk.settings().path.clone()).unwrap_or_default();
                return Err(CoreError::new_err(fault.explain(&path)));
            }
        }
    }
}

/// The unchanging part of the keys of calls to `url`.
pub fn prefix(core: &engine::Engine, owner: &[u8], url: &str, headers: &RawHeaders) -> key::Prefix {
    let headers = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value.as_slice())));
    key::Prefix::new(core.scope(), owner, url, headers)
}
