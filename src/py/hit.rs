//! A stored answer on its way to whoever asked: as an object, as bytes, as a stream. Found by `place.rs`.

use std::borrow::Cow;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::call::{RawPairs, header_text};
use super::clone;
use super::error::{CoreError, guarded};
use super::plain::Delivery;
use super::receipt::ReceiptCell;
use super::state::{Kept, release_left};
use crate::engine as core;
use crate::key::Key;
use crate::receipt::{Facts, Receipt};
use crate::store::Entry;
use crate::stream::{Kind, replay, replay_events};

/// Slots of an entry: the plain object is 0 or what the caller says, streams are these.
const STREAM_SLOT: u32 = 101;
const STREAM_USAGE_SLOT: u32 = 102;

/// The object that an entry keeps for a form of its answer.
struct Template(Kept);

/// A stored answer.
#[pyclass(frozen)]
pub struct Hit {
    core: Arc<core::Engine>,
    key: Key,
    entry: Arc<Entry>,
    slot: u32,
    include_usage: bool,
    /// A fresh copy of the object that was left for this form of the answer; None when there is none yet.
    #[pyo3(get)]
    value: Option<Py<PyAny>>,
    #[pyo3(get)]
    stream: bool,
    #[pyo3(get)]
    receipt: ReceiptCell,
}

impl Hit {
    /// `slot`: the form of a plain object that the caller wants.
    pub fn new(
        py: Python<'_>,
        core: Arc<core::Engine>,
        key: Key,
        entry: Arc<Entry>,
        slot: u32,
        delivery: &Delivery,
        facts: Facts,
    ) -> PyResult<Self> {
        let slot = match (delivery.stream, delivery.include_usage) {
            (false, _) => slot,
            (true, false) => STREAM_SLOT,
            (true, true) => STREAM_USAGE_SLOT,
        };
        let value = match entry.slot(slot).as_deref().and_then(|object| object.downcast_ref::<Template>()) {
            Some(template) => Some(clone::deep(template.0.bind(py), &mut 0)?.unbind()),
            None => None,
        };
        let receipt = ReceiptCell(Arc::new(Receipt::new(facts)));
        let (include_usage, stream) = (delivery.include_usage, delivery.stream);
        Ok(Self { core, key, entry, slot, include_usage, value, stream, receipt })
    }
}

#[pymethods]
impl Hit {
    /// The stored JSON.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.entry.body)
    }

    /// The stored headers, as pairs of bytes, with what marks them as a hit.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> RawPairs<'py> {
        let all = self.entry.headers().chain([(&b"x-farthing-cache"[..], &b"hit"[..])]);
        all.map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect()
    }

    #[getter]
    fn request_id(&self) -> Option<Cow<'_, str>> {
        let found = self.entry.headers().find(|(name, _)| *name == b"x-request-id");
        found.map(|(_, value)| header_text(value))
    }

    /// The bytes that a stream of this answer would bring.
    fn event_stream<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let kind = Kind::of(self.entry.about.endpoint).ok_or_else(|| CoreError::new_err("no such stream"))?;
        let body = serde_json::from_slice(&self.entry.body).map_err(|error| CoreError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &replay(kind, &body, self.include_usage)))
    }

    /// The events that a stream of this answer would bring: a JSON array.
    fn events(&self) -> PyResult<String> {
        let kind = Kind::of(self.entry.about.endpoint).ok_or_else(|| CoreError::new_err("no such stream"))?;
        let body = serde_json::from_slice(&self.entry.body).map_err(|error| CoreError::new_err(error.to_string()))?;
        serde_json::to_string(&replay_events(kind, &body, self.include_usage))
            .map_err(|error| CoreError::new_err(error.to_string()))
    }

    /// Leaves a copy of `value` for the next hit of this form.
    fn keep(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        /// Beyond this, the object is built again for each hit: it would crowd out other answers.
        const MOST_BYTES: usize = 64 * 1024;
        if self.entry.body.len() > MOST_BYTES {
            return Ok(());
        }
        guarded(|| {
            release_left(value.py());
            let mut bytes = 0;
            let copy = clone::deep(value, &mut bytes)?;
            self.entry.fill_slot(self.slot, Arc::new(Template(Kept::new(copy.unbind()))), bytes);
            self.core.cache().store().weigh(self.key, &self.entry);
            Ok(())
        })
    }
}
