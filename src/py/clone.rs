//! A fresh copy of an answer object: every container and every model anew, every leaf shared.
//!
//! The object was built once by the SDK itself, so a copy of it is what the SDK would build again, for every provider,
//! at a twentieth of the cost.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use super::once::{Once, name};

static MODEL: Once<PyType> = Once::new();
static DEEPCOPY: Once<PyAny> = Once::new();

/// About what a Python object costs beyond its payload, for weighing entries; bytes.
const OBJECT_BYTES: usize = 72;
const MODEL_BYTES: usize = 500;

/// Copies `value` and everything in it; adds to `bytes` what the copy takes in memory.
pub fn deep<'py>(value: &Bound<'py, PyAny>, bytes: &mut usize) -> PyResult<Bound<'py, PyAny>> {
    Ok(container(value, bytes)?.unwrap_or_else(|| value.clone()))
}

/// The copy of a value that can change; None for one that cannot, and is shared.
fn container<'py>(value: &Bound<'py, PyAny>, bytes: &mut usize) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    if let Ok(text) = value.cast_exact::<PyString>() {
        *bytes += OBJECT_BYTES + text.len().unwrap_or(0);
        return Ok(None);
    }
    if value.is_none() || value.cast_exact::<PyBool>().is_ok() {
        return Ok(None);
    }
    if value.cast_exact::<PyInt>().is_ok() || value.cast_exact::<PyFloat>().is_ok() {
        *bytes += 32;
        return Ok(None);
    }
    if let Ok(items) = value.cast_exact::<PyList>() {
        *bytes += OBJECT_BYTES + 8 * items.len();
        let copies = items.iter().map(|item| deep(&item, bytes)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Some(PyList::new(py, copies)?.into_any()));
    }
    if let Ok(members) = value.cast_exact::<PyDict>() {
        return Ok(Some(dict(members, bytes)?.into_any()));
    }
    if is_model(&value.get_type())? {
        return model(value, bytes).map(Some);
    }
    if let Ok(items) = value.cast_exact::<PyTuple>() {
        let copies = items.iter().map(|item| deep(&item, bytes)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Some(PyTuple::new(py, copies)?.into_any()));
    }
    *bytes += MODEL_BYTES;
    DEEPCOPY.get(py, || py.import("copy")?.getattr("deepcopy"))?.call1((value,)).map(Some)
}

/// The interpreter's own copy, and then what can change: most members cannot.
fn dict<'py>(members: &Bound<'py, PyDict>, bytes: &mut usize) -> PyResult<Bound<'py, PyDict>> {
    *bytes += OBJECT_BYTES + 100 * members.len();
    let copy = members.copy()?;
    for (name, value) in members {
        if let Some(value) = container(&value, bytes)? {
            copy.set_item(name, value)?;
        }
    }
    Ok(copy)
}

fn is_model(kind: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = kind.py();
    let base =
        MODEL.get(py, || py.import("pydantic")?.getattr("BaseModel")?.cast_into::<PyType>().map_err(PyErr::from))?;
    // Not isinstance(): pydantic's metaclass answers that in Python.
    // SAFETY: both are live type objects.
    Ok(unsafe { ffi::PyType_IsSubtype(kind.as_type_ptr(), base.as_type_ptr()) } == 1)
}

/// What pydantic's own `__copy__` does, with its four pieces of state.
fn model<'py>(value: &Bound<'py, PyAny>, bytes: &mut usize) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    *bytes += MODEL_BYTES;
    let kind = value.get_type();
    let copy = allocate(&kind)?;
    let state = value.getattr(name!(py, "__dict__"))?.cast_into::<PyDict>().map_err(PyErr::from)?;
    set(&copy, "__dict__", dict(&state, bytes)?.as_any())?;
    let fields_set = value.getattr(name!(py, "__pydantic_fields_set__"))?;
    set(&copy, "__pydantic_fields_set__", &fields_set.call_method0(name!(py, "copy"))?)?;
    let extra = value.getattr(name!(py, "__pydantic_extra__"))?;
    set(&copy, "__pydantic_extra__", &deep(&extra, bytes)?)?;
    let private = value.getattr(name!(py, "__pydantic_private__"))?;
    set(&copy, "__pydantic_private__", &deep(&private, bytes)?)?;
    Ok(copy)
}

/// An instance without its `__init__`.
fn allocate<'py>(kind: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    let py = kind.py();
    // One object in the whole interpreter.
    let empty = PyTuple::empty(py);
    // SAFETY: `kind` is a live heap type; tp_new is called as `kind.__new__(kind)` would call it.
    unsafe {
        let slot = ffi::PyType_GetSlot(kind.as_type_ptr(), ffi::Py_tp_new);
        if slot.is_null() {
            return Err(PyTypeError::new_err("a model type without __new__"));
        }
        let new: ffi::newfunc = std::mem::transmute(slot);
        Bound::from_owned_ptr_or_err(py, new(kind.as_type_ptr(), empty.as_ptr(), std::ptr::null_mut()))
    }
}

/// `object.__setattr__`, past pydantic's own, which validates.
fn set(object: &Bound<'_, PyAny>, name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = PyString::intern(object.py(), name);
    // SAFETY: three live objects; the call steals nothing.
    let code = unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if code == 0 { Ok(()) } else { Err(PyErr::fetch(object.py())) }
}
