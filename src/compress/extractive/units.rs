//! What of a text is kept or left out as a whole: sentences, lines, turns of a conversation, rows, blocks of code.
//!
//! A unit may have a head that is kept with it: a heading, the name of who speaks, the first row of a table. The spans of
//! the units are the whole text, each with the line ends behind it and the spaces before it, for so they are counted in
//! tokens. What a unit is worth is not asked here; JSON is split by `json.rs`.

use std::ops::Range;

use super::sentences;
use crate::compress::code::Fence;

/// A turn, an item or a line of a log that is longer is split into its sentences.
const LONG: usize = 240;
/// A sentence that is shorter is joined to the one behind it: leaving it out would not pay for the mark.
const SHORT: usize = 20;
const MOST_TITLE: usize = 90;
/// A line of prose that was broken to fit a page is at least so long.
const LEAST_WRAPPED: usize = 40;
/// Units beyond which small neighbours are one: to choose among hundreds of thousands takes longer than it gains.
const MANY: usize = 32_768;
/// Bytes that such neighbours have together.
const SMALL: usize = 80;
/// Levels of headings; a title without a sign of one is below them all.
const LEVELS: usize = 7;

struct Unit {
    end: usize,
    head: Option<u32>,
    is_head: bool,
    /// Nothing leads from the unit before to this one: a blank line, a heading.
    is_apart: bool,
}

#[derive(Default)]
pub struct Units(Vec<Unit>);

impl Units {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|unit| unit.end));
        starts.zip(&self.0).map(|(start, unit)| start..unit.end)
    }

    /// What has to be kept with a unit; it is always before it.
    pub fn head(&self, unit: usize) -> Option<usize> {
        self.0.get(unit).and_then(|unit| unit.head).map(|head| head as usize)
    }

    /// It says nothing without what it is the head of.
    pub fn is_head(&self, unit: usize) -> bool {
        self.0.get(unit).is_some_and(|unit| unit.is_head)
    }

    pub fn is_apart(&self, unit: usize) -> bool {
        self.0.get(unit).is_some_and(|unit| unit.is_apart)
    }

    /// Fewer units: small ones under the same head are one with the one before.
    fn joined(self) -> Self {
        let mut joined: Vec<Unit> = Vec::with_capacity(self.0.len() / 2);
        let mut places = Vec::with_capacity(self.0.len());
        let mut start = 0;
        for unit in self.0 {
            let head = unit.head.and_then(|head| places.get(head as usize).copied());
            match joined.last_mut() {
                Some(last)
                    if !(last.is_head || unit.is_head || unit.is_apart)
                        && last.head == head
                        && unit.end - start <= SMALL =>
                {
                    last.end = unit.end;
                }
                last => {
                    start = last.map_or(0, |last| last.end);
                    joined.push(Unit { head, ..unit });
                }
            }
            places.push(u32::try_from(joined.len() - 1).unwrap_or(u32::MAX));
        }
        Self(joined)
    }

    /// Of entries that have nothing to do with each other.
    pub fn apart(ends: impl Iterator<Item = usize>) -> Self {
        Self(ends.map(|end| Unit { end, head: None, is_head: false, is_apart: true }).collect())
    }
}

pub fn split(text: &str) -> Units {
    let mut splitter =
        Splitter { text, units: Units::default(), headings: [None; LEVELS], lines: Vec::new(), apart: true };
    let mut fence = Fence::default();
    let mut start = 0;
    while start < text.len() {
        let end = text.get(start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |length| start + length + 1);
        let line = text.get(start..end).unwrap_or_default();
        let was_open = fence.is_open();
        if !fence.takes(line) {
            splitter.line(start..end);
        } else if !was_open {
            splitter.paragraph();
        } else if !fence.is_open() {
            splitter.unit(end, splitter.section(), false);
        }
        start = end;
    }
    if fence.is_open() {
        splitter.unit(text.len(), splitter.section(), false);
    }
    splitter.paragraph();
    splitter.finish()
}

struct Splitter<'a> {
    text: &'a str,
    units: Units,
    headings: [Option<u32>; LEVELS],
    /// Of the paragraph that is being read.
    lines: Vec<Range<usize>>,
    apart: bool,
}

