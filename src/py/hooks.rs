//! The user's functions, for one call of the application: Python runs them (`hooks.py`), we only wait.
//!
//! Nothing of Python's is held by the future that waits, so that it may be dropped on any thread. A call that may need
//! functions runs on the shared runtime: a runtime that the caller drives itself (`local.rs`) has nobody else to go on
//! with while a thread enters the interpreter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pyo3::prelude::*;
use serde_json::Value;
use tokio::sync::oneshot;

use super::once::Once;
use super::state::{Kept, is_exiting, next_id, release_left};
use crate::context::Context;
use crate::engine::Engine;
use crate::hooks::{HookError, Hooks};

/// Some call of this process may have run a function. Until then no call can come from inside one.
static MAY_RUN: AtomicBool = AtomicBool::new(false);

type Said = Result<Value, HookError>;

/// Where Python reports what a function returned. The first report counts.
#[pyclass(frozen)]
pub struct HookCompletion {
    waiter: Mutex<Option<oneshot::Sender<Said>>>,
    cancelled: Arc<AtomicBool>,
    /// Names it, also for who must not hold it.
    #[pyo3(get)]
    number: u64,
}

#[pymethods]
impl HookCompletion {
    /// `text`: JSON.
    fn done(&self, text: &str) {
        let said = serde_json::from_str(text);
        self.report(said.map_err(|error| HookError::Failed(format!("it returned what is not JSON: {error}"))));
    }

    fn fail(&self, text: String) {
        self.report(Err(HookError::Failed(text)));
    }

    /// Nobody waits any more.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl HookCompletion {
    fn report(&self, said: Said) {
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            let _ = waiter.send(said);
        }
    }
}

/// Who called: a context (`contextvars`), and an event loop if it was an async client.
struct Caller {
    context: Kept,
    event_loop: Option<Kept>,
}

/// See the module. Without a caller: the call comes from inside a function.
struct PyHooks(Option<Caller>);

/// Gives `cx` the functions of the engine's policy, if it has any, and says whether the call comes from inside one.
/// `future`: what an async caller awaits; its loop is the caller's.
///
/// # Errors
/// What Python raised; an interpreter that ends, for one.
pub fn equip(py: Python<'_>, engine: &Engine, cx: &mut Context, future: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    // An engine without functions may share its flights with one that has them: policies are reloaded.
    cx.inside = MAY_RUN.load(Ordering::Relaxed) && is_inside(py)?;
    if !engine.has_hooks() {
        return Ok(());
    }
    MAY_RUN.store(true, Ordering::Relaxed);
    release_left(py);
    let caller = if cx.inside {
        None
    } else {
        let context = py.import("contextvars")?.call_method0("copy_context")?;
        let event_loop = future.map(|future| future.call_method0("get_loop")).transpose()?;
        Some(Caller {
            context: Kept::new(context.unbind()),
            event_loop: event_loop.map(|event_loop| Kept::new(event_loop.unbind())),
        })
    };
    cx.hooks = Some(Arc::new(PyHooks(caller)));
    Ok(())
}

fn is_inside(py: Python<'_>) -> PyResult<bool> {
    static ASK: Once<PyAny> = Once::new();
    ASK.get(py, || py.import("farthing.hooks")?.getattr("is_inside"))?.call0()?.is_truthy()
}

/// Tells Python when nobody waits any more.
struct Cancel {
    number: u64,
    cancelled: Arc<AtomicBool>,
    finished: bool,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.cancelled.store(true, Ordering::Relaxed);
        if is_exiting() {
            return;
        }
        let _ = Python::try_attach(|py| {
            let cancelled = py.import("farthing.hooks").and_then(|hooks| hooks.call_method1("cancel", (self.number,)));
            if let Err(error) = cancelled {
                error.write_unraisable(py, None);
            }
        });
    }
}

impl Caller {
    fn start(&self, py: Python<'_>, number: u64, argument: &Value, completion: HookCompletion) -> PyResult<()> {
        let kind = argument.get("kind").and_then(Value::as_str).unwrap_or_default();
        let event_loop = self.event_loop.as_ref().map(|event_loop| event_loop.bind(py));
        let text = argument.to_string();
        let arguments = (number, text, kind, self.context.bind(py), event_loop, Py::new(py, completion)?);
        py.import("farthing.hooks")?.call_method1("call", arguments).map(drop)
    }
}

#[async_trait]
impl Hooks for PyHooks {
    async fn call(&self, number: u64, argument: Value) -> Said {
        let caller = self.0.as_ref().ok_or(HookError::Inside)?;
        let ended = || HookError::Failed("the interpreter ends".to_owned());
        if is_exiting() {
            return Err(ended());
        }
        let (waiter, said) = oneshot::channel();
        let mut cancel = Cancel { number: next_id(), cancelled: Arc::default(), finished: false };
        let cancelled = Arc::clone(&cancel.cancelled);
        let completion = HookCompletion { waiter: Mutex::new(Some(waiter)), cancelled, number: cancel.number };
        // Entering the interpreter may have to wait: not on a worker that others need.
        let started = tokio::task::block_in_place(|| {
            Python::try_attach(|py| {
                let started = caller.start(py, number, &argument, completion);
                started.map_err(|error| HookError::Failed(error.to_string()))
            })
        });
        started.ok_or_else(ended)??;
        let said = said.await;
        cancel.finished = true;
        said.unwrap_or_else(|_| Err(HookError::Failed("its event loop ended before it did".to_owned())))
    }
}
