//! A call whose answer is not stored: asked here by those who have it, or left to the SDK. Made by `place.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::call::{Answer, Call, packing, seconds};
use super::deliver::{Job, LoopQueue};
use super::error::guarded;
use super::place::Place;
use super::plain::Delivery;
use super::state::state;
use crate::context::{Context, Mode};
use crate::engine as core;
use crate::key::Key;
use crate::ledger::Purpose;
use crate::patience::{Limits, Patience};
use crate::receipt::{Facts, Receipt};
use crate::upstream::Sender;

/// See the module.
#[pyclass(frozen)]
pub struct Miss {
    pub core: Arc<core::Engine>,
    pub place: Py<Place>,
    pub key: Key,
    pub model: String,
    pub delivery: Delivery,
    pub arguments: Py<PyDict>,
    pub mode: Mode,
    pub ttl: Option<Duration>,
    pub tag: Option<Arc<str>>,
    pub notes: Option<Vec<String>>,
    /// The session of `client.farthing.map()` that the call belongs to.
    pub packing: Option<Py<PyAny>>,
}

/// Seconds to connect, to read, to write; retries; whether the times are the call's own.
type CallLimits = (Option<f64>, Option<f64>, Option<f64>, u32, bool);
/// Headers of one call, which replace those of the place.
type CallHeaders = Vec<(String, String)>;

#[pymethods]
impl Miss {
    #[getter]
    fn stream(&self) -> bool {
        self.delivery.stream
    }

    /// Sends the call through the stages and blocks for the answer.
    fn ask(&self, py: Python<'_>, limits: CallLimits, headers: CallHeaders) -> PyResult<Answer> {
        guarded(|| self.call(py, limits, headers)?.block(py, Arc::clone(&self.core)))
    }

    /// The same for an event loop: `future` gets the answer.
    fn ask_async(
        &self,
        py: Python<'_>,
        limits: CallLimits,
        headers: CallHeaders,
        queue: &LoopQueue,
        future: Py<PyAny>,
    ) -> PyResult<Job> {
        guarded(|| self.call(py, limits, headers)?.start(py, Arc::clone(&self.core), queue, future))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.place)?;
        visit.call(&self.arguments)?;
        visit.call(&self.packing)
    }
}

impl Miss {
    fn call(&self, py: Python<'_>, limits: CallLimits, headers: CallHeaders) -> PyResult<Call> {
        let place = self.place.get();
        let (connect, read, write, max_retries, own_times) = limits;
        let limits = Limits { connect: seconds(connect), read: seconds(read), write: seconds(write), max_retries };
        let plan = place.plan(&headers, own_times.then_some(limits));
        let request = place.request(self.arguments.bind(py), headers, &self.core, self.key)?;
        let notes = self.notes.iter().flatten().cloned().map(Into::into).collect();
        let facts = Facts { model_asked: self.model.as_str().into(), tag: self.tag.clone(), notes, ..Facts::default() };
        let cx = Context {
            began: Instant::now(),
            books: self.core.books(place.ledger()),
            receipt: Arc::new(Receipt::new(facts)),
            sender: Arc::clone(&state().http) as Arc<dyn Sender>,
            plan,
            tier: None,
            max_cost: None,
            packing: self.packing.as_ref().and_then(|object| packing(object.bind(py))),
            purpose: Purpose::default(),
            limits,
            patience: Arc::new(Patience::default()),
            mode: self.mode,
            ttl: self.ttl,
            tag: self.tag.clone(),
            wishes: None,
            looked_on_disk: true,
            event_loop: None,
            hooks: None,
            inside: false,
            tasks: None,
            fault: None,
            left: None,
        };
        Ok(Call { cx, request, by_rust: true })
    }
}
