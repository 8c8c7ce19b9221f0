//! Counting tokens, for Python: without the GIL, as a vocabulary may have to be unpacked first.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::Value;

use super::error::guarded;
use super::state::without_gil;
use crate::tokens::{TokenCount, Vocabulary, chat_tokens};

/// Tokens of a text, and whether they are an estimate.
#[pyfunction]
pub fn count_text(py: Python<'_>, model: &str, text: &str) -> PyResult<(u64, bool)> {
    guarded(|| {
        Ok(without_gil(py, || {
            let known = Vocabulary::of_model(model);
            let count = known.unwrap_or(Vocabulary::O200k).count(text);
            (count.tokens, count.estimated || known.is_none())
        }))
    })
}

/// Tokens of messages and tools, given as JSON, and whether they are an estimate.
#[pyfunction]
#[pyo3(signature = (model, messages, tools))]
pub fn count_chat(py: Python<'_>, model: &str, messages: &[u8], tools: Option<&[u8]>) -> PyResult<(u64, bool)> {
    guarded(|| {
        let counted = without_gil(py, || {
            let read = |json: &[u8]| serde_json::from_slice::<Value>(json).map_err(|error| error.to_string());
            let tools = tools.map(read).transpose()?;
            let TokenCount { tokens, estimated } = chat_tokens(model, &read(messages)?, tools.as_ref());
            Ok((tokens, estimated))
        });
        counted.map_err(|error: String| PyValueError::new_err(error))
    })
}
