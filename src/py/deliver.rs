//! How an async caller waits: results of many calls reach its event loop in one wake-up.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use tokio::task::AbortHandle;

use super::engine::Answer;
use super::error::to_python;
use super::state::is_exiting;
use crate::error::Result;

/// What a future gets.
pub enum Parcel {
    Answer(Result<Answer>),
    /// Something to look at has come in.
    Ready,
}

struct Inner {
    event_loop: Py<PyAny>,
    parcels: Mutex<Vec<(Py<PyAny>, Parcel)>>,
}

/// One per event loop.
#[pyclass(frozen, weakref, from_py_object)]
#[derive(Clone)]
pub struct LoopQueue(Arc<Inner>);

#[pymethods]
impl LoopQueue {
    #[new]
    fn new(event_loop: Py<PyAny>) -> Self {
        Self(Arc::new(Inner { event_loop, parcels: Mutex::default() }))
    }

    /// Hands out what has arrived; called on the loop.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let parcels = std::mem::take(&mut *self.0.parcels.lock().unwrap_or_else(PoisonError::into_inner));
        for (future, parcel) in parcels {
            let future = future.bind(py);
            // Cancelled while the result was on its way.
            if future.call_method0("done")?.is_truthy()? {
                continue;
            }
            match parcel {
                Parcel::Answer(Ok(answer)) => future.call_method1("set_result", (answer,))?,
                Parcel::Answer(Err(error)) => {
                    future.call_method1("set_exception", (to_python(py, &error).into_value(py),))?
                }
                Parcel::Ready => future.call_method1("set_result", (py.None(),))?,
            };
        }
        Ok(())
    }
}

impl LoopQueue {
    /// Called from the runtime's threads.
    pub fn push(&self, future: Py<PyAny>, parcel: Parcel) {
        let first = {
            let mut parcels = self.0.parcels.lock().unwrap_or_else(PoisonError::into_inner);
            parcels.push((future, parcel));
            parcels.len() == 1
        };
        // Whoever made the queue non-empty has woken the loop, which will find this parcel too.
        if !first || is_exiting() {
            return;
        }
        let _ = Python::try_attach(|py| {
            let wake = Bound::new(py, self.clone()).and_then(|queue| queue.getattr("drain"));
            let woken =
                wake.and_then(|drain| self.0.event_loop.bind(py).call_method1("call_soon_threadsafe", (drain,)));
            if woken.is_err() {
                // The loop is closed: nobody waits there any more.
                let parcels = std::mem::take(&mut *self.0.parcels.lock().unwrap_or_else(PoisonError::into_inner));
                drop(parcels);
            }
        });
    }
}

/// A call that runs for an async caller.
#[pyclass(frozen)]
pub struct Job(pub AbortHandle);

#[pymethods]
impl Job {
    /// The caller does not wait any more.
    fn cancel(&self) {
        self.0.abort();
    }
}
