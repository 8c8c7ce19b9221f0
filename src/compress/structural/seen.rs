//! Paragraphs that a conversation has already said. One conversation's texts, in their order; what is remembered has to
//! stay in the prompt, above the text that refers to it.
//!
//! Only word for word the same counts. Code, quotations and schemas are not referred to, they stay.

use std::collections::{HashMap, HashSet};

use super::lines::{Kind, is_program, kinds};
use super::minify::has_schema;

/// Characters of a paragraph that is worth a reference.
const LEAST: usize = 200;
/// Of the words that a reference names, in bytes.
const OPENING: usize = 48;

/// Paragraphs that earlier parts of one conversation have said. Later ones that say the same become a short reference.
/// Texts should be given as they are sent: compressed before, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    paragraphs: HashSet<Box<str>>,
    /// How many paragraphs begin so: with two of them a reference would not say which it means.
    openings: HashMap<Box<str>, usize>,
}

impl Seen {
    /// Remembers the paragraphs of a text, as it is sent.
    pub fn learn(&mut self, text: &str) {
        self.compress(text);
    }

    /// As [`Self::compress`], of a text that may still be sent otherwise: nothing of it is remembered.
    pub fn shorten(&self, text: &str) -> Option<String> {
        self.clone().compress(text)
    }

    /// The text with references for what stood in an earlier one, or further above; None: there is nothing of the kind.
    /// Either way its paragraphs are remembered.
    pub fn compress(&mut self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut copied = 0;
        for (start, end) in paragraphs(text) {
            let Some(paragraph) = text.get(start..end) else { continue };
            let opening = opening(paragraph);
            if !self.paragraphs.contains(paragraph) {
                self.paragraphs.insert(paragraph.into());
                *self.openings.entry(opening.into()).or_default() += 1;
            } else if self.openings.get(opening) == Some(&1) {
                out.push_str(text.get(copied..start).unwrap_or_default());
                out.push_str(&format!("[the same as above: \"{opening}…\"]"));
                copied = end;
            }
        }
        (copied > 0).then(|| out + text.get(copied..).unwrap_or_default())
    }
}

/// Where the paragraphs begin and end that may be referred to. JSON is one: a part of it would leave no JSON.
fn paragraphs(text: &str) -> Vec<(usize, usize)> {
    let trimmed = text.trim();
    if trimmed.len() < LEAST {
        return Vec::new();
    }
    match has_schema(text) {
        Some(true) => return Vec::new(),
        Some(false) => {
            let start = text.len() - text.trim_start().len();
            return vec![(start, start + trimmed.len())];
        }
        None => {}
    }
    let lines: Vec<&str> = text.split('\n').collect();
    if is_program(&lines) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (mut at, mut open, mut is_kept) = (0, None, false);
    let mut close = |open: &mut Option<(usize, usize)>, is_kept: &mut bool| {
        if let Some((start, end)) = open.take().filter(|(start, end)| !*is_kept && end - start >= LEAST) {
            found.push((start, end));
        }
        *is_kept = false;
    };
    for (line, kind) in lines.iter().zip(kinds(text, &lines)) {
        match kind {
            Kind::Blank => close(&mut open, &mut is_kept),
            Kind::Prose | Kind::Drawn => {
                let start = open.map_or(at, |(start, _)| start);
                open = Some((start, at + line.trim_end_matches('\r').len()));
            }
            Kind::Fenced | Kind::Quoted | Kind::Indented => {
                // An indented line within a paragraph may be a list's; a paragraph of code is left alone.
                is_kept = true;
                open = Some((open.map_or(at, |(start, _)| start), at + line.len()));
            }
        }
        at += line.len() + 1;
    }
    close(&mut open, &mut is_kept);
    found
}

/// Whole words of its first line; without blanks a part of them.
fn opening(paragraph: &str) -> &str {
    let line = paragraph.lines().next().unwrap_or_default();
    if line.len() <= OPENING {
        return line.trim();
    }
    let part = line.get(..line.floor_char_boundary(OPENING)).unwrap_or(line);
    part.rfind(' ').filter(|end| *end > OPENING / 3).and_then(|end| part.get(..end)).unwrap_or(part).trim()
}
