//! The door: Python's calls into the core, sync and async.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use pyo3_async_runtimes::TaskLocals;

use super::deliver::{Job, LoopQueue, Parcel};
use super::error::{CoreError, guarded, to_python};
use super::plain::{Rules, encode_call};
use super::receipt::ReceiptCell;
use super::sender::{PythonSender, RawHeaders, header_map};
use super::state::{next_id, state};
use super::stream::EventPipe;
use super::{clone, wait};
use crate::context::{Context, Mode};
use crate::engine;
use crate::error::{Error, Result};
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::key::encode::Encoder;
use crate::key::{self, Key};
use crate::patience::{Limits, Patience};
use crate::receipt::{Facts, Receipt};
use crate::stages::cache::CacheStage;
use crate::store::Entry;
use crate::stream::{Kind, replay_events};
use crate::upstream::Sender;

/// One policy's engine. Clients with the same policy hold the same one.
#[pyclass(frozen, weakref)]
pub struct Engine {
    id: u64,
    policy: String,
}

/// A client family's ledger.
#[pyclass(frozen, weakref)]
pub struct Ledger {
    id: u64,
}

/// The part of the key that stays the same for a client and an endpoint.
#[pyclass(frozen)]
pub struct Prefix(key::Prefix);

/// A stored answer, found by the arguments of a plain call.
#[pyclass(frozen)]
pub struct Hit {
    engine: Arc<engine::Engine>,
    key: Key,
    entry: Arc<Entry>,
    slot: u32,
    include_usage: bool,
    /// A fresh copy of the object that was left for this form of the answer; None when there is none yet.
    #[pyo3(get)]
    value: Option<Py<PyAny>>,
    #[pyo3(get)]
    stream: bool,
    #[pyo3(get)]
    receipt: ReceiptCell,
}

/// An answer as Python gets it.
#[pyclass(frozen)]
pub struct Answer {
    #[pyo3(get)]
    status: u16,
    headers: http::HeaderMap,
    body: ::bytes::Bytes,
    #[pyo3(get)]
    pipe: Option<Py<EventPipe>>,
    #[pyo3(get)]
    receipt: ReceiptCell,
}

/// The object that an entry keeps for a form of its answer.
struct Template(Py<PyAny>);

fn endpoint(name: &str) -> Endpoint {
    match name {
        "chat" => Endpoint::Chat,
        "responses" => Endpoint::Responses,
        "embeddings" => Endpoint::Embeddings,
        _ => Endpoint::Other,
    }
}

fn mode(name: Option<&str>, policy: Mode) -> PyResult<Mode> {
    match name {
        None => Ok(policy),
        Some(name) => Mode::from_name(name).ok_or_else(|| CoreError::new_err(format!("unknown cache mode: {name}"))),
    }
}

fn seconds(value: Option<f64>) -> Option<Duration> {
    value.and_then(|value| Duration::try_from_secs_f64(value).ok())
}

impl Engine {
    fn core(&self, py: Python<'_>) -> PyResult<Arc<engine::Engine>> {
        state().engine(self.id, &self.policy).map_err(|error| to_python(py, &error))
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, policy: String) -> PyResult<Self> {
        let engine = Self { id: next_id(), policy };
        engine.core(py)?;
        Ok(engine)
    }

    /// The real name of a model that the policy renames; None = no alias.
    fn alias(&self, py: Python<'_>, model: &str) -> PyResult<Option<String>> {
        Ok(self.core(py)?.alias(model).map(str::to_owned))
    }

    /// `owner` sets clients apart that no header tells apart; bytes, may be empty.
    fn prefix(&self, py: Python<'_>, owner: &[u8], url: &str, headers: RawHeaders) -> PyResult<Prefix> {
        let core = self.core(py)?;
        Ok(Prefix(prefix(&core, owner, url, &headers)))
    }

