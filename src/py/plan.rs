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

/// A plan; the same for all calls to a place.
#[pyclass(frozen)]
pub struct Plan(pub Arc<plan::Plan>);

#[pymethods]
impl Plan {
    #[new]
    fn new(
        py: Python<'_>,
        upstream: Option<String>,
        fallbacks: Vec<RawTarget>,
        substitutes: Vec<RawTarget>,
        absent: Vec<String>,
    ) -> PyResult<Self> {
        let target = |(upstream, name, url, headers, adaptation, limits): RawTarget| {
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
        };
        let fallbacks = fallbacks.into_iter().map(target).collect::<PyResult<_>>()?;
        let substitutes = substitutes.into_iter().map(target).collect::<PyResult<_>>()?;
        let absent = absent.into_iter().map(Into::into).collect();
        Ok(Self(Arc::new(plan::Plan { upstream: upstream.map(Into::into), fallbacks, substitutes, absent })))
    }
}
