//! The object that the SDK makes of a body: by pydantic's `validate_json`, at a tenth of what the SDK's `construct` costs.
//!
//! Strict validation takes what is exactly as declared; what it does not take is left to `construct`. The two differ in
//! one thing, which is mended here: `construct` does not count unknown fields as set.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet};

use super::clone::is_model;

/// Makes objects with one validator.
#[pyclass(frozen)]
pub struct Builder {
    validate_json: Py<PyAny>,
    strict: Py<PyDict>,
}

#[pymethods]
impl Builder {
    #[new]
    fn new(py: Python<'_>, validate_json: Py<PyAny>) -> PyResult<Self> {
        let strict = PyDict::new(py);
        strict.set_item("strict", true)?;
        Ok(Self { validate_json, strict: strict.unbind() })
    }

    /// The object, or None when the body is not exactly as declared.
    pub fn build<'py>(&self, json: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = json.py();
        match self.validate_json.bind(py).call((json,), Some(self.strict.bind(py))) {
            Ok(made) => {
                as_constructed(&made)?;
                Ok(Some(made))
            }
            // pydantic's ValidationError is one.
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Takes unknown fields out of the set fields, in every model of the tree.
fn as_constructed(value: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = value.py();
    if let Ok(items) = value.cast_exact::<PyList>() {
        for item in items {
            // A list of plain values has no model in it.
            if !is_container(&item)? {
                break;
            }
            as_constructed(&item)?;
        }
        return Ok(());
    }
    if let Ok(members) = value.cast_exact::<PyDict>() {
        return members.iter().try_for_each(|(_, member)| as_constructed(&member));
    }
    if !is_model(&value.get_type())? {
        return Ok(());
    }
    let extra = value.getattr(pyo3::intern!(py, "__pydantic_extra__"))?;
    if let Ok(extra) = extra.cast_exact::<PyDict>()
        && !extra.is_empty()
    {
        let set = value.getattr(pyo3::intern!(py, "__pydantic_fields_set__"))?;
        if let Ok(set) = set.cast_exact::<PySet>() {
            for (name, _) in extra {
                set.discard(name)?;
            }
        }
    }
    let state = value.getattr(pyo3::intern!(py, "__dict__"))?;
    match state.cast_exact::<PyDict>() {
        Ok(fields) => fields.iter().try_for_each(|(_, field)| as_constructed(&field)),
        Err(_) => Ok(()),
    }
}

fn is_container(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.cast_exact::<PyList>().is_ok() || value.cast_exact::<PyDict>().is_ok() || is_model(&value.get_type())?)
}
