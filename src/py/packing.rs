//! The session of one `client.farthing.map()`, as its workers hold it.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::stages::batch::window;

/// See the module.
#[pyclass(frozen, subclass, module = "farthing._core")]
pub struct Packing(pub Arc<window::Packing>);

#[pymethods]
impl Packing {
    /// `workers`: how many will ask questions, one after the other. `requests`: under way at a time. `max_items`: questions
    /// in one request; None = as the policy says.
    #[new]
    #[pyo3(signature = (workers, requests, max_items=None))]
    fn new(workers: usize, requests: usize, max_items: Option<usize>) -> Self {
        Self(window::Packing::new(workers, requests, max_items))
    }

    /// No more questions will be begun: packs need not wait for workers that are under way.
    fn drained(&self, py: Python<'_>) {
        py.detach(|| self.0.drained());
    }

    /// A worker has no question left.
    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.0.leave());
    }
}
