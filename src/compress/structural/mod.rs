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
mod verbatim;

pub use lines::is_program;
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
    /// Base64 that no model reads is written as its size. It loses something, as [`Self::pages`] does.
    pub binary: bool,
    /// HTML becomes the text that it shows.
    pub pages: bool,
    /// It is something to read, as the result of a tool is. Where it is somebody's own words, to be heeded or imitated, nothing
    /// goes but blanks at the ends of lines and empty lines.
    pub data: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { tables: true, binary: true, pages: true, data: true }
    }
}

impl Options {
    /// For what tells a model what to do, or how to write.
    pub const WORDS: Self = Self { tables: false, binary: false, pages: false, data: false };
}

/// Whether the shorter text shows less than the longer one had: the source of a page, a file in base64, frames of libraries.
pub fn shows_less(text: &str, shorter: &str) -> bool {
    const MARKS: [&str; 2] = ["base64, ", " frames of libraries]"];
    let more = |mark: &str| shorter.matches(mark).count() > text.matches(mark).count();
    MARKS.iter().any(|mark| more(mark)) || (text.contains('<') && html::read(text).is_some())
}

/// A shorter text that says the same; None: there is nothing to gain.
pub fn compress(text: &str) -> Option<String> {
    compress_with(text, Options::default())
}

pub fn compress_with(text: &str, options: Options) -> Option<String> {
    let read = if options.pages { html::read(text) } else { None };
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
    let json = if options.data { minify::minify(text, options) } else { None };
    let shorter = json.unwrap_or_else(|| text::shorten(text, options));
    (shorter.len() < text.len() && !shorter.is_empty()).then_some(shorter)
}