impl Splitter<'_> {
    fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// The heading that the next unit is under.
    fn section(&self) -> Option<u32> {
        self.headings.iter().rev().find_map(|heading| *heading)
    }

    fn unit(&mut self, end: usize, head: Option<u32>, is_head: bool) -> Option<u32> {
        let index = u32::try_from(self.units.len()).ok();
        self.units.0.push(Unit { end, head, is_head, is_apart: std::mem::take(&mut self.apart) });
        index
    }

    /// What is blank belongs to the unit before it.
    fn extend(&mut self, end: usize) {
        if let Some(last) = self.units.0.last_mut() {
            last.end = end;
        }
    }

    fn heading(&mut self, end: usize, level: usize) {
        for deeper in self.headings.iter_mut().skip(level) {
            *deeper = None;
        }
        self.apart = true;
        let above = self.section();
        let heading = self.unit(end, above, true);
        if let Some(place) = self.headings.get_mut(level) {
            *place = heading;
        }
    }

    fn line(&mut self, range: Range<usize>) {
        let line = self.part(&range).trim();
        if line.is_empty() {
            self.paragraph();
            self.apart = true;
            return self.extend(range.end);
        }
        let signs = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&signs) && line.as_bytes().get(signs) == Some(&b' ') {
            self.paragraph();
            return self.heading(range.end, signs - 1);
        }
        let underline =
            line.len() >= 3 && (line.bytes().all(|byte| byte == b'=') || line.bytes().all(|byte| byte == b'-'));
        if underline && self.lines.len() == 1 {
            let level = usize::from(line.starts_with('-'));
            self.lines.clear();
            return self.heading(range.end, level);
        }
        self.lines.push(range);
    }

    /// Splits the lines that were read since the last blank one.
    fn paragraph(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let mut rest = lines.as_slice();
        if let Some((first, after)) = rest.split_first()
            && self.is_title(first, after.first())
        {
            self.heading(first.end, LEVELS - 1);
            rest = after;
        }
        // An item may go on in lines of its own.
        while let Some((_, after)) = rest.split_first() {
            let is_listed = |line: &Range<usize>| is_item(self.part(line).trim_start());
            let end = after.iter().position(is_listed).map_or(rest.len(), |at| at + 1);
            let (group, behind) = rest.split_at(end);
            self.group(group);
            rest = behind;
        }
    }

    fn group(&mut self, rest: &[Range<usize>]) {
        if self.is_wrapped(rest) {
            if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
                let head = self.section();
                self.sentences(first.start..last.end, head);
            }
            return;
        }
        let mut table = None;
        for (index, line) in rest.iter().enumerate() {
            let is_row = is_row(self.part(line));
            if !is_row {
                table = None;
            } else if table.is_none() && rest.get(index + 1).is_some_and(|next| is_rule(self.part(next))) {
                let head = self.section();
                table = self.unit(line.end, head, true);
                continue;
            } else if is_rule(self.part(line)) && index > 0 {
                // Under a table's first row.
                self.extend(line.end);
                continue;
            }
            let head = table.or_else(|| self.section());
            if is_row { self.unit(line.end, head, false).map_or((), drop) } else { self.single(line.clone(), head) }
        }
    }

    /// A line that stands for itself.
    fn single(&mut self, line: Range<usize>, head: Option<u32>) {
        let text = self.part(&line);
        let trimmed = text.trim_start();
        let is_data = trimmed.starts_with(['{', '<', '}', ']']) || text.starts_with('\t') || text.starts_with("    ");
        if is_data || (text.len() <= LONG && (is_item(trimmed) || speaker(text).is_some())) {
            self.unit(line.end, head, false);
        } else if let Some(name) = speaker(text) {
            let behind = line.start + name;
            let name = self.unit(behind, head, true);
            self.sentences(behind..line.end, name.or(head));
        } else {
            self.sentences(line, head);
        }
    }

    fn sentences(&mut self, range: Range<usize>, head: Option<u32>) {
        let text = self.text.get(range.clone()).unwrap_or_default();
        let mut last = 0;
        let mut open = 0;
        sentences::ends(text, |end| {
            // The line ends behind it are its own.
            let behind = text.get(end..).unwrap_or_default();
            let blank = behind.len() - behind.trim_start().len();
            let end = behind.get(..blank).and_then(|blank| blank.rfind('\n')).map_or(end, |at| end + at + 1);
            open = end;
            if end - last >= SHORT {
                last = end;
                self.unit(range.start + end, head, false);
            }
        });
        if open > last {
            // The last is too short to stand alone, unless it is the only one.
            if last == 0 { self.unit(range.end, head, false).map_or((), drop) } else { self.extend(range.end) }
        } else {
            self.extend(range.end);
        }
    }

    fn is_title(&self, line: &Range<usize>, next: Option<&Range<usize>>) -> bool {
        let text = self.part(line).trim();
        text.len() <= MOST_TITLE
            && text.starts_with(char::is_alphanumeric)
            && text.ends_with(|letter: char| letter.is_alphanumeric() || matches!(letter, ')' | ']' | ':'))
            && !text.starts_with(char::is_lowercase)
            && !is_item(text)
            && !text.contains('|')
            && speaker(self.part(line)).is_none()
            && next.is_none_or(|next| {
                let next = self.part(next);
                next.len() >= 2 * text.len() && speaker(next).is_none() && !next.starts_with(char::is_lowercase)
            })
    }

    /// Lines that were broken to fit a page, where a line's end is a space.
    fn is_wrapped(&self, lines: &[Range<usize>]) -> bool {
        let mut goes_on = 0;
        for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
            let (line, next) = (self.part(line), self.part(next).trim_start());
            if line.len() < LEAST_WRAPPED || is_row(line) {
                return false;
            }
            goes_on += usize::from(
                next.starts_with(char::is_lowercase) && !line.trim_end().ends_with(['.', ':', '!', '?', ';', '}']),
            );
        }
        goes_on > 0 && goes_on * 3 >= lines.len() - 1
    }

    fn finish(mut self) -> Units {
        // A heading of nothing is a line like others.
        let mut has = vec![false; self.units.len()];
        for unit in &self.units.0 {
            if let Some(place) = unit.head.and_then(|head| has.get_mut(head as usize)) {
                *place = true;
            }
        }
        for (unit, has) in self.units.0.iter_mut().zip(has) {
            unit.is_head &= has;
        }
        // What is blank before the first.
        if let Some(last) = self.units.0.last_mut() {
            last.end = self.text.len();
        }
        if self.units.len() > MANY { self.units.joined() } else { self.units }
    }
}

