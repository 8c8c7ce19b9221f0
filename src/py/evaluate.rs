//! Rows of outcomes in, measures out: nothing here sends anything.

use pyo3::prelude::*;

use super::error::{CoreError, guarded};
use super::state::without_gil;
use crate::evaluate::calibrate::{Costs, Draft, Target, calibrate};
use crate::evaluate::curve::Outcome;
use crate::evaluate::router::{Row, compare, learn};

/// Prompt, group, quality of the cheap and of the dear answer, cost of each.
type Question = (String, Option<String>, f64, f64, f64, f64);

/// Score, quality of the draft and of the dear answer, cost of draft, dear answer and scorer, whether it stands for the
/// traffic.
type Judged = (f64, f64, Option<f64>, Option<(f64, f64, f64)>, bool);

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
        let rows = rows(questions);
        let comparison = without_gil(py, || compare(&rows, &labels, rounds, seed));
        serde_json::to_string(&comparison).map_err(|error| CoreError::new_err(error.to_string()))
    })
}

fn rows(questions: Vec<Question>) -> Vec<Row> {
    let row = |(prompt, group, cheap, dear, cheap_cost, dear_cost)| Row {
        prompt,
        group,
        outcome: Outcome { cheap, dear, cheap_cost, dear_cost },
    };
    questions.into_iter().map(row).collect()
}

/// Weights of a router, and what they do on questions that they were not learned from: a JSON object.
#[pyfunction]
pub fn learn_router(py: Python<'_>, questions: Vec<Question>, rounds: usize, seed: u64) -> PyResult<String> {
    guarded(|| {
        let rows = rows(questions);
        let learned = without_gil(py, || learn(rows, rounds, seed));
        serde_json::to_string(&learned).map_err(|error| CoreError::new_err(error.to_string()))
    })
}

/// A map and a threshold of these drafts, and what they are worth: a JSON object.
#[pyfunction]
pub fn calibrate_drafts(
    py: Python<'_>,
    drafts: Vec<Judged>,
    max_loss: f64,
    confidence: f64,
    seed: u64,
) -> PyResult<String> {
    guarded(|| {
        let costs = |(draft, dear, scorer)| Costs { draft, dear, scorer };
        let draft = |(score, good, dear, paid, is_typical): Judged| Draft {
            score,
            good,
            dear,
            costs: paid.map(costs),
            is_typical,
        };
        let drafts: Vec<Draft> = drafts.into_iter().map(draft).collect();
        let found = without_gil(py, || calibrate(&drafts, Target { max_loss, confidence }, seed));
        serde_json::to_string(&found).map_err(|error| CoreError::new_err(error.to_string()))
    })
}
