//! Plain calls (L1 and L2): an endpoint as one client reaches it, and what is found there: a `Hit` or a `Miss`.
//!
//! `docs/path.md` has the way of a call; which calls come here is decided in `places.py` and `resources/`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::call::{RawPairs, raw_pairs, seconds};
use super::engine::{Engine, Ledger, endpoint, mode, prefix, tell};
use super::error::{CoreError, guarded};
use super::guard::{Guard, Probes};
use super::hit::Hit;
use super::miss::Miss;
use super::plain::{Delivery, Rules, write_call};
use super::plan::Plan;
use super::sender::{RawHeaders, header_map};
use super::state::{release_left, state, without_gil};
use crate::engine as core;
use crate::exchange::{Endpoint, Request};
use crate::key::encode::Encoder;
use crate::key::json::JsonWriter;
use crate::key::scan::Field;
use crate::key::{self, Key};
use crate::patience::Limits;
use crate::stages::cache::CacheStage;
use crate::upstream::http::can_send;

/// What a `create` method takes, by the SDK's signature.
#[pyclass(frozen)]
pub struct Shape {
    endpoint: Endpoint,
    known: HashSet<String>,
    required: Vec<Py<PyString>>,
    absent: Py<PyTuple>,
    default: Option<(String, String)>,
}

#[pymethods]
impl Shape {
    /// `absent`: the types of `omit` and `NOT_GIVEN`; `default`: a field that the SDK adds when it is not given.
    #[new]
    fn new(
        kind: &str,
        known: HashSet<String>,
        required: Vec<Py<PyString>>,
        absent: Py<PyTuple>,
        default: Option<(String, String)>,
    ) -> Self {
        Self { endpoint: endpoint(kind), known, required, absent, default }
    }
}

/// An endpoint as one client reaches it: all of a call that stays the same from call to call.
#[pyclass(frozen)]
pub struct Place {
    shape: Py<Shape>,
    engine: Py<Engine>,
    ledger: Py<Ledger>,
    guard: Guard,
    url: Arc<str>,
    headers: HeaderMap,
    owner: Vec<u8>,
    prefix: key::Prefix,
    /// That the prefix was made with.
    salt: [u8; 32],
    plan: Option<Arc<crate::upstream::plan::Plan>>,
}

/// Options of one call: mode, seconds to live, sample, tag, session of packs.
type CallOptions = (Option<String>, Option<f64>, Option<String>, Option<String>, Option<Py<PyAny>>);

#[pymethods]
impl Place {
    #[new]
    #[pyo3(signature = (shape, engine, ledger, owner, url, headers, probes, watched, empty, plan))]
    #[expect(clippy::too_many_arguments, reason = "made once a client and endpoint")]
    fn new(
        py: Python<'_>,
        shape: Py<Shape>,
        engine: Py<Engine>,
        ledger: Py<Ledger>,
        owner: &[u8],
        url: String,
        headers: RawHeaders,
        probes: Py<Probes>,
        watched: Vec<(Bound<'_, PyDict>, Vec<Bound<'_, PyString>>)>,
        empty: Vec<Bound<'_, PyAny>>,
        plan: Option<Bound<'_, Plan>>,
    ) -> PyResult<Self> {
        let plan = plan.map(|plan| Arc::clone(&plan.get().0));
        let core = engine.get().core(py)?;
        let prefix = prefix(&core, owner, &url, &headers);
        let (owner, salt) = (owner.to_vec(), core.scope().salt);
        let guard = Guard::new(probes, watched, empty)?;
        let Some(headers) = header_map(&headers) else {
            return Err(CoreError::new_err("a header that HTTP does not allow"));
        };
        Ok(Self { shape, engine, ledger, guard, url: url.into(), headers, owner, prefix, salt, plan })
    }

