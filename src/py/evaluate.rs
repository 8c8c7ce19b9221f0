//! Rows of outcomes in, measures out: nothing here sends anything.

use pyo3::prelude::*;

use super::error::{CoreError, guarded};
use super::state::without_gil;
use crate::evaluate::curve::Outcome;
use crate::evaluate::router::{Row, compare};

/// Prompt, group, quality of the cheap and of the dear answer, cost of each.
type Question = (String, Option<String>, f64, f64, f64, f64);

/// Routers beside each other on these questions: a JSON object.
#[pyfunction]
pub fn compare_routers(
    py: Python<'_>,
    questions: Vec<Question>,
    labels: Vec<usize>,
    rounds: usize,
    seed: u64,
) -> PyResult<String> {
    guarded(|| {
        let row = |(prompt, group, cheap, dear, cheap_cost, dear_cost)| Row {
            prompt,
            group,
            outcome: Outcome { cheap, dear, cheap_cost, dear_cost },
        };
        let rows: Vec<Row> = questions.into_iter().map(row).collect();
        let comparison = without_gil(py, || compare(&rows, &labels, rounds, seed));
        serde_json::to_string(&comparison).map_err(|error| CoreError::new_err(error.to_string()))
    })
}
