//! The user's own http client as a sender: Python sends, we only carry the request there and the answer back.
//!
//! A sync client sends on a thread that Python owns (see `transport.py`): a thread of ours that is inside the
//! interpreter when it ends would take the process down. An async client sends on its own event loop, awaited through
//! pyo3-async-runtimes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::mpsc;

use super::error::foreign;
use super::state::next_id;
use crate::error::{Broken, Error, Phase, Result};
use crate::exchange::{Body, Response};
use crate::patience::Patience;
use crate::upstream::http::{events, is_event_stream};
use crate::upstream::{Outgoing, Sender};

/// Headers in the form that httpx gives and takes: pairs of bytes.
pub type RawHeaders = Vec<(Vec<u8>, Vec<u8>)>;

enum Message {
    Head(u16, HeaderMap),
    Chunk(Bytes),
    End,
    Failed(Error),
}

/// Where Python reports what its client received.
#[pyclass(frozen)]
pub struct Completion {
    messages: mpsc::UnboundedSender<Message>,
    cancelled: Arc<AtomicBool>,
    /// Names it, also for who must not hold it: when Python has dropped it, nothing will come any more.
    #[pyo3(get)]
    number: u64,
}

#[pymethods]
impl Completion {
    fn head(&self, status: u16, headers: RawHeaders) {
        let _ = self.messages.send(Message::Head(status, header_map(&headers).unwrap_or_default()));
    }

    fn chunk(&self, chunk: &[u8]) {
        let _ = self.messages.send(Message::Chunk(Bytes::copy_from_slice(chunk)));
    }

    fn end(&self) {
        let _ = self.messages.send(Message::End);
    }

    /// `kind`: "connect_timeout", "read_timeout", "write_timeout", "pool_timeout", "connection" or "raised".
    fn fail(&self, py: Python<'_>, kind: &str, message: &str, exception: &Bound<'_, PyAny>) {
        let cause = foreign(py, exception);
        let timeout = |phase| Error::Timeout { phase, cause: Some(cause.clone()) };
        let error = match kind {
            "connect_timeout" => timeout(Phase::Connect),
            "read_timeout" => timeout(Phase::Read),
            "write_timeout" => timeout(Phase::Write),
            "pool_timeout" => timeout(Phase::Pool),
            "connection" => Error::Connection { broken: Broken::Read, message: message.into(), cause: Some(cause) },
            _ => Error::Raised(cause),
        };
        let _ = self.messages.send(Message::Failed(error));
    }

    /// Nobody waits for the answer any more.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.messages.is_closed()
    }
}

/// Adapter to an object with `start(url, headers, body, stream, completion, is_named, times)`: it returns None when a thread of its own
/// does the work, or a coroutine for the client's event loop; and `cancel(number of the completion)`.
pub struct PythonSender {
    object: Py<PyAny>,
    /// Of the http client behind it.
    identity: usize,
    locals: Option<TaskLocals>,
}

impl PythonSender {
    /// `event_loop` and `context` of the caller, for an async client.
    ///
    /// # Errors
    /// It has no `identity`.
    pub fn new(object: Bound<'_, PyAny>, locals: Option<TaskLocals>) -> PyResult<Self> {
        let identity = object.getattr("identity")?.extract()?;
        Ok(Self { object: object.unbind(), identity, locals })
    }

    fn start(&self, py: Python<'_>, outgoing: &Parts, completion: Completion) -> PyResult<()> {
        let completion = Py::new(py, completion)?;
        let headers = PyList::empty(py);
        for (name, value) in &outgoing.headers {
            let pair = (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes()));
            headers.append(PyTuple::new(py, [pair.0, pair.1])?)?;
        }
        let body = PyBytes::new(py, &outgoing.body);
        let arguments = (&outgoing.url, headers, body, outgoing.stream, completion, outgoing.is_named, outgoing.times);
        let started = self.object.bind(py).call_method1("start", arguments)?;
        if let (Some(locals), false) = (&self.locals, started.is_none()) {
            // The coroutine reports through the completion; the future is only its way onto the loop.
            drop(pyo3_async_runtimes::into_future_with_locals(locals, started)?);
        }
        Ok(())
    }
}

