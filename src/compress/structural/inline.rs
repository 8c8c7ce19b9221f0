//! One line of prose: blanks, characters without width, long rules. Code between backticks and what is quoted stay.

use crate::compress::code::code_end;

/// Of one punctuation character; more are written as [`RULE`].
const MOST_RULE: usize = 20;
const RULE: usize = 10;
const RULES: &str = "-=_.";
/// Bytes that are written otherwise, or begin a character that is.
const IS_LOOKED_AT: [bool; 256] = {
    let mut looked_at = [false; 256];
    let bytes = b"` -=_.\xC2\xE2\xEF";
    let mut at = 0;
    while at < bytes.len() {
        looked_at[bytes[at] as usize] = true;
        at += 1;
    }
    looked_at
};
/// Invisible, and without a meaning between letters of Latin scripts. Elsewhere U+200B parts words; the joiners U+200C and
/// U+200D are spelling, and parts of emoji.
pub const INVISIBLE: [char; 4] = ['\u{200B}', '\u{2060}', '\u{FEFF}', '\u{AD}'];

/// What a paragraph's lines before this one say about it: whether something quoted goes on.
#[derive(Default)]
pub struct Quote {
    pub is_open: bool,
}

/// Quotation marks. Their number tells whether a quote goes on in the next line; which of them open and which close, the
/// languages do not agree on.
fn is_mark(character: char) -> bool {
    matches!(character, '"' | '“' | '”' | '„' | '«' | '»')
}

pub fn has_mark(line: &str) -> bool {
    line.bytes().any(|byte| matches!(byte, b'"' | 0xC2 | 0xE2)) && line.contains(is_mark)
}

impl Quote {
    /// From the first mark to the last: which part of the line stays as it is. What an inch sign opens costs a gain.
    fn range(&mut self, line: &str) -> (usize, usize) {
        let was_open = std::mem::take(&mut self.is_open);
        if !has_mark(line) {
            self.is_open = was_open;
            return if was_open { (0, line.len()) } else { (0, 0) };
        }
        let mut marks = line.char_indices().filter(|(_, character)| is_mark(*character));
        let first = marks.next().map_or(0, |(at, _)| at);
        let (last, count) = marks.fold((first, 1_usize), |(_, count), (at, _)| (at, count + 1));
        self.is_open = was_open != (count % 2 == 1);
        let behind = line.get(last..).and_then(|rest| rest.chars().next()).map_or(last, |mark| last + mark.len_utf8());
        (if was_open { 0 } else { first }, if self.is_open { line.len() } else { behind })
    }
}

/// How many gaps there are in it as between the columns of a table that is drawn with blanks; a wide one counts for two. Two
/// blanks behind a sentence are none.
pub fn columns(line: &str) -> usize {
    let bytes = line.trim().as_bytes();
    let (mut at, mut count) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(2).position(|pair| pair == b"  ")) {
        let start = at + found;
        let end = start + bytes.iter().skip(start).take_while(|byte| **byte == b' ').count();
        let before = start.checked_sub(1).and_then(|before| bytes.get(before));
        count += match end - start {
            2 if before.is_some_and(|byte| b".?!:".contains(byte)) => 0,
            2 => 1,
            _ => 2,
        };
        at = end;
    }
    count
}

/// Whether a line is made of words alone: between the signs of code, data and markup, blanks may count.
fn is_plain(line: &str) -> bool {
    let bytes = line.as_bytes();
    let is_within_word = |at: usize| {
        let is_letter = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
        is_letter(at.checked_sub(1)) && is_letter(Some(at + 1))
    };
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'\'' => is_within_word(at),
        b'=' | b'{' | b'}' | b'[' | b']' | b'<' | b'>' | b'|' | b';' | b'\\' | b'$' | b'%' | b'&' | b'@' | b'^' => {
            false
        }
        _ => true,
    })
}

/// Writes the line. `is_drawn`: its blanks and rules are part of a drawing.
pub fn write(line: &str, quote: &mut Quote, is_drawn: bool, out: &mut String) {
    let (kept, kept_end) = quote.range(line);
    let is_plain = is_plain(line);
    let end = kept_end.max(trimmed(line));
    let line = line.get(..end).unwrap_or(line);
    let bytes = line.as_bytes();
    let mut at = line.len() - line.trim_start_matches([' ', '\t', '\u{A0}']).len();
    let mut copied = 0;
    while let Some(byte) = bytes.get(at) {
        if at >= kept && at < kept_end {
            at = kept_end;
            continue;
        }
        if !IS_LOOKED_AT[usize::from(*byte)] {
            at += 1;
            continue;
        }
        let (length, written) = match byte {
            b'`' => {
                at = code_end(bytes, at);
                continue;
            }
            b' ' => blanks(line, at, is_drawn || !is_plain),
            0xC2 if bytes.get(at + 1) == Some(&0xA0) => blanks(line, at, is_drawn || !is_plain),
            0xC2 | 0xE2 | 0xEF => invisible(line, at),
            byte if RULES.as_bytes().contains(byte) => {
                let length = bytes.iter().skip(at).take_while(|other| *other == byte).count();
                // Dots lead to a number; of others a part of a line may be a bar.
                let is_alone = *byte == b'.' || length == line.trim_start().len();
                (
                    length,
                    (length > MOST_RULE && is_alone && !is_drawn).then(|| line.get(at..at + RULE).unwrap_or_default()),
                )
            }
            _ => (1, None),
        };
        if let Some(written) = written {
            out.push_str(line.get(copied..at).unwrap_or_default());
            out.push_str(written);
            copied = at + length;
        }
        at += length;
    }
    out.push_str(line.get(copied..).unwrap_or_default());
}

/// Where its blanks at the end begin. Not tabs: the last cells may be empty.
fn trimmed(line: &str) -> usize {
    line.trim_end_matches([' ', '\r', '\u{A0}']).len()
}

/// How many bytes of blanks begin here, and what is written for them. Tabs part cells, and stay.
fn blanks(line: &str, start: usize, is_drawn: bool) -> (usize, Option<&'static str>) {
    if is_drawn {
        return if line.as_bytes().get(start) == Some(&b' ') { (1, None) } else { (2, Some(" ")) };
    }
    let rest = line.get(start..).unwrap_or_default();
    let length = rest.len() - rest.trim_start_matches([' ', '\u{A0}']).len();
    (length, (length > 1).then_some(" "))
}

fn invisible(line: &str, start: usize) -> (usize, Option<&'static str>) {
    let rest = line.get(start..).unwrap_or_default();
    let Some(character) = rest.chars().next() else { return (1, None) };
    let length = character.len_utf8();
    if matches!(character, '─' | '━' | '═' | '—') {
        let run = rest.len() - rest.trim_start_matches(character).len();
        let written = match character {
            _ if run <= MOST_RULE * length => None,
            '─' => Some("──────────"),
            '━' => Some("━━━━━━━━━━"),
            '═' => Some("══════════"),
            _ => Some("——————————"),
        };
        return (run, written);
    }
    if !INVISIBLE.contains(&character) {
        return (length, None);
    }
    let is_latin = |character: Option<char>| character.is_none_or(|character| character < '\u{250}');
    let before = line.get(..start).and_then(|before| before.chars().next_back());
    let is_between = is_latin(before) && is_latin(rest.chars().nth(1));
    (length, is_between.then_some(""))
}