    /// Looks a plain call up. None: not plain, or not stored.
    ///
    /// `raw`: the caller wants a raw response; `needs_value`: only an object that was left here will do, the JSON will not.
    #[pyo3(signature = (prefix, kind, arguments, absent, default, slot, raw, needs_value, ledger, mode_name, ttl, sample, tag))]
    #[expect(
        clippy::too_many_arguments,
        reason = "one call across the FFI is cheaper than an object for its arguments"
    )]
    fn find(
        &self,
        py: Python<'_>,
        prefix: &Prefix,
        kind: &str,
        arguments: &Bound<'_, PyDict>,
        absent: &Bound<'_, PyTuple>,
        default: Option<(&str, &str)>,
        slot: u32,
        raw: bool,
        needs_value: bool,
        ledger: &Ledger,
        mode_name: Option<&str>,
        ttl: Option<f64>,
        sample: Option<&str>,
        tag: Option<&str>,
    ) -> PyResult<Option<Hit>> {
        guarded(|| {
            let core = self.core(py)?;
            let mode = mode(mode_name, core.mode())?;
            if !mode.reads() {
                return Ok(None);
            }
            let Some((key, delivery, model)) = plain_key(&core, prefix, arguments, absent, default, sample) else {
                return Ok(None);
            };
            // A raw stream is the transport's.
            if raw && delivery.stream {
                return Ok(None);
            }
            let slot = match (delivery.stream, delivery.include_usage) {
                (false, _) => slot,
                (true, false) => STREAM_SLOT,
                (true, true) => STREAM_USAGE_SLOT,
            };
            let has_value = |entry: &Entry| !needs_value || entry.slot(slot).is_some();
            let Some(entry) = core.cache().find_if(&key, mode, seconds(ttl), has_value) else { return Ok(None) };
            let value = match entry.slot(slot).as_deref().and_then(|object| object.downcast_ref::<Template>()) {
                Some(template) => Some(clone::deep(template.0.bind(py), &mut 0)?.unbind()),
                None => None,
            };
            let facts = CacheStage::hit_facts(&entry, model, tag);
            CacheStage::record_hit(&state().ledger(ledger.id), endpoint(kind), &facts);
            let receipt = ReceiptCell(Arc::new(Receipt::new(facts)));
            Ok(Some(Hit {
                engine: core,
                key,
                entry,
                slot,
                include_usage: delivery.include_usage,
                value,
                stream: delivery.stream,
                receipt,
            }))
        })
    }

    /// Sends a request through the stages and blocks for the answer. None: the body is not for us, send it yourself.
    #[pyo3(signature = (call, sender))]
    fn send(&self, py: Python<'_>, call: &Bound<'_, PyDict>, sender: Option<Py<PyAny>>) -> PyResult<Option<Answer>> {
        guarded(|| {
            let core = self.core(py)?;
            let Some(call) = Call::read(&core, call, sender, None)? else { return Ok(None) };
            let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
            // A task of its own: dropping the handle's guard at Ctrl-C cancels it.
            let mut task = AbortOnDrop(runtime.spawn(call.answer(core)));
            let joined = wait::block(py, runtime, async { (&mut task.0).await })?;
            let answer = joined.unwrap_or_else(|error| Err(Error::Internal(error.to_string())));
            answer.map(Some).map_err(|error| to_python(py, &error))
        })
    }

    /// The same for an event loop: `future` gets the answer. None: send it yourself.
    #[pyo3(signature = (call, sender, queue, future, event_loop, context))]
    #[expect(clippy::too_many_arguments, reason = "see find")]
    fn send_async(
        &self,
        py: Python<'_>,
        call: &Bound<'_, PyDict>,
        sender: Option<Py<PyAny>>,
        queue: LoopQueue,
        future: Py<PyAny>,
        event_loop: Bound<'_, PyAny>,
        context: Bound<'_, PyAny>,
    ) -> PyResult<Option<Job>> {
        guarded(|| {
            let core = self.core(py)?;
            let locals = TaskLocals::new(event_loop).with_context(context);
            let Some(call) = Call::read(&core, call, sender, Some(locals))? else { return Ok(None) };
            let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
            let task = runtime.spawn(async move {
                let mut task = AbortOnDrop(tokio::spawn(call.answer(core)));
                let joined = (&mut task.0).await;
                let answer = joined.unwrap_or_else(|error| Err(Error::Internal(error.to_string())));
                queue.push(future, Parcel::Answer(answer));
            });
            Ok(Some(Job(task.abort_handle())))
        })
    }

    /// Leaves a copy of a freshly made answer for the next equal call, if that answer was stored.
    #[pyo3(signature = (prefix, arguments, absent, default, slot, sample, value))]
    #[expect(clippy::too_many_arguments, reason = "see find")]
    fn keep(
        &self,
        py: Python<'_>,
        prefix: &Prefix,
        arguments: &Bound<'_, PyDict>,
        absent: &Bound<'_, PyTuple>,
        default: Option<(&str, &str)>,
        slot: u32,
        sample: Option<&str>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        guarded(|| {
            let core = self.core(py)?;
            let Some((key, ..)) = plain_key(&core, prefix, arguments, absent, default, sample) else { return Ok(()) };
            match core.cache().store().get(&key) {
                Some(entry) => keep(&core, &key, &entry, slot, value),
                None => Ok(()),
            }
        })
    }

    /// Forgets every stored answer.
    fn cache_clear(&self, py: Python<'_>) -> PyResult<()> {
        self.core(py)?.cache().store().clear();
        Ok(())
    }

    /// Forgets what was stored under a tag; returns how many answers that were.
    fn cache_invalidate(&self, py: Python<'_>, tag: &str) -> PyResult<usize> {
        Ok(self.core(py)?.cache().store().invalidate_tag(tag))
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
        state().ledger(self.id).reset();
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

/// Slots of an entry: the plain object is 0 or what the caller says, streams are these.
const STREAM_SLOT: u32 = 101;
const STREAM_USAGE_SLOT: u32 = 102;

#[pymethods]
impl Hit {
    /// The stored JSON.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.entry.body)
    }

    /// The stored headers, as pairs of text, with what marks them as a hit.
    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        let stored = self.entry.headers.iter();
        let mut headers: Vec<(String, String)> = stored
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        headers.push(("x-farthing-cache".to_owned(), "hit".to_owned()));
        headers
    }

    /// The events that a stream of this answer would bring: a JSON array.
    fn events(&self) -> PyResult<String> {
        let kind = Kind::of(self.entry.endpoint).ok_or_else(|| CoreError::new_err("no such stream"))?;
        let body = serde_json::from_slice(&self.entry.body).map_err(|error| CoreError::new_err(error.to_string()))?;
        serde_json::to_string(&replay_events(kind, &body, self.include_usage))
            .map_err(|error| CoreError::new_err(error.to_string()))
    }

    /// Leaves a copy of `value` for the next hit of this form.
    fn keep(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        guarded(|| keep(&self.engine, &self.key, &self.entry, self.slot, value))
    }
}

