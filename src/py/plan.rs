//! Where a call goes, as Python says it. What is made of it is in `upstream/`.

use std::sync::Arc;

use pyo3::prelude::*;

use super::call::seconds;
use super::error::{CoreError, to_python};
use super::sender::{RawHeaders, header_map};
use crate::patience::Limits;
use crate::upstream::adapt::Adaptation;
use crate::upstream::plan;

/// Seconds to connect, to read, to write; retries.
type TargetLimits = (Option<f64>, Option<f64>, Option<f64>, u32);
/// The upstream (None = the client's own), the name in the policy's list, URL, headers, what differs, limits.
type RawTarget = (Option<String>, String, String, RawHeaders, String, TargetLimits);

/// A model that a stage may choose: how it is reached, and the plan from there on.
type RawTier<'py> = (RawTarget, Bound<'py, Plan>);

/// A plan; the same for all calls to a place.
#[pyclass(frozen)]
pub struct Plan(pub Arc<plan::Plan>);

#[pymethods]
impl Plan {
    /// `alias`: the name in the policy of the model that is asked first, where a stage may choose it.
    #[new]
    #[pyo3(signature = (upstream, fallbacks, substitutes, absent, alias=None, choices=None))]
    fn new(
        py: Python<'_>,
        upstream: Option<String>,
        fallbacks: Vec<RawTarget>,
        substitutes: Vec<RawTarget>,
        absent: Vec<String>,
        alias: Option<String>,
        choices: Option<Bound<'_, Choices>>,
    ) -> PyResult<Self> {
        Ok(Self(Arc::new(plan::Plan {
            upstream: upstream.map(Into::into),
            fallbacks: fallbacks.into_iter().map(|raw| target(py, raw)).collect::<PyResult<_>>()?,
            substitutes: substitutes.into_iter().map(|raw| target(py, raw)).collect::<PyResult<_>>()?,
            absent: absent.into_iter().map(Into::into).collect(),
            alias: alias.map(Into::into),
            choices: choices.map(|choices| Arc::clone(&choices.get().0)),
        })))
    }
}

/// What stages may choose among.
#[pyclass(frozen)]
pub struct Choices(Arc<plan::Choices>);

#[pymethods]
impl Choices {
    /// `asked`: the model that the call names; `routes`, `escalates`: which stages have a say.
    #[new]
    fn new(
        py: Python<'_>,
        tiers: Vec<RawTier<'_>>,
        helpers: Vec<RawTier<'_>>,
        asked: Option<RawTier<'_>>,
        routes: bool,
        escalates: bool,
    ) -> PyResult<Self> {
        let tier = |(raw, plan): RawTier<'_>| {
            PyResult::Ok(Arc::new(plan::Tier { target: target(py, raw)?, plan: Arc::clone(&plan.get().0) }))
        };
        Ok(Self(Arc::new(plan::Choices {
            tiers: tiers.into_iter().map(tier).collect::<PyResult<_>>()?,
            helpers: helpers.into_iter().map(tier).collect::<PyResult<_>>()?,
            asked: asked.map(tier).transpose()?,
            routes,
            escalates,
        })))
    }
}

fn target(py: Python<'_>, (upstream, name, url, headers, adaptation, limits): RawTarget) -> PyResult<plan::Target> {
    let Some(headers) = header_map(&headers) else {
        return Err(CoreError::new_err("a header that HTTP does not allow"));
    };
    let adaptation = Adaptation::from_json(&adaptation).map_err(|error| to_python(py, &error))?;
    let (connect, read, write, max_retries) = limits;
    let limits = Limits { connect: seconds(connect), read: seconds(read), write: seconds(write), max_retries };
    Ok(plan::Target {
        upstream: upstream.map(Into::into),
        name: name.into(),
        url: url.into(),
        headers: Arc::new(headers),
        adaptation: Arc::new(adaptation),
        limits: Some(limits),
    })
}