    /// Whether the client is still as it was when this was made, and nobody stands between it and its transport.
    fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        self.guard.holds(py)
    }

    /// Looks a call up: a `Hit`, a `Miss`, or None when its arguments are not plain.
    ///
    /// `slot`: the form of the object that the caller wants; `raw`: it wants a raw response; `notes`: for the receipt.
    #[pyo3(signature = (arguments, slot, raw, options, notes))]
    fn look(
        slf: &Bound<'_, Self>,
        arguments: Bound<'_, PyDict>,
        slot: u32,
        raw: bool,
        options: Option<CallOptions>,
        notes: Option<Vec<String>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        guarded(|| {
            let py = slf.py();
            let this = slf.get();
            let core = this.engine.get().core(py)?;
            let (mode_name, ttl, sample, tag, packing) = options.unwrap_or_default();
            let mode = mode(mode_name.as_deref(), core.mode())?;
            let ttl = seconds(ttl);
            let Some((key, delivery, model)) = this.key(&core, &arguments, sample.as_deref()) else {
                return Ok(None);
            };
            // A raw stream is the transport's.
            if raw && delivery.stream {
                return Ok(None);
            }
            let cache = core.cache();
            let found = cache.find(&key, mode, ttl).or_else(|| {
                // What waits for a disk waits without the GIL.
                cache.disk().and_then(|_| without_gil(py, || cache.find_on_disk(&key, mode, ttl)))
            });
            let ledger = this.ledger();
            tell(py, &core, &ledger)?;
            let Some(entry) = found else {
                release_left(py);
                let place = slf.clone().unbind();
                let arguments = arguments.unbind();
                let tag = tag.map(Into::into);
                let miss = Miss { core, place, key, model, delivery, arguments, mode, ttl, tag, notes, packing };
                return Ok(Some(Py::new(py, miss)?.into_any()));
            };
            let mut facts = CacheStage::hit_facts(&entry, model.into(), tag.map(Into::into));
            facts.notes.extend(notes.into_iter().flatten().map(Into::into));
            CacheStage::record_hit(&core.books(ledger), this.endpoint(), &facts);
            let hit = Hit::new(py, core, key, entry, slot, &delivery, facts)?;
            Ok(Some(Py::new(py, hit)?.into_any()))
        })
    }

    /// Whether Rust can send there at all.
    #[getter]
    fn sendable(&self) -> bool {
        can_send(&self.url)
    }

    /// The JSON that is sent for these arguments.
    fn body<'py>(&self, py: Python<'py>, arguments: &Bound<'_, PyDict>) -> PyResult<Bound<'py, PyBytes>> {
        let core = self.engine.get().core(py)?;
        Ok(PyBytes::new(py, &self.json(arguments, &core)?.0))
    }

    /// Where calls go.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// What goes out with a call that brings `own` headers: pairs of bytes.
    fn headers<'py>(&self, py: Python<'py>, own: BTreeMap<String, String>) -> PyResult<RawPairs<'py>> {
        let all = self.with_headers(own.into_iter())?;
        Ok(raw_pairs(py, &all))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.shape)?;
        visit.call(&self.engine)?;
        visit.call(&self.ledger)?;
        self.guard.traverse(&visit)
    }
}

impl Place {
    fn with_headers(&self, own: impl Iterator<Item = (String, String)>) -> PyResult<HeaderMap> {
        let mut all = self.headers.clone();
        for (name, value) in own {
            let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
            let Some((header, value)) = header else {
                return Err(CoreError::new_err(format!("a header that HTTP does not allow: {name}")));
            };
            all.insert(header, value);
        }
        Ok(all)
    }

    fn json(&self, arguments: &Bound<'_, PyDict>, core: &core::Engine) -> PyResult<(Vec<u8>, Vec<Field>)> {
        let mut writer = JsonWriter::with_capacity(1024);
        let rules = self.shape.get().rules(arguments.py(), core);
        match write_call(arguments, &rules, &mut writer) {
            Ok(_) => Ok(writer.finish()),
            Err(_) => Err(CoreError::new_err("the arguments changed while they were read")),
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.shape.get().endpoint
    }

    pub fn ledger(&self) -> Arc<crate::ledger::Ledger> {
        state().ledger(self.ledger.get().id)
    }

    /// Where calls go, with what one brings along: headers, and times.
    pub fn plan(&self, own: &[(String, String)], times: Option<Limits>) -> Option<Arc<crate::upstream::plan::Plan>> {
        let plan = self.plan.as_ref()?;
        if plan.is_alone() || own.is_empty() && times.is_none() {
            return Some(Arc::clone(plan));
        }
        let pair = |(name, value): &(String, String)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        Some(Arc::new(plan.for_call(&own.iter().filter_map(pair).collect(), times)))
    }

    /// The request of a call that brings `own` headers.
    pub fn request(
        &self,
        arguments: &Bound<'_, PyDict>,
        own: Vec<(String, String)>,
        core: &core::Engine,
        key: Key,
    ) -> PyResult<Request> {
        let (body, fields) = self.json(arguments, core)?;
        let all = self.with_headers(own.into_iter())?;
        Ok(Request::from_parts(self.endpoint(), Arc::clone(&self.url), Arc::new(all), body.into(), fields, key))
    }

    fn key(
        &self,
        core: &core::Engine,
        arguments: &Bound<'_, PyDict>,
        sample: Option<&str>,
    ) -> Option<(Key, Delivery, String)> {
        let py = arguments.py();
        let shape = self.shape.get();
        // What the SDK would refuse, it refuses.
        if !shape.required.iter().all(|name| arguments.contains(name.bind(py)).unwrap_or(false)) {
            return None;
        }
        let mut encoder = Encoder::with_capacity(512);
        let (delivery, model) = write_call(arguments, &shape.rules(py, core), &mut encoder).ok()?;
        let scope = core.scope();
        let key = if scope.salt == self.salt {
            self.prefix.key(sample, encoder.bytes())
        } else {
            // The cache file could be opened since then, and has a salt of its own.
            let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            key::Prefix::new(scope, &self.owner, &self.url, headers).key(sample, encoder.bytes())
        };
        Some((key, delivery, model))
    }
}

impl Shape {
    fn rules<'a, 'py>(&'a self, py: Python<'py>, core: &'a core::Engine) -> Rules<'a, 'py> {
        Rules {
            known: &self.known,
            absent: self.absent.bind(py).clone(),
            default: self.default.as_ref().map(|(name, value)| (name.as_str(), value.as_str())),
            aliases: core.aliases(),
        }
    }
}
