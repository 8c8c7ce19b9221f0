//! A call's receipt as Python sees it: a live view; `receipts.py` makes the user's snapshot of it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::ledger::Money;
use crate::receipt::{Attempt, Compressed, Packed, Receipt, Routed, Rung};

/// Hangs on responses. Copies of a response share it; a pickled one carries a snapshot.
#[pyclass(frozen)]
#[derive(Clone)]
pub struct ReceiptCell(pub Arc<Receipt>);

#[pymethods]
impl ReceiptCell {
    /// The facts so far, with money as decimal text.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = self.0.facts();
        let dict = PyDict::new(py);
        dict.set_item("outcome", facts.outcome.map(|outcome| outcome.name()))?;
        dict.set_item("model_asked", &*facts.model_asked)?;
        dict.set_item("model_answered", facts.model_answered.as_deref())?;
        dict.set_item("tag", facts.tag.as_deref())?;
        let usage = facts.usage.clone().unwrap_or_default();
        dict.set_item("prompt_tokens", usage.prompt)?;
        dict.set_item("completion_tokens", usage.completion)?;
        dict.set_item("cached_tokens", usage.cached)?;
        dict.set_item("estimated", usage.estimated)?;
        dict.set_item("cost", facts.total().map(|money| money.to_string()))?;
        dict.set_item("saved", facts.net_saved().map(|money| money.to_string()))?;
        let attempts = facts.attempts.iter().map(|attempt| one(py, attempt)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item("attempts", attempts)?;
        dict.set_item("notes", facts.notes.iter().map(AsRef::as_ref).collect::<Vec<&str>>())?;
        dict.set_item("age", facts.age.map(|age| age.as_secs_f64()))?;
        let stages: Vec<(&str, f64)> = facts.stages.iter().map(|(name, time)| (*name, time.as_secs_f64())).collect();
        dict.set_item("stages", stages)?;
        let decisions = facts.decisions.as_deref();
        let route = decisions.and_then(|all| all.route.as_ref()).map(|route| routed(py, route)).transpose()?;
        dict.set_item("route", route)?;
        let rungs = decisions.map(|all| all.rungs.iter().map(|one| rung(py, one)).collect::<PyResult<Vec<_>>>());
        dict.set_item("rungs", rungs.transpose()?.unwrap_or_default())?;
        dict.set_item("pack", decisions.and_then(|all| all.pack.as_ref()).map(|pack| packed(py, pack)).transpose()?)?;
        let compress = decisions.and_then(|all| all.compress.as_ref());
        dict.set_item("compress", compress.map(|made| compressed(py, made)).transpose()?)?;
        let overhead = match decisions {
            Some(all) if all.has_unknown => None,
            Some(all) => Some(all.overhead),
            None => Some(Money::ZERO),
        };
        dict.set_item("overhead", overhead.map(|money| money.to_string()))?;
        dict.set_item("complete", facts.complete)?;
        Ok(dict)
    }

    /// How many requests went to upstreams for this call, retries included.
    #[getter]
    fn attempts(&self) -> usize {
        self.0.read(|facts| facts.attempts.len())
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: Py<PyAny>) -> Py<Self> {
        slf
    }

    /// A plain dict on the other side, where farthing may not be.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyDict>,))> {
        Ok((py.get_type::<PyDict>(), (self.facts(py)?,)))
    }
}

fn routed<'py>(py: Python<'py>, route: &Routed) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("tier", &*route.tier)?;
    dict.set_item("model", &*route.model)?;
    dict.set_item("by", route.by)?;
    dict.set_item("confidence", route.confidence)?;
    dict.set_item("reasons", route.reasons.iter().map(AsRef::as_ref).collect::<Vec<&str>>())?;
    dict.set_item("features", route.features.as_deref())?;
    Ok(dict)
}

fn rung<'py>(py: Python<'py>, rung: &Rung) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("model", &*rung.model)?;
    dict.set_item("score", rung.score)?;
    let scores = PyDict::new(py);
    for (name, score) in &rung.scores {
        scores.set_item(&**name, score)?;
    }
    dict.set_item("scores", scores)?;
    dict.set_item("accepted", rung.accepted)?;
    dict.set_item("reasons", rung.reasons.iter().map(AsRef::as_ref).collect::<Vec<&str>>())?;
    dict.set_item("cost", rung.cost.map(|money| money.to_string()))?;
    Ok(dict)
}

fn packed<'py>(py: Python<'py>, pack: &Packed) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("items", pack.items)?;
    dict.set_item("place", pack.place)?;
    dict.set_item("saved_tokens", pack.saved_tokens)?;
    dict.set_item("overhead_tokens", pack.overhead_tokens)?;
    Ok(dict)
}

fn compressed<'py>(py: Python<'py>, made: &Compressed) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let steps: Vec<_> = made.steps.iter().map(|step| (step.part, step.method, step.before, step.after)).collect();
    dict.set_item("steps", steps)?;
    dict.set_item("saved_tokens", made.tokens)?;
    dict.set_item("saved", made.saved.map(|money| money.to_string()))?;
    dict.set_item("reordered_tokens", made.reordered)?;
    Ok(dict)
}

fn one<'py>(py: Python<'py>, attempt: &Attempt) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("upstream", &*attempt.upstream)?;
    dict.set_item("model", &*attempt.model)?;
    dict.set_item("ending", attempt.ending.name())?;
    dict.set_item("status", attempt.status)?;
    dict.set_item("error", attempt.error)?;
    dict.set_item("seconds", attempt.time.as_secs_f64())?;
    dict.set_item("prompt_tokens", attempt.prompt_tokens)?;
    dict.set_item("completion_tokens", attempt.completion_tokens)?;
    dict.set_item("cost", attempt.cost.map(|money| money.to_string()))?;
    dict.set_item("stage", attempt.stage)?;
    Ok(dict)
}
