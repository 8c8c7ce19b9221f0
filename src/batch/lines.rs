//! Answers as numbered items: `1. answer`, with further lines indented by three spaces.
//!
//! What is around an answer does not come through: spaces, tabs and blank lines before and after it. Everything within it
//! does. A text that keeps to the form is read without doubt, since nothing but heads stands at the beginning of its
//! lines; of others `heads.rs` says what may begin an item and `sequence.rs` what does.

use std::ops::Range;

use super::heads::{self, Head, INDENT, has_head, is_indented};
use super::sequence::{Span, choose};
use super::{Flaw, Shape};

/// How models take their leave, in lower case.
const REMARKS: [&str; 9] = [
    "let me know",
    "please let me know",
    "i hope this",
    "i hope these",
    "hope this",
    "hope these",
    "if you need",
    "if you have any",
    "feel free",
];

pub fn merge(answers: &[&str]) -> String {
    let mut text = String::new();
    for (number, answer) in (1..).zip(answers) {
        let mut lines = answer.trim().split('\n');
        text.push_str(&format!("{number}. {}\n", lines.next().unwrap_or_default()));
        for line in lines {
            if !line.is_empty() {
                text.push_str(INDENT);
                text.push_str(line);
            }
            text.push('\n');
        }
    }
    text
}

pub fn split(text: &str, is_cut: bool, count: usize, shape: &Shape) -> Vec<Result<String, Flaw>> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let mut found = heads::find(&lines, is_cut);
    if found.is_empty() && unfence(&mut lines) {
        found = heads::find(&lines, is_cut);
    }
    let spans = choose(&found, count);
    // Counted from 0, each would be its neighbour's.
    if found.first().is_some_and(|head| head.number == 0) && spans.last() == Some(&Err(Flaw::Missing)) {
        return vec![Err(Flaw::Double); count];
    }
    // One was left out, and the others may be numbered without it.
    let there = spans.iter().take_while(|span| **span != Err(Flaw::Missing)).count();
    let lacks_its_end = (1..count).contains(&there) && spans.iter().skip(there).all(|span| *span == Err(Flaw::Missing));
    if lacks_its_end && !is_cut {
        return spans.into_iter().map(|span| Err(span.err().unwrap_or(Flaw::Missing))).collect();
    }
    let numbered = Numbered { lines, heads: found };
    let missing = missing(&spans, &numbered.heads, is_cut);
    let is_tidy = |span: &Span| span.next.is_none() || numbered.is_tidy(numbered.further(span));
    let are_tidy = spans.len() > 1 && spans.iter().flatten().all(is_tidy);
    let item = |span: Result<Span, Flaw>| {
        let span = span?;
        if span.next.is_none() && is_cut {
            return Err(Flaw::CutOff);
        }
        let mut further = numbered.further(&span);
        if span.next.is_none() {
            further = numbered.without_remark(further, are_tidy)?;
        }
        if numbered.has_one_of(&missing, &span, further.clone())
            || (span.is_before_gap && !numbered.is_tidy(further.clone()))
        {
            return Err(Flaw::Double);
        }
        shape.admit(&numbered.answer(&span, further))
    };
    spans.into_iter().map(item).collect()
}

/// Takes away a code fence around the whole text.
fn unfence(lines: &mut Vec<&str>) -> bool {
    let is_blank = |line: &&str| line.trim().is_empty();
    let first = lines.iter().position(|line| !is_blank(line));
    let last = lines.iter().rposition(|line| !is_blank(line));
    let (Some(first), Some(last)) = (first, last) else { return false };
    let is_fence = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("```"));
    if first == last || !is_fence(first) || !is_fence(last) {
        return false;
    }
    lines.truncate(last);
    lines.drain(..=first);
    true
}

