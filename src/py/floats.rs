//! Embeddings as lists of floats: what the SDK makes of an answer whose vectors came as base64.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::guarded;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
}

type Unpacked<'py> = (Bound<'py, PyBytes>, Vec<Option<Bound<'py, PyList>>>);

/// The JSON with an empty list for each packed vector, and the vectors in their order (None: not packed). None: not
/// such an answer, or not one that can be unpacked.
#[pyfunction]
pub fn unpack_embeddings<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Option<Unpacked<'py>>> {
    guarded(|| {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else { return Ok(None) };
        let mut frame: Vec<u8> = Vec::with_capacity(answer.data.len() * 64 + 256);
        let mut vectors = Vec::with_capacity(answer.data.len());
        let mut copied = 0;
        for item in &answer.data {
            let raw = item.embedding.get();
            if !raw.starts_with('"') {
                vectors.push(None);
                continue;
            }
            let Some(floats) = unpack(raw) else { return Ok(None) };
            vectors.push(Some(PyList::new(py, floats)?));
            // RawValue borrows from the body, so where it stands is its distance from the beginning.
            let start = raw.as_ptr() as usize - body.as_ptr() as usize;
            frame.extend_from_slice(&body[copied..start]);
            frame.extend_from_slice(b"[]");
            copied = start + raw.len();
        }
        frame.extend_from_slice(&body[copied..]);
        Ok(Some((PyBytes::new(py, &frame), vectors)))
    })
}

/// Little-endian 32-bit floats; None for what is not whole numbers of them.
fn unpack(raw: &str) -> Option<Vec<f64>> {
    let text = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Some encoders write "/" as "\/".
    let text = if text.contains('\\') { Cow::Owned(serde_json::from_str(raw).ok()?) } else { Cow::Borrowed(text) };
    let bytes = STANDARD.decode(text.as_bytes()).ok()?;
    let (floats, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| floats.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
}