fn is_row(line: &str) -> bool {
    line.trim_start().starts_with('|') || line.contains(" | ")
}

/// "|---|:--:|"
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.contains('|') && line.contains('-') && line.bytes().all(|byte| matches!(byte, b'|' | b'-' | b':' | b' '))
}

/// "- x", "* x", "3. x", "12) x", "[12:30:01] x", "2024-01-31 x"
fn is_item(line: &str) -> bool {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = line.get(digits..).unwrap_or_default();
    match digits {
        0 => ["- ", "* ", "+ ", "• ", "– ", "["].iter().any(|sign| line.starts_with(sign)),
        1..=4 => [". ", ") ", "-", "/", ":"].iter().any(|sign| rest.starts_with(sign)),
        _ => false,
    }
}

/// Behind the colon of a name that a line begins with.
fn speaker(line: &str) -> Option<usize> {
    let start = line.len() - line.trim_start().len();
    let window = line.get(..line.floor_char_boundary(start + 48)).unwrap_or_default();
    let colon = window.find([':', '：'])?;
    let behind = colon + window.get(colon..)?.chars().next()?.len_utf8();
    let name = window.get(start..colon)?;
    let is_name = !name.is_empty()
        && name.split(' ').count() <= 6
        && name.starts_with(|letter: char| letter.is_alphabetic() || matches!(letter, '[' | '*' | '('))
        && !name.contains(['?', '!', ';', '"', '/', '{', '<', '=']);
    let follows =
        line.get(behind..)?.chars().next().is_none_or(char::is_whitespace) || window.get(colon..)?.starts_with('：');
    (is_name && follows).then_some(behind)
}
