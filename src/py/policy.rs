//! What only the core can say of a policy's values: names of features and counts, and files that it wrote.

use pyo3::prelude::*;

use super::error::guarded;
use crate::route::learned::Weights;
use crate::route::rules::Rules;

/// What is wrong with the rules (JSON) for these tiers; None = nothing.
#[pyfunction]
pub fn check_rules(rules: &str, tiers: Vec<String>) -> PyResult<Option<String>> {
    guarded(|| {
        let read = serde_json::from_str(rules).map_err(|error| error.to_string());
        Ok(read.and_then(|rules| Rules::new(&rules, &tiers)).err())
    })
}

/// What is wrong with weights (JSON) for one model; None = nothing.
#[pyfunction]
pub fn check_weights(weights: &str) -> PyResult<Option<String>> {
    guarded(|| {
        Ok(match serde_json::from_str::<Weights>(weights) {
            Err(error) => Some(error.to_string()),
            Ok(weights) => (!weights.is_whole()).then(|| "weights are missing".to_owned()),
        })
    })
}
