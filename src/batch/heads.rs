//! Where the items of a numbered text may begin.
//!
//! A head stands at the beginning of a line and outside of code fences: `1.`, `1)`, `1:`, `**1.**`, `### 1`, `Question 1:`,
//! `Input 1:`, `Answer 1:`. Which of them count is the business of `sequence.rs`.

use std::borrow::Cow;
use std::collections::HashMap;

/// What the further lines of an answer are indented by.
pub const INDENT: &str = "   ";

#[derive(Clone, Debug, PartialEq)]
pub struct Head<'a> {
    /// The line that it stands on.
    pub line: usize,
    pub number: usize,
    pub style: Style,
    /// What follows it on its line.
    pub rest: Cow<'a, str>,
}

const HEADING: u8 = 1;
const BOLD: u8 = 2;
const QUESTION: u8 = 4;
const ANSWER: u8 = 8;
const MOST_DIGITS: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Style {
    marks: u8,
    sign: Option<char>,
}

impl Style {
    /// Lists within answers are plain, as a rule.
    pub fn is_plain(self) -> bool {
        self.marks == 0
    }
}

/// The heads of a text.
pub fn find<'a>(lines: &[&'a str], is_cut: bool) -> Vec<Head<'a>> {
    let mut heads = Vec::new();
    // A sign whose fences nothing closes any more, from which length on: looked for once.
    let mut unclosed = HashMap::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let head = read(line, at);
        let fence = fence(head.as_ref().map_or(line.trim(), |head| head.rest.trim()));
        heads.extend(head);
        at = match fence {
            Some((sign, length)) if unclosed.get(&sign).is_none_or(|least| length < *least) => {
                let behind = behind_fence(lines, at, (sign, length), is_cut);
                if behind == at + 1 {
                    unclosed.insert(sign, length);
                }
                behind
            }
            _ => at + 1,
        };
    }
    heads
}

/// Whether a line has what may be the head of an item with one of these numbers, wherever in it.
pub fn has_head(line: &str, is_wanted: impl Fn(usize) -> bool) -> bool {
    let number = |word: &str| {
        let word = word.trim_matches(['*', '#', '(', '`']);
        word.strip_suffix(['.', ')', ':'])?.trim_matches('*').parse().ok()
    };
    read(line.trim_start(), 0).is_some_and(|head| is_wanted(head.number))
        || line.split_whitespace().filter_map(number).any(is_wanted)
}

/// The sign of a code fence and how many of them, if a line opens one.
fn fence(content: &str) -> Option<(char, usize)> {
    let sign = content.chars().next().filter(|sign| matches!(sign, '`' | '~'))?;
    let length = content.chars().take_while(|one| *one == sign).count();
    let info = content.get(length..)?;
    (length >= 3 && !info.contains(sign)).then_some((sign, length))
}

/// The line behind the fence that is opened on a line.
fn behind_fence(lines: &[&str], opened: usize, (sign, length): (char, usize), is_cut: bool) -> usize {
    let inside = || lines.iter().enumerate().skip(opened + 1);
    let closes = |line: &str| line.trim().len() >= length && line.trim().chars().all(|one| one == sign);
    let Some((_, first)) = inside().find(|(_, line)| !line.trim().is_empty()) else { return lines.len() };
    if is_indented(first) {
        // It ends with the item that it is in.
        for (at, line) in inside() {
            if !line.trim().is_empty() && !is_indented(line) {
                return if closes(line) { at + 1 } else { at };
            }
            if closes(line) {
                return at + 1;
            }
        }
        return lines.len();
    }
    match inside().find(|(_, line)| !is_indented(line) && closes(line)) {
        Some((at, _)) => at + 1,
        // The end of it was cut off; or else it was none.
        None if is_cut => lines.len(),
        None => opened + 1,
    }
}

pub fn is_indented(line: &str) -> bool {
    line.starts_with(INDENT) || line.starts_with('\t')
}

fn read(line: &str, at: usize) -> Option<Head<'_>> {
    let mut marks = 0;
    let mut text = line;
    let heading = text.trim_start_matches('#');
    if heading.len() < text.len() {
        text = heading.strip_prefix(' ')?.trim_start();
        marks |= HEADING;
    }
    if let Some(bold) = text.strip_prefix("**") {
        text = bold;
        marks |= BOLD;
    }
    for (word, mark) in [("question ", QUESTION), ("input ", QUESTION), ("answer ", ANSWER)] {
        if text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
            text = text.get(word.len()..)?.trim_start();
            marks |= mark;
            break;
        }
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > MOST_DIGITS {
        return None;
    }
    let (number, mut text) = text.split_at_checked(digits)?;
    let mut is_bold = marks & BOLD != 0;
    if let (true, Some(rest)) = (is_bold, text.strip_prefix("**")) {
        (text, is_bold) = (rest, false);
    }
    let sign = text.chars().next().filter(|sign| matches!(sign, '.' | ')' | ':'));
    if let Some(sign) = sign {
        text = text.strip_prefix(sign)?;
        if let (true, Some(rest)) = (is_bold, text.strip_prefix("**")) {
            (text, is_bold) = (rest, false);
        }
    }
    // "1.5" and "10:30" are none, and of those without a sign only a line of their own is one.
    let is_apart = text.is_empty() || text.starts_with(char::is_whitespace);
    let is_alone = marks & !BOLD != 0 && text.trim().is_empty();
    if !is_apart || (sign.is_none() && !is_alone) {
        return None;
    }
    let text = text.trim_start();
    let rest = match is_bold {
        false => Cow::Borrowed(text),
        // The whole line is bold.
        true if text.contains("**") => Cow::Owned(format!("**{text}")),
        true => return None,
    };
    Some(Head { line: at, number: number.parse().ok()?, style: Style { marks, sign }, rest })
}
