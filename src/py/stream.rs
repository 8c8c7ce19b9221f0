//! A streamed answer on its way to Python: a bounded pipe between a task and one reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::deliver::{Job, LoopQueue, Parcel};
use super::error::{CoreError, to_python};
use super::state::state;
use super::wait::block;
use crate::error::{Error, Result};
use crate::exchange::EventStream;

/// The task waits while more than this lies unread.
const MOST_UNREAD: usize = 1 << 20;

#[derive(Default)]
struct Contents {
    chunks: VecDeque<::bytes::Bytes>,
    unread: usize,
    end: Option<Result<()>>,
}

#[derive(Default)]
struct Pipe {
    contents: Mutex<Contents>,
    readable: Notify,
    writable: Notify,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fill(&self, mut events: EventStream) {
        let mut end = Ok(());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let unread = {
                        let mut contents = self.lock();
                        contents.unread += event.raw.len();
                        contents.chunks.push_back(event.raw);
                        contents.unread
                    };
                    self.readable.notify_one();
                    if unread > MOST_UNREAD {
                        self.writable.notified().await;
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
        self.lock().end = Some(end);
        self.readable.notify_one();
    }

    async fn wait(&self) {
        loop {
            {
                let contents = self.lock();
                if !contents.chunks.is_empty() || contents.end.is_some() {
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
    generation: u64,
}

impl EventPipe {
    /// Must be called on the runtime.
    pub fn open(events: EventStream) -> Self {
        let pipe = Arc::new(Pipe::default());
        let filled = Arc::clone(&pipe);
        let task = tokio::spawn(async move { filled.fill(events).await }).abort_handle();
        Self { pipe, task, generation: state().generation }
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
        if contents.chunks.is_empty() {
            return match contents.end.take() {
                None => Ok(None),
                Some(Ok(())) => {
                    contents.end = Some(Ok(()));
                    Ok(Some(PyBytes::new(py, b"")))
                }
                Some(Err(error)) => {
                    contents.end = Some(Err(Error::connection("the stream has failed already")));
                    drop(contents);
                    Err(to_python(py, &error))
                }
            };
        }
        let chunks = std::mem::take(&mut contents.chunks);
        contents.unread = 0;
        drop(contents);
        self.pipe.writable.notify_one();
        let length = chunks.iter().map(::bytes::Bytes::len).sum();
        let bytes = PyBytes::new_with(py, length, |target| {
            let mut rest = target;
            for chunk in &chunks {
                let (head, tail) = rest.split_at_mut(chunk.len());
                head.copy_from_slice(chunk);
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
    fn wait_async(&self, py: Python<'_>, queue: LoopQueue, future: Py<PyAny>) -> PyResult<Job> {
        self.check_process()?;
        let runtime = state().runtime().map_err(|error| to_python(py, &error))?;
        let pipe = Arc::clone(&self.pipe);
        let task = runtime.spawn(async move {
            pipe.wait().await;
            queue.push(future, Parcel::Ready);
        });
        Ok(Job(task.abort_handle()))
    }

    /// The reader has had enough; the connection is closed if nobody else reads. May be called twice.
    fn close(&self) {
        self.task.abort();
    }
}

impl Drop for EventPipe {
    fn drop(&mut self) {
        // The parent's task is not ours to touch in a child.
        if self.generation == state().generation {
            self.task.abort();
        }
    }
}
