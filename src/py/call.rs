//! One call on its way through the core: read out of an HTTP request that the SDK built, waited for, answered.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use pyo3_async_runtimes::TaskLocals;

use super::deliver::{Address, Job, LoopQueue, Parcel};
use super::engine::{Ledger, endpoint, mode, prefix, warn};
use super::error::{CoreError, panicked, to_python};
use super::hooks::equip;
use super::packing::Packing;
use super::plan::Plan;
use super::receipt::ReceiptCell;
use super::sender::{PythonSender, RawHeaders, header_map};
use super::state::state;
use super::stream::EventPipe;
use super::wait;
use crate::context::{Context, Wishes};
use crate::engine;
use crate::error::{Error, Result};
use crate::exchange::{Body, Request, Response};
use crate::ledger::{Money, Purpose};
use crate::patience::{Limits, Patience};
use crate::receipt::{Facts, Receipt};
use crate::stages::batch::window;
use crate::upstream::Sender;
use crate::upstream::http::can_send;

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

#[pymethods]
impl Answer {
    /// Pairs of bytes.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> RawPairs<'py> {
        raw_pairs(py, &self.headers)
    }

    #[getter]
    fn request_id(&self) -> Option<Cow<'_, str>> {
        self.headers.get("x-request-id").map(|value| header_text(value.as_bytes()))
    }

    /// Whether this is the kind of answer that was hoped for: a success, and JSON by its own word.
    #[getter]
    fn is_json(&self) -> bool {
        // As the SDK tells it.
        let kind = self.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next());
        (200..300).contains(&self.status) && self.pipe.is_none() && kind.is_some_and(|kind| kind.ends_with("json"))
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.body)
    }
}

/// One call, read out of Python.
pub struct Call {
    pub cx: Context,
    pub request: Request,
    /// Rust sends it.
    pub by_rust: bool,
}

impl Call {
    /// The keys of `call` are written in `transport.py`. None: the body has no canonical form.
    pub fn read(
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
        let map = header_map(&headers).filter(|_| sender.is_some() || can_send(&url));
        let Some(mut map) = map else { return Ok(None) };
        // A key that is new for each request says nothing of whose answers these are; the owner does.
        if let Some(authorization) = text("authorization")? {
            let Ok(value) = http::HeaderValue::from_str(&authorization) else {
                return Err(CoreError::new_err("an API key that HTTP does not allow"));
            };
            map.insert(http::header::AUTHORIZATION, value);
        }
        let Ok(request) = Request::new(kind, url.into(), map, body, &prefix, sample.as_deref()) else {
            return Ok(None);
        };
        let tag = text("tag")?;
        let model_asked = match text("model_asked")? {
            Some(asked) => asked,
            None => request.model().unwrap_or_default(),
        };
        let tag: Option<Arc<str>> = tag.map(Into::into);
        let notes = item("notes")?.extract::<Vec<String>>()?.into_iter().map(Into::into).collect();
        let facts = Facts { model_asked: model_asked.into(), tag: tag.clone(), notes, ..Facts::default() };
        let plan = match item("plan")? {
            plan if plan.is_none() => None,
            plan => Some(Arc::clone(&plan.cast_into::<Plan>().map_err(PyErr::from)?.get().0)),
        };
        let by_rust = sender.is_none();
        let sender: Arc<dyn Sender> = match sender {
            Some(object) => Arc::new(PythonSender::new(object.into_bound(call.py()), locals)?),
            None => Arc::clone(&state().http) as Arc<dyn Sender>,
        };
        let ledger = item("ledger")?.cast_into::<Ledger>().map_err(PyErr::from)?;
        let cx = Context {
            began: Instant::now(),
            books: core.books(state().ledger(ledger.get().id)),
            receipt: Arc::new(Receipt::new(facts)),
            sender,
            plan,
            tier: None,
            max_cost: None,
            packing: packing(&item("packing")?),
            purpose: Purpose::default(),
            limits: Limits {
                connect: time("connect")?,
                read: time("read")?,
                write: time("write")?,
                max_retries: item("max_retries")?.extract()?,
            },
            patience: Arc::new(Patience::default()),
            mode: mode(text("mode")?.as_deref(), core.mode())?,
            ttl: seconds(item("ttl")?.extract::<Option<f64>>()?),
            tag,
            wishes: wishes(&item("wishes")?)?,
            looked_on_disk: false,
            event_loop: None,
            hooks: None,
            inside: false,
            tasks: None,
            fault: None,
            left: None,
        };
        Ok(Some(Self { cx, request, by_rust }))
    }

