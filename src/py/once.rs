//! Python objects that are made when they are first needed, and kept.
//!
//! pyo3's `intern!` and `PyOnceLock` let the GIL go while one thread makes the object and the others wait for it. A process
//! that forks then has a child in which nobody makes it, and which waits for ever: so `clippy.toml` forbids them. Here two
//! threads may make the object, and nobody waits.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// An object of Python's that is made once, or twice where threads meet.
pub struct Once<T>(OnceLock<Py<T>>);

impl<T> Once<T> {
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// # Errors
    /// That of `make`, which is asked again the next time.
    pub fn get<'py>(
        &'static self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, T>>,
    ) -> PyResult<&'py Bound<'py, T>> {
        if let Some(made) = self.0.get() {
            return Ok(made.bind(py));
        }
        let made = make()?.unbind();
        // The GIL is held all through this, and whoever forks holds it too.
        Ok(self.0.get_or_init(|| made).bind(py))
    }
}

/// What `name!` makes.
pub fn interned<'py>(py: Python<'py>, name: &'static Once<PyString>, text: &str) -> &'py Bound<'py, PyString> {
    if let Some(made) = name.0.get() {
        return made.bind(py);
    }
    let made = PyString::intern(py, text).unbind();
    name.0.get_or_init(|| made).bind(py)
}

/// A name as Python's own string, made once: `name!(py, "__dict__")`.
macro_rules! name {
    ($py:expr, $text:literal) => {{
        static NAME: $crate::py::once::Once<pyo3::types::PyString> = $crate::py::once::Once::new();
        $crate::py::once::interned($py, &NAME, $text)
    }};
}
pub(super) use name;
