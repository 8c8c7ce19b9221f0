//! Whole entries of a text that is JSON, so that what is left is JSON too and each value is exact or not there.
//!
//! Only entries of one list or object are left out, the outermost with more than one large entry; nothing within an entry
//! is touched. Making JSON shorter without leaving out anything is not done here.

use std::ops::Range;

use super::choose::{self, Costs, Kept};
use super::units::Units;
use super::words::{self, Terms};
use super::{Extract, fits, score};

/// Lists in lists that are looked into for one with entries to leave out.
const MOST_LEVELS: usize = 16;
/// An entry whose name is asked for, beside the others' worth of up to 1.
const NAMED: f32 = 2.0;

/// The list or object whose entries are chosen from.
pub struct Container {
    is_object: bool,
    entries: Vec<Range<usize>>,
}

/// None: the text is not JSON, or no list and no object.
pub fn container(text: &str) -> Option<Container> {
    let start = text.len() - text.trim_start().len();
    let is_container = |at: usize| matches!(text.as_bytes().get(at), Some(b'{' | b'['));
    if !is_container(start) || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return None;
    }
    let mut found = Container { is_object: text.as_bytes().get(start) == Some(&b'{'), entries: entries(text, start) };
    for _ in 0..MOST_LEVELS {
        let largest = found.entries.iter().max_by_key(|entry| entry.len())?.clone();
        let sum: usize = found.entries.iter().map(ExactSizeIterator::len).sum();
        let value = if found.is_object { value_start(text, &largest) } else { largest.start };
        // A part of a row would be read by other columns, and of one record among others by nothing that says so.
        let is_one = found.is_object || found.entries.len() == 1;
        if largest.len() * 2 <= sum || !is_container(value) || !is_one {
            break;
        }
        let inner = Container { is_object: text.as_bytes().get(value) == Some(&b'{'), entries: entries(text, value) };
        if inner.entries.is_empty() {
            break;
        }
        found = inner;
    }
    // Of bare values, the place in the list is the name.
    let is_bare = |entry: &Range<usize>| !matches!(text.as_bytes().get(entry.start), Some(b'{' | b'[' | b'"'));
    if !found.is_object && found.entries.iter().all(is_bare) {
        return Some(Container { is_object: false, entries: Vec::new() });
    }
    Some(found)
}

pub fn extract(
    text: &str,
    container: &Container,
    question: &str,
    budget: u64,
    count: &dyn Fn(&str) -> u64,
) -> Option<Extract> {
    let entries = &container.entries;
    let (first, last) = (entries.first()?, entries.last()?);
    // What stands between two entries is the same between all, as far as a reader is concerned.
    let between = text.get(first.end..entries.get(1)?.start)?;
    let spans: Vec<Range<usize>> = entries
        .iter()
        .zip(entries.iter().skip(1).map(|next| next.start).chain([last.end]))
        .map(|(entry, end)| entry.start..end)
        .collect();
    let tokens: Vec<u64> = spans.iter().map(|span| count(text.get(span.clone()).unwrap_or_default())).collect();
    let frame = [text.get(..first.start)?, text.get(last.end..)?];
    let around: u64 = frame.iter().map(|part| count(part)).sum();
    if fits(text, &[tokens.as_slice(), &[around]].concat(), budget, count) {
        return None;
    }
    let units = Units::apart(spans.iter().map(|span| span.end));
    let terms = Terms::read(entries.iter().map(|entry| text.get(entry.clone()).unwrap_or_default()));
    let mut scores = score::score(&units, &terms, &tokens, question);
    if container.is_object {
        let mut asked = words::content(question);
        asked.sort_unstable();
        for (value, entry) in scores.values.iter_mut().zip(entries) {
            if is_named(text, entry, &asked) {
                *value += NAMED;
            }
        }
    }
    let mark = mark(container.is_object, entries.len());
    // One in an object, since the place of an entry says nothing there; in a list one for each gap.
    let (each, once) = if container.is_object { (0, count(&mark) + 1) } else { (count(&mark) + 1, 0) };
    let costs = Costs { tokens: &tokens, mark: each, base: around + once + each };
    let mut kept = choose::choose(&units, &terms, &scores, &costs, budget);
    loop {
        if kept.is_empty() {
            return None;
        }
        let extract = write(text, container, between, frame, &kept);
        let over = count(&extract.text).saturating_sub(budget);
        if over == 0 {
            return (extract.text.len() < text.len()).then_some(extract);
        }
        kept.shorten(&units, &tokens, over);
    }
}

fn mark(is_object: bool, count: usize) -> String {
    if is_object { format!("\"…\": \"{count} entries left out\"") } else { format!("\"… {count} left out\"") }
}

fn write(text: &str, container: &Container, between: &str, frame: [&str; 2], kept: &Kept) -> Extract {
    let [before, behind] = frame;
    let mut left_out: Vec<Range<usize>> = Vec::new();
    let mut parts: Vec<String> = Vec::new();
    let mut missing = 0;
    for (index, entry) in container.entries.iter().enumerate() {
        if kept.has(index) {
            if missing > 0 && !container.is_object {
                parts.push(mark(false, missing));
                missing = 0;
            }
            parts.push(text.get(entry.clone()).unwrap_or_default().to_owned());
            continue;
        }
        missing += 1;
        match left_out.last_mut() {
            Some(last) if index > 0 && !kept.has(index - 1) => last.end = entry.end,
            _ => left_out.push(entry.clone()),
        }
    }
    if missing > 0 {
        parts.push(mark(container.is_object, missing));
    }
    Extract { text: format!("{before}{}{behind}", parts.join(between)), left_out }
}

/// All words of the entry's name are in the question.
fn is_named(text: &str, entry: &Range<usize>, asked: &[words::Term]) -> bool {
    let name = text.get(entry.start..value_start(text, entry)).unwrap_or_default();
    let (mut all, mut found) = (0, 0);
    words::each(name, |term, _| {
        all += 1;
        found += usize::from(asked.binary_search(&term).is_ok());
    });
    all > 0 && all == found
}

/// The entries of the list or object that begins at `start`, without the commas. The text is known to be JSON.
fn entries(text: &str, start: usize) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut entries = Vec::new();
    let mut depth = 0_usize;
    let mut entry: Option<usize> = None;
    // Behind the last byte of the entry that is no blank.
    let mut end = start;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        let is_outer = depth == 1;
        match byte {
            b'}' | b']' if is_outer => {
                entries.extend(entry.map(|from| from..end));
                break;
            }
            b',' if is_outer => {
                entries.extend(entry.take().map(|from| from..end));
                at += 1;
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ => {}
        }
        if depth > 0 {
            entry.get_or_insert(at);
        }
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
        end = at;
    }
    entries
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Where the value of an object's entry begins.
fn value_start(text: &str, entry: &Range<usize>) -> usize {
    let bytes = text.as_bytes();
    let mut at = string_end(bytes, entry.start);
    while at < entry.end && bytes.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b':') {
        at += 1;
    }
    at
}