fn keep(core: &engine::Engine, key: &Key, entry: &Arc<Entry>, slot: u32, value: &Bound<'_, PyAny>) -> PyResult<()> {
    /// Beyond this, the object is built again for each hit: it would crowd out other answers.
    const MOST_BYTES: usize = 64 * 1024;
    if entry.body.len() > MOST_BYTES {
        return Ok(());
    }
    let mut bytes = 0;
    let copy = clone::deep(value, &mut bytes)?;
    entry.fill_slot(slot, Arc::new(Template(copy.unbind())), bytes);
    core.cache().store().put(*key, Arc::clone(entry));
    Ok(())
}

#[pymethods]
impl Answer {
    /// Pairs of bytes.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes()))
        };
        self.headers.iter().map(pair).collect()
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body)
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One call, read out of Python.
struct Call {
    cx: Context,
    request: Request,
}

impl Call {
    /// The keys of `call` are written in `transport.py`. None: the body has no canonical form.
    fn read(
        core: &engine::Engine,
        call: &Bound<'_, PyDict>,
        sender: Option<Py<PyAny>>,
        locals: Option<TaskLocals>,
    ) -> PyResult<Option<Self>> {
        let item = |name: &str| call.as_any().get_item(name);
        let text = |name: &str| item(name)?.extract::<Option<String>>();
        let time = |name: &str| PyResult::Ok(seconds(item(name)?.extract::<Option<f64>>()?));

        let url: String = item("url")?.extract()?;
        let headers: RawHeaders = item("headers")?.extract()?;
        let owner = item("owner")?.cast_into::<PyBytes>().map_err(PyErr::from)?;
        let body = item("body")?.cast_into::<PyBytes>().map_err(PyErr::from)?;
        let sample = text("sample")?;
        let kind = endpoint(&item("endpoint")?.extract::<String>()?);
        let prefix = prefix(core, owner.as_bytes(), &url, &headers);
        let body = ::bytes::Bytes::copy_from_slice(body.as_bytes());
        let Ok(request) = Request::new(kind, url.into(), header_map(&headers), body, &prefix, sample.as_deref()) else {
            return Ok(None);
        };
        let tag = text("tag")?;
        let model_asked = match text("model_asked")? {
            Some(asked) => asked,
            None => request.model().unwrap_or_default(),
        };
        let facts = Facts { model_asked, tag: tag.clone(), ..Facts::default() };
        let sender: Arc<dyn Sender> = match sender {
            Some(object) => Arc::new(PythonSender::new(object, locals)),
            None => Arc::clone(&state().http) as Arc<dyn Sender>,
        };
        let ledger = item("ledger")?.cast_into::<Ledger>().map_err(PyErr::from)?;
        let cx = Context {
            ledger: state().ledger(ledger.get().id),
            receipt: Arc::new(Receipt::new(facts)),
            sender,
            limits: Limits {
                connect: time("connect")?,
                read: time("read")?,
                write: time("write")?,
                max_retries: item("max_retries")?.extract()?,
            },
            patience: Arc::new(Patience::default()),
            mode: mode(text("mode")?.as_deref(), core.mode())?,
            ttl: seconds(item("ttl")?.extract::<Option<f64>>()?),
            tag: tag.map(Into::into),
        };
        Ok(Some(Self { cx, request }))
    }

