//! A streamed answer on its way to Python: a bounded pipe between a task and one reader, who takes bytes (`EventPipe`) or
//! finished chunks (`ChunkReader`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::build::Builder;
use super::deliver::{Address, Job, LoopQueue, Parcel};
use super::error::{CoreError, to_python};
use super::state::state;
use super::wait::block;
use crate::error::{Error, Result};
use crate::exchange::EventStream;
use crate::stream::sse::Event;
use crate::stream::{DONE, LONGEST_GOODBYE};

/// The task waits while more than this lies unread.
const MOST_UNREAD: usize = 1 << 20;

#[derive(Default)]
struct Contents {
    events: VecDeque<Event>,
    unread: usize,
    end: Option<Result<()>>,
}

impl Contents {
    /// The end, which stays the end; a failure is told once.
    fn take_end(&mut self) -> Option<Result<()>> {
        let next = match self.end.as_ref()? {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::connection("the stream has failed already")),
        };
        self.end.replace(next)
    }
}

#[derive(Default)]
struct Pipe {
    contents: Mutex<Contents>,
    readable: Notify,
    writable: Notify,
    /// The reader wants no more.
    finished: Notify,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fill(&self, mut events: EventStream) {
        let mut end = Ok(());
        loop {
            let event = tokio::select! {
                biased;
                () = self.finished.notified() => {
                    // Read to its end, the connection can be used again.
                    let rest = async { while events.next().await.is_some() {} };
                    let _ = tokio::time::timeout(LONGEST_GOODBYE, rest).await;
                    break;
                }
                event = events.next() => event,
            };
            let Some(event) = event else { break };
            match event {
                Ok(event) => {
                    let unread = {
                        let mut contents = self.lock();
                        contents.unread += event.raw.len();
                        contents.events.push_back(event);
                        contents.unread
                    };
                    self.readable.notify_one();
                    if unread > MOST_UNREAD {
                        tokio::select! {
                            () = self.writable.notified() => {}
                            () = self.finished.notified() => self.finished.notify_one(),
                        }
                    }
                }
                Err(error) => {
                    end = Err(error);
                    break;
                }
            }
        }
        // The reader's bookkeeping (receipt, ledger) is complete before it sees the end.
        drop(events);
        self.lock().end.get_or_insert(end);
        self.readable.notify_one();
    }

    async fn wait(&self) {
        loop {
            {
                let contents = self.lock();
                if !contents.events.is_empty() || contents.end.is_some() {
                    return;
                }
            }
            self.readable.notified().await;
        }
    }
}

/// The reader's end. Not for two readers at once, as the SDK's streams are not.
#[pyclass(frozen)]
pub struct EventPipe {
    pipe: Arc<Pipe>,
    task: AbortHandle,
    /// The answer was read to its end.
    finished: AtomicBool,
    generation: u64,
}

impl EventPipe {
    /// Must be called on the runtime.
    pub fn open(events: EventStream) -> Self {
        let pipe = Arc::new(Pipe::default());
        let filled = Arc::clone(&pipe);
        let task = tokio::spawn(async move { filled.fill(events).await }).abort_handle();
        Self { pipe, task, finished: AtomicBool::new(false), generation: state().generation }
    }

    fn check_process(&self) -> PyResult<()> {
        if self.generation == state().generation {
            return Ok(());
        }
        Err(CoreError::new_err("this stream was opened before the process forked; only the parent can read it"))
    }
}