/// Of each number, whether it has no item and may be in another one. Empty: there is none.
fn missing(spans: &[Result<Span, Flaw>], heads: &[Head], is_cut: bool) -> Vec<bool> {
    // Behind the cut they are missing anyway.
    let most = if is_cut { heads.iter().map(|head| head.number).max().unwrap_or(0) } else { spans.len() };
    let missing: Vec<bool> =
        spans.iter().zip(1..).map(|(span, number)| number <= most && *span == Err(Flaw::Missing)).collect();
    if missing.contains(&true) { missing } else { Vec::new() }
}

struct Numbered<'a> {
    lines: Vec<&'a str>,
    heads: Vec<Head<'a>>,
}

impl Numbered<'_> {
    fn line_of(&self, head: usize) -> usize {
        self.heads.get(head).map_or(self.lines.len(), |head| head.line)
    }

    /// The lines of an item behind its first.
    fn further(&self, span: &Span) -> Range<usize> {
        let end = span.next.map_or(self.lines.len(), |next| self.line_of(next));
        (self.line_of(span.head) + 1).min(end)..end
    }

    fn within(&self, lines: Range<usize>) -> &[&str] {
        self.lines.get(lines).unwrap_or_default()
    }

    fn has_one_of(&self, missing: &[bool], span: &Span, further: Range<usize>) -> bool {
        if missing.is_empty() {
            return false;
        }
        let is_missing = |number: usize| number.checked_sub(1).and_then(|index| missing.get(index)) == Some(&true);
        let first = self.heads.get(span.head).map_or("", |head| &head.rest);
        [first].iter().chain(self.within(further)).any(|line| has_head(line, is_missing))
    }

    fn is_tidy(&self, lines: Range<usize>) -> bool {
        self.within(lines).iter().all(|line| line.trim().is_empty() || is_rule(line) || is_indented(line))
    }

    /// Of the last item, what is not the model's leave. `are_tidy`: the others keep to the form, so that text behind a blank
    /// line that does not is no part of this one, or the model forgot itself.
    fn without_remark(&self, further: Range<usize>, are_tidy: bool) -> Result<Range<usize>, Flaw> {
        let is_blank = |at: usize| self.lines.get(at).is_some_and(|line| line.trim().is_empty() || is_rule(line));
        let is_out = |at: &usize| {
            let line = self.lines.get(*at).copied().unwrap_or_default();
            !line.trim().is_empty() && !is_rule(line) && !is_indented(line)
        };
        let Some(out) = further.clone().find(is_out) else { return Ok(further) };
        let is_apart = out > further.start && is_blank(out - 1);
        if !are_tidy || (!is_apart && !self.is_remark(out)) {
            return Ok(further);
        }
        // "Dear all," goes on.
        let before = self.lines.get(..out).unwrap_or_default().iter().rfind(|line| !line.trim().is_empty());
        let goes_on = before.is_none_or(|line| line.trim_end().ends_with([',', ':']));
        if self.is_remark(out) && !goes_on { Ok(further.start..out) } else { Err(Flaw::Double) }
    }

    fn is_remark(&self, at: usize) -> bool {
        let line = self.lines.get(at).copied().unwrap_or_default().to_lowercase();
        REMARKS.iter().any(|remark| line.starts_with(remark))
    }

    fn answer(&self, span: &Span, further: Range<usize>) -> String {
        let is_tidy = self.is_tidy(further.clone());
        let lines = self.within(further);
        let kept = lines.iter().rposition(|line| !line.trim().is_empty() && !is_rule(line)).map_or(0, |last| last + 1);
        let first = self.heads.get(span.head).map_or("", |head| &head.rest);
        let further =
            lines.iter().take(kept).map(|line| match line.strip_prefix(INDENT).or_else(|| line.strip_prefix('\t')) {
                Some(inner) if is_tidy => inner,
                _ => line,
            });
        [first].into_iter().chain(further).collect::<Vec<_>>().join("\n")
    }
}

/// A line between items.
fn is_rule(line: &str) -> bool {
    matches!(line.trim_end(), "---" | "***" | "___")
}