struct Parts {
    url: String,
    headers: HeaderMap,
    body: Bytes,
    stream: bool,
    is_named: bool,
    /// Seconds to connect, to read, to write.
    times: (Option<f64>, Option<f64>, Option<f64>),
}

/// Tells Python when nobody waits any more.
struct Cancel {
    object: Py<PyAny>,
    number: u64,
    cancelled: Arc<AtomicBool>,
    finished: bool,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if self.finished || super::state::is_exiting() {
            return;
        }
        let _ = Python::try_attach(|py| {
            let _ = self.object.bind(py).call_method1("cancel", (self.number,));
        });
    }
}

#[async_trait]
impl Sender for PythonSender {
    fn identity(&self) -> usize {
        self.identity
    }

    fn needs_event_loop(&self) -> bool {
        self.locals.is_some()
    }

    async fn send(&self, outgoing: Outgoing<'_>, patience: Arc<Patience>) -> Result<Response> {
        let parts = Parts {
            url: outgoing.url.to_owned(),
            headers: outgoing.headers,
            body: outgoing.body,
            stream: outgoing.stream,
            is_named: outgoing.is_named,
            times: patience.limits().map_or((None, None, None), |limits| {
                let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
                (seconds(limits.connect), seconds(limits.read), seconds(limits.write))
            }),
        };
        let (sender, mut messages) = mpsc::unbounded_channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let number = next_id();
        let completion = Completion { messages: sender, cancelled: Arc::clone(&cancelled), number };
        // Entering the interpreter may have to wait: not on a worker that others need.
        let started = tokio::task::block_in_place(|| {
            Python::try_attach(|py| {
                let started = self.start(py, &parts, completion);
                started
                    .map(|()| self.object.clone_ref(py))
                    .map_err(|error| Error::Raised(foreign(py, error.into_value(py).bind(py).as_any())))
            })
        });
        let object = started.ok_or(Error::FlightLost)??;
        let mut cancel = Cancel { object, number, cancelled, finished: false };

        // The user's client has its own timeouts, by phase. Ours is for a client that has stopped without a word: its
        // event loop stands still.
        let head = match patience.longest() {
            Some(longest) => tokio::time::timeout(longest, messages.recv()).await.map_err(|_| Error::FlightLost)?,
            None => messages.recv().await,
        };
        let (status, headers) = match head {
            Some(Message::Head(status, headers)) => (status, headers),
            Some(Message::Failed(error)) => {
                cancel.finished = true;
                return Err(error);
            }
            Some(Message::Chunk(_) | Message::End) | None => return Err(Error::FlightLost),
        };
        patience.touch();
        if parts.stream && is_event_stream(status, &headers) {
            let chunks = stream::unfold((messages, cancel), |(mut messages, mut cancel)| async move {
                match messages.recv().await {
                    Some(Message::Chunk(chunk)) => Some((Ok(chunk), (messages, cancel))),
                    Some(Message::Failed(error)) => {
                        cancel.finished = true;
                        Some((Err(error), (messages, cancel)))
                    }
                    Some(Message::End) => {
                        cancel.finished = true;
                        drop(cancel);
                        None
                    }
                    Some(Message::Head(..)) | None if cancel.finished => None,
                    Some(Message::Head(..)) | None => {
                        cancel.finished = true;
                        Some((Err(Error::connection("the http client stopped in the middle")), (messages, cancel)))
                    }
                }
            });
            let body = Body::Stream(events(chunks, patience));
            return Ok(Response::new(status, headers, body));
        }
        let mut body = Vec::new();
        loop {
            match messages.recv().await {
                Some(Message::Chunk(chunk)) => body.extend_from_slice(&chunk),
                Some(Message::End) => break,
                Some(Message::Failed(error)) => {
                    cancel.finished = true;
                    return Err(error);
                }
                Some(Message::Head(..)) | None => return Err(Error::FlightLost),
            }
        }
        cancel.finished = true;
        Ok(Response::new(status, headers, Body::Full(body.into())))
    }
}

/// None when HTTP does not allow one of them: the http library of the client says so best.
pub fn header_map(raw: &RawHeaders) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(raw.len());
    for (name, value) in raw {
        headers.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}