#[pymethods]
impl EventPipe {
    /// Everything that has come in: bytes; empty bytes at the end; None when there is nothing yet.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.check_process()?;
        let mut contents = self.pipe.lock();
        if contents.events.is_empty() {
            return match contents.take_end() {
                None => Ok(None),
                Some(Ok(())) => Ok(Some(PyBytes::new(py, b""))),
                Some(Err(error)) => {
                    drop(contents);
                    Err(to_python(py, &error))
                }
            };
        }
        let events = std::mem::take(&mut contents.events);
        contents.unread = 0;
        drop(contents);
        self.pipe.writable.notify_one();
        let length = events.iter().map(|event| event.raw.len()).sum();
        let bytes = PyBytes::new_with(py, length, |target| {
            let mut rest = target;
            for event in &events {
                let (head, tail) = rest.split_at_mut(event.raw.len());
                head.copy_from_slice(&event.raw);
                rest = tail;
            }
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// Blocks until `take` has something.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
        block(py, runtime, self.pipe.wait())
    }

    /// Sets the future's result on its loop when `take` has something.
    fn wait_async(&self, py: Python<'_>, queue: &LoopQueue, future: Py<PyAny>) -> PyResult<Job> {
        self.check_process()?;
        let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
        let pipe = Arc::clone(&self.pipe);
        let wait = |address: Address| async move {
            pipe.wait().await;
            address.deliver(Parcel::Ready);
        };
        Ok(queue.expect(future, None, |address| runtime.spawn(wait(address)).abort_handle()))
    }

    /// The reader has had enough; the connection is closed if nobody else reads. May be called twice.
    fn close(&self) {
        if !self.finished.load(Ordering::Relaxed) {
            self.task.abort();
            let mut contents = self.pipe.lock();
            contents.events.clear();
            contents.unread = 0;
            // Whoever reads on, or waits, finds the end.
            contents.end.get_or_insert(Ok(()));
            drop(contents);
            self.pipe.readable.notify_one();
        }
    }
}

impl EventPipe {
    /// Nothing more is read. The task goes on to the end of the connection, so that it can be used again.
    fn finish(&self) {
        {
            let mut contents = self.pipe.lock();
            contents.events.clear();
            contents.unread = 0;
            contents.end = Some(Ok(()));
        }
        self.finished.store(true, Ordering::Relaxed);
        self.pipe.finished.notify_one();
    }
}

impl Drop for EventPipe {
    fn drop(&mut self) {
        // The parent's task is not ours to touch in a child.
        if self.generation == state().generation && !self.finished.load(Ordering::Relaxed) {
            self.task.abort();
        }
    }
}

/// Reads a stream as the objects that the SDK would make of it.
#[pyclass(frozen)]
pub struct ChunkReader {
    pipe: Py<EventPipe>,
    builder: Py<Builder>,
    /// The SDK's own way: a function of an event's bytes that returns the chunks in them, or raises what the SDK raises.
    slow: Py<PyAny>,
}

enum Next<'py> {
    Chunk(Bound<'py, PyAny>),
    NothingYet,
    End,
}

#[pymethods]
impl ChunkReader {
    #[new]
    fn new(pipe: Py<EventPipe>, builder: Py<Builder>, slow: Py<PyAny>) -> Self {
        Self { pipe, builder, slow }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The next chunk; blocks for it.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            match self.next(py)? {
                Next::Chunk(chunk) => return Ok(Some(chunk)),
                Next::End => return Ok(None),
                Next::NothingYet => self.pipe.get().wait(py)?,
            }
        }
    }

    /// The next chunk, which may be None; `nothing_yet` or `end` in its place.
    fn ready<'py>(
        &self,
        py: Python<'py>,
        nothing_yet: Bound<'py, PyAny>,
        end: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.next(py)? {
            Next::Chunk(chunk) => chunk,
            Next::NothingYet => nothing_yet,
            Next::End => end,
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pipe)?;
        visit.call(&self.builder)?;
        visit.call(&self.slow)
    }
}

impl ChunkReader {
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Next<'py>> {
        let pipe = self.pipe.get();
        pipe.check_process()?;
        loop {
            let (event, freed) = {
                let mut contents = pipe.pipe.lock();
                let Some(event) = contents.events.pop_front() else {
                    let end = contents.take_end();
                    drop(contents);
                    return match end {
                        None => Ok(Next::NothingYet),
                        Some(Ok(())) => Ok(Next::End),
                        Some(Err(error)) => Err(to_python(py, &error)),
                    };
                };
                contents.unread = contents.unread.saturating_sub(event.raw.len());
                (event, contents.unread <= MOST_UNREAD)
            };
            if freed {
                pipe.pipe.writable.notify_one();
            }
            if !event.dispatched {
                continue;
            }
            // The SDK stops reading here, whatever follows.
            if event.data.starts_with(DONE) {
                pipe.finish();
                return Ok(Next::End);
            }
            // The SDK looks for an error in each event; where there may be one, it is the SDK's to find.
            // And what it makes of the events of the Assistants API is its own.
            let named = event.event.as_deref().is_some_and(|name| name.starts_with("thread."));
            let plain = !named && !event.data.contains("\"error\"");
            if plain {
                let data = PyBytes::new(py, event.data.as_bytes());
                if let Some(chunk) = self.builder.get().build(data.into_any())? {
                    return Ok(Next::Chunk(chunk));
                }
            }
            let made = self.slow.bind(py).call1((PyBytes::new(py, &event.raw),))?;
            if let Some(chunk) = made.try_iter()?.next() {
                return Ok(Next::Chunk(chunk?));
            }
        }
    }
}