    /// Waits for the answer without the GIL; Ctrl-C drops the call.
    pub fn block(mut self, py: Python<'_>, core: Arc<engine::Engine>) -> PyResult<Answer> {
        equip(py, &core, &mut self.cx, None)?;
        let is_local = self.by_rust && !self.request.is_stream() && !self.is_long(&core);
        let local = if is_local { state().locals.take() } else { Ok(None) };
        let landed = match local.map_err(|error| to_python(py, &error))? {
            Some(local) => {
                self.cx.sender = Arc::clone(&local.http) as Arc<dyn Sender>;
                self.cx.tasks = Some(Arc::clone(&local.tasks));
                local.block(py, self.run(core))?
            }
            None => {
                let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
                wait::block(py, runtime, self.run(core))?
            }
        };
        into_answer(py, landed)
    }

    /// Runs the call as a task; `future` gets the answer on its own loop.
    pub fn start(
        mut self,
        py: Python<'_>,
        core: Arc<engine::Engine>,
        queue: &LoopQueue,
        future: Py<PyAny>,
    ) -> PyResult<Job> {
        let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
        equip(py, &core, &mut self.cx, Some(future.bind(py)))?;
        self.cx.event_loop = Some(queue.number());
        let left = Arc::new(AtomicBool::new(false));
        self.cx.left = Some(Arc::clone(&left));
        let receipt = Arc::clone(&self.cx.receipt);
        let work = |address: Address| async move {
            let landed = AssertUnwindSafe(self.run(core)).catch_unwind().await;
            let landed =
                landed.unwrap_or_else(|panic| Err(Failed { error: Error::Internal(panicked(&*panic)), receipt }));
            address.deliver(Parcel::Answer(landed));
        };
        Ok(queue.expect(future, Some(left), |address| runtime.spawn(work(address)).abort_handle()))
    }

    /// Whether it may ask several models, or functions, or for others too: more than a runtime is for that ends with the
    /// call.
    fn is_long(&self, core: &engine::Engine) -> bool {
        let asked = || self.cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
        core.has_hooks() || self.cx.plan.as_ref().is_some_and(|plan| plan.choices.is_some()) || core.packs(&asked())
    }

    async fn run(self, core: Arc<engine::Engine>) -> Result<Landed, Failed> {
        let Response { status, headers, body, .. } = match core.call(&self.cx, self.request).await {
            Ok(response) => response,
            Err(error) => return Err(Failed { error, receipt: self.cx.receipt }),
        };
        let (body, pipe) = match body {
            Body::Full(body) => (body, None),
            Body::Stream(events) => (::bytes::Bytes::new(), Some(EventPipe::open(events))),
        };
        Ok(Landed { status, headers, body, pipe, receipt: self.cx.receipt })
    }
}

/// The session of a call of one `map`.
pub fn packing(value: &Bound<'_, PyAny>) -> Option<Arc<window::Packing>> {
    value.cast::<Packing>().ok().map(|packing| Arc::clone(&packing.get().0))
}

/// (reference, seconds, USD)
fn wishes(value: &Bound<'_, PyAny>) -> PyResult<Option<Arc<Wishes>>> {
    let Some((reference, deadline, max_cost)) =
        value.extract::<Option<(Option<String>, Option<f64>, Option<String>)>>()?
    else {
        return Ok(None);
    };
    let max_cost = max_cost.map(|text| Money::parse(&text).ok_or_else(|| CoreError::new_err("max_cost is no amount")));
    Ok(Some(Arc::new(Wishes { reference, deadline: seconds(deadline), max_cost: max_cost.transpose()? })))
}

/// A header's value as httpx reads it: UTF-8 where it is that, else Latin-1.
pub fn header_text(value: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(value).map_or_else(|_| value.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

/// Headers as httpx takes them.
pub type RawPairs<'py> = Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>;

pub fn raw_pairs<'py>(py: Python<'py>, headers: &http::HeaderMap) -> RawPairs<'py> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes()))
    };
    headers.iter().map(pair).collect()
}

/// An answer before it is an object of Python's, made where the GIL is not held.
pub struct Landed {
    status: u16,
    headers: http::HeaderMap,
    body: ::bytes::Bytes,
    pipe: Option<EventPipe>,
    receipt: Arc<Receipt>,
}

/// A call that brought no answer.
pub struct Failed {
    pub error: Error,
    pub receipt: Arc<Receipt>,
}

/// The answer, or an exception that carries the call's receipt.
pub fn into_answer(py: Python<'_>, landed: Result<Landed, Failed>) -> PyResult<Answer> {
    warn(py);
    match landed {
        Ok(Landed { status, headers, body, pipe, receipt }) => {
            let pipe = pipe.map(|pipe| Py::new(py, pipe)).transpose()?;
            Ok(Answer { status, headers, body, pipe, receipt: ReceiptCell(receipt) })
        }
        Err(Failed { error, receipt }) => {
            let error = to_python(py, &error);
            error.value(py).setattr("receipt", ReceiptCell(receipt))?;
            Err(error)
        }
    }
}

/// A time as Python gives it; None = none.
pub fn seconds(value: Option<f64>) -> Option<Duration> {
    value.and_then(|value| Duration::try_from_secs_f64(value).ok())
}
