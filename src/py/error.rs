//! The core's errors as Python exceptions. Python turns them into the SDK's own (`transport.py`).

#![allow(clippy::disallowed_types, reason = "create_exception! keeps its classes so; they are made with the module")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::budget::Blocked;
use crate::error::{Error, Foreign};

create_exception!(farthing._core, SendError, PyException, "args: kind, message, cause. No answer from the upstream.");
create_exception!(
    farthing._core,
    CoreError,
    PyException,
    "farthing's own failure; the caller falls back to the plain call."
);

/// What the user's own http client raised, carried through the core.
pub fn foreign(py: Python<'_>, exception: &Bound<'_, PyAny>) -> Foreign {
    let _ = py;
    Foreign(Arc::new(exception.clone().unbind()))
}

fn cause(py: Python<'_>, foreign: Option<&Foreign>) -> Option<Py<PyAny>> {
    foreign?.0.downcast_ref::<Py<PyAny>>().map(|exception| exception.clone_ref(py))
}

/// A new exception object each time: waiters must not share one.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Timeout { phase, cause: foreign } => {
            SendError::new_err((format!("{}_timeout", phase.name()), message, cause(py, foreign.as_ref())))
        }
        Error::Connection { broken, cause: foreign, .. } => {
            SendError::new_err((broken.name(), message, cause(py, foreign.as_ref())))
        }
        Error::Raised(foreign) => SendError::new_err(("raised", message, cause(py, Some(foreign)))),
        Error::FlightLost => SendError::new_err(("connection", message, None::<Py<PyAny>>)),
        Error::Budget(blocked) => exceeded(py, blocked).unwrap_or_else(|error| error),
        Error::Config(_) | Error::Internal(_) => CoreError::new_err(message),
    }
}

/// `farthing.BudgetExceeded`.
fn exceeded(py: Python<'_>, blocked: &Blocked) -> PyResult<PyErr> {
    let more = PyDict::new(py);
    more.set_item("budget", &*blocked.budget)?;
    more.set_item("subject", &blocked.subject)?;
    more.set_item("model", &blocked.model)?;
    let sums = &blocked.sums;
    let amounts =
        [("limit", blocked.limit), ("spent", sums.spent), ("reserved", sums.reserved), ("unknown", sums.unknown)];
    for (name, amount) in amounts {
        more.set_item(name, amount.to_string())?;
    }
    more.set_item("cost", blocked.cost.map(|cost| cost.to_string()))?;
    let class = py.import("farthing.exceptions")?.getattr("BudgetExceeded")?;
    Ok(PyErr::from_value(class.call((blocked.to_string(),), Some(&more))?))
}

/// Runs `work`; a panic in it becomes a `CoreError`, so that the caller can fall back to the plain call.
pub fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(CoreError::new_err(format!("farthing failed: {}", panicked(&*panic)))))
}

/// What a panic said.
pub fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned());
    format!("panic: {text}")
}