    async fn answer(self, core: Arc<engine::Engine>) -> Result<Answer> {
        let Response { status, headers, body, .. } = core.call(&self.cx, self.request).await?;
        let receipt = ReceiptCell(self.cx.receipt);
        let (body, pipe) = match body {
            Body::Full(body) => (body, None),
            Body::Stream(events) => (::bytes::Bytes::new(), Some(EventPipe::open(events))),
        };
        let pipe = match pipe {
            None => None,
            Some(pipe) => Python::try_attach(|py| Py::new(py, pipe))
                .transpose()
                .map_err(|error| Error::Internal(error.to_string()))?,
        };
        Ok(Answer { status, headers, body, pipe, receipt })
    }
}

fn prefix(core: &engine::Engine, owner: &[u8], url: &str, headers: &RawHeaders) -> key::Prefix {
    let headers = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value.as_slice())));
    key::Prefix::new(core.scope(), owner, url, headers)
}

fn plain_key(
    core: &engine::Engine,
    prefix: &Prefix,
    arguments: &Bound<'_, PyDict>,
    absent: &Bound<'_, PyTuple>,
    default: Option<(&str, &str)>,
    sample: Option<&str>,
) -> Option<(Key, super::plain::Delivery, String)> {
    let alias = |model: &str| core.alias(model).map(str::to_owned);
    let mut encoder = Encoder::with_capacity(512);
    let rules = Rules { absent, default, alias: &alias };
    let (delivery, model) = encode_call(arguments, &rules, &mut encoder).ok()?;
    Some((prefix.0.key(sample, encoder.bytes()), delivery, model))
}
