//! The object that the SDK makes of a body: by pydantic's `validate_json`, at a tenth of what the SDK's `construct` costs.
//!
//! Strict validation takes what is exactly as declared; what it does not take is left to `construct`. The two differ in
//! one thing, which is mended here: `construct` does not count unknown fields as set. It hands what stands in a union to
//! the validator, though, so the difference is only in models that are reached without one. (A second difference is left:
//! an integer beyond 2^53 where a float is declared comes as that float, not as the integer.)

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyTuple};

use super::once::name;

/// Makes objects with one validator.
#[pyclass(frozen)]
pub struct Builder {
    validate_json: Py<PyAny>,
    strict: Py<PyDict>,
    /// By model type, the names of the fields through which `construct` goes on to other models.
    reached: Py<PyDict>,
}

#[pymethods]
impl Builder {
    #[new]
    fn new(py: Python<'_>, validate_json: Py<PyAny>, reached: Py<PyDict>) -> PyResult<Self> {
        let strict = PyDict::new(py);
        strict.set_item("strict", true)?;
        Ok(Self { validate_json, strict: strict.unbind(), reached })
    }

    /// The object, or None when the body is not exactly as declared.
    pub fn build<'py>(&self, json: Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = json.py();
        match self.validate_json.bind(py).call((json,), Some(self.strict.bind(py))) {
            Ok(made) => {
                self.as_constructed(&made)?;
                Ok(Some(made))
            }
            // pydantic's ValidationError is one.
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Builder {
    /// Takes unknown fields out of the set fields, in every model that `construct` makes.
    fn as_constructed(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        if let Ok(items) = value.cast_exact::<PyList>() {
            return items.iter().try_for_each(|item| self.as_constructed(&item));
        }
        if let Ok(members) = value.cast_exact::<PyDict>() {
            return members.iter().try_for_each(|(_, member)| self.as_constructed(&member));
        }
        let Some(fields) = self.reached.bind(py).get_item(value.get_type())? else { return Ok(()) };
        let extra = value.getattr(name!(py, "__pydantic_extra__"))?;
        if let Ok(extra) = extra.cast_exact::<PyDict>()
            && !extra.is_empty()
        {
            let set = value.getattr(name!(py, "__pydantic_fields_set__"))?;
            if let Ok(set) = set.cast_exact::<PySet>() {
                for (name, _) in extra {
                    set.discard(name)?;
                }
            }
        }
        let state = value.getattr(name!(py, "__dict__"))?.cast_into::<PyDict>().map_err(PyErr::from)?;
        for name in fields.cast::<PyTuple>().map_err(PyErr::from)? {
            if let Some(field) = state.get_item(name)? {
                self.as_constructed(&field)?;
            }
        }
        Ok(())
    }
}
