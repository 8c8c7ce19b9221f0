//! What is left out of a text without asking a model, and what never is.

#[path = "structural/html.rs"]
mod html;
#[path = "structural/json.rs"]
mod json;
#[path = "structural/noise.rs"]
mod noise;
#[path = "structural/properties.rs"]
mod properties;
#[path = "structural/prose.rs"]
mod prose;
#[path = "structural/seen.rs"]
mod seen;

use farthing::compress::structural::{Options, compress, compress_with};

/// The text as it would be sent.
pub fn short(text: &str) -> String {
    compress(text).unwrap_or_else(|| text.to_owned())
}

pub fn without(text: &str, tables: bool, binary: bool) -> String {
    compress_with(text, Options { tables, binary, ..Options::default() }).unwrap_or_else(|| text.to_owned())
}

/// Letters as base64 has them.
pub fn letters(count: usize, seed: u64) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        letters[(state >> 58) as usize] as char
    };
    (0..count).map(|_| next()).collect()
}
