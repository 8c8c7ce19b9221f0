//! Whether things are still as they were when Python looked at them: in a microsecond, where Python itself takes twenty.
//!
//! What is watched is chosen in `routes.py` and `places.py`; here it is only compared, by identity.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Attributes that a mock or a tracer replaces, and what they were when this was made.
#[pyclass(frozen)]
pub struct Probes(Vec<(Py<PyAny>, Py<PyString>, Py<PyAny>)>);

#[pymethods]
impl Probes {
    #[new]
    fn new(places: Vec<(Bound<'_, PyAny>, Bound<'_, PyString>)>) -> PyResult<Self> {
        let probe = |(owner, name): (Bound<'_, PyAny>, Bound<'_, PyString>)| {
            let original = owner.getattr(&name)?.unbind();
            Ok((owner.unbind(), name.unbind(), original))
        };
        Ok(Self(places.into_iter().map(probe).collect::<PyResult<_>>()?))
    }

    /// Whether any of them is another object by now.
    pub fn changed(&self, py: Python<'_>) -> bool {
        self.0.iter().any(|(owner, name, original)| {
            owner.bind(py).getattr(name.bind(py)).map_or(true, |now| !now.is(original.bind(py)))
        })
    }
}

/// An object's attributes, as they were.
struct Watched {
    attributes: Py<PyDict>,
    /// Patches on an instance are attributes that were not there before.
    count: usize,
    values: Vec<(Py<PyString>, Py<PyAny>)>,
}

/// See the module. Not a class of Python's: whoever has one passes its references to the garbage collector.
pub struct Guard {
    probes: Py<Probes>,
    watched: Vec<Watched>,
    empty: Vec<Py<PyAny>>,
}

impl Guard {
    /// `watched`: the `__dict__` of objects, with the names whose values must stay the same objects; `empty`: containers
    /// that must stay empty.
    pub fn new(
        probes: Py<Probes>,
        watched: Vec<(Bound<'_, PyDict>, Vec<Bound<'_, PyString>>)>,
        empty: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let watch = |(attributes, names): (Bound<'_, PyDict>, Vec<Bound<'_, PyString>>)| {
            let mut values = Vec::with_capacity(names.len());
            for name in names {
                if let Some(value) = attributes.get_item(&name)? {
                    values.push((name.unbind(), value.unbind()));
                }
            }
            Ok(Watched { count: attributes.len(), attributes: attributes.unbind(), values })
        };
        Ok(Self {
            probes,
            watched: watched.into_iter().map(watch).collect::<PyResult<_>>()?,
            empty: empty.into_iter().map(Bound::unbind).collect(),
        })
    }

    pub fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        if self.probes.get().changed(py) {
            return Ok(false);
        }
        for watched in &self.watched {
            let attributes = watched.attributes.bind(py);
            if attributes.len() != watched.count {
                return Ok(false);
            }
            for (name, value) in &watched.values {
                if !attributes.get_item(name.bind(py))?.is_some_and(|now| now.is(value.bind(py))) {
                    return Ok(false);
                }
            }
        }
        for container in &self.empty {
            if !container.bind(py).is_empty()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// For `__traverse__`: the guard is reached from the very objects that it watches.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.probes)?;
        for watched in &self.watched {
            visit.call(&watched.attributes)?;
            for (_, value) in &watched.values {
                visit.call(value)?;
            }
        }
        self.empty.iter().try_for_each(|container| visit.call(container))
    }
}
