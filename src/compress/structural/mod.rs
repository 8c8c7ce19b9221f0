//! A text in fewer characters that says the same: no model is asked, nothing is chosen, nothing is put in other words.
//!
//! JSON loses blanks and repeated names, HTML its tags, text its empty space and what comes twice; code, quotations and
//! schemas stay byte by byte. Whatever cannot be told for certain is left alone: a text that is a little longer costs less
//! than one that says something else.

mod binary;
mod frames;
mod html;
mod inline;
mod json;
mod lines;
mod minify;
mod seen;
mod strings;
mod table;
mod text;

pub use seen::Seen;
pub use table::expand;

/// What is shortened by one round may leave more for another (lines that are equal without their blanks). Most texts need
/// one; the second finds nothing.
const MOST_ROUNDS: usize = 8;

/// Parts of the work that a user may not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Lists of equal JSON objects are written as tables.
    pub tables: bool,
    /// Base64 that no model reads is written as its size. The one part that loses something.
    pub binary: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { tables: true, binary: true }
    }
}

/// A shorter text that says the same; None: there is nothing to gain.
pub fn compress(text: &str) -> Option<String> {
    compress_with(text, Options::default())
}

pub fn compress_with(text: &str, options: Options) -> Option<String> {
    let read = html::read(text);
    let mut current = match read {
        // What it says would be taken for HTML itself, and lose what it shows.
        Some(read) if html::is_html(&read) => return None,
        Some(read) => round(&read, options).unwrap_or(read),
        None => round(text, options)?,
    };
    for _ in 1..MOST_ROUNDS {
        match round(&current, options) {
            Some(shorter) => current = shorter,
            None => break,
        }
    }
    // An empty text is refused by some providers.
    (current.len() < text.len() && !current.is_empty()).then_some(current)
}

fn round(text: &str, options: Options) -> Option<String> {
    let shorter = minify::minify(text, options).unwrap_or_else(|| text::shorten(text, options));
    (shorter.len() < text.len() && !shorter.is_empty()).then_some(shorter)
}
