//! Ordinary text: blank lines and blanks that say nothing, lines that come again at once, long stack traces, base64.
//!
//! Fenced and indented code, inline code, quotations and programs without a fence stay as they are, but for base64, which
//! only a fence keeps. A quotation that goes
//! on in another paragraph is not seen as one there. Two blanks at a line's end, which Markdown reads as a line break, go:
//! the line still ends there. Tabs within a line stay: they part cells, also empty ones.

use super::inline::{Quote, has_mark, write};
use super::lines::{Kind, is_program, kinds};
use super::{Options, binary, frames};

/// A shorter line that comes again is rather one of a list or a program than of a log.
const LEAST_REPEATED: usize = 16;

pub fn shorten(text: &str, options: Options) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    if is_program(&lines) {
        return text.to_owned();
    }
    let kinds = kinds(text, &lines);
    let mut writer = Writer { out: String::with_capacity(text.len()), last: None, blanks: 0, quote: Quote::default() };
    let mut at = 0;
    // Lines before this one are known to be no base64.
    let mut looked_at = 0;
    // The line behind a stack trace is the message.
    let mut is_message = false;
    while let (Some(line), Some(kind)) = (lines.get(at), kinds.get(at)) {
        let rest = lines.get(at..).unwrap_or_default();
        if *kind == Kind::Blank {
            writer.blanks += 1;
            is_message = false;
            at += 1;
            continue;
        }
        if *kind == Kind::Fenced {
            writer.exact(line, *kind, &lines, at);
            at += 1;
            continue;
        }
        if !options.data {
            let trimmed = if *kind == Kind::Prose { line.trim_end_matches([' ', '\r']) } else { line };
            writer.exact(trimmed, *kind, &lines, at);
            at += 1;
            continue;
        }
        if let Some(run) = frames::run(rest) {
            writer.frames(rest, &run, &lines, at);
            at += run.lines;
            is_message = true;
            continue;
        }
        if options.binary && *kind == Kind::Prose && at >= looked_at {
            let before = at.checked_sub(1).and_then(|before| lines.get(before)).copied();
            let (count, mark) = binary::block(rest, before);
            looked_at = at + count;
            if let Some(mark) = mark {
                writer.exact(&mark, *kind, &lines, at);
                at = looked_at;
                continue;
            }
        }
        let is_message_here = std::mem::take(&mut is_message) || frames::begins(rest.get(1..).unwrap_or_default());
        match kind {
            Kind::Prose | Kind::Drawn if !is_message_here => {
                let count = writer.repeats(rest, *kind);
                writer.prose(line, *kind, count, options, &lines, at);
                at += count;
            }
            _ => {
                writer.exact(line, *kind, &lines, at);
                at += 1;
            }
        }
    }
    if writer.blanks > 0 && !writer.out.is_empty() && text.ends_with('\n') {
        writer.out.push('\n');
    }
    writer.out
}

struct Writer {
    out: String,
    last: Option<Kind>,
    /// Blank lines that are not yet written.
    blanks: usize,
    quote: Quote,
}

impl Writer {
    /// The line's beginning: blank lines within code stay, of others one is enough.
    fn begin(&mut self, kind: Kind, lines: &[&str], at: usize) {
        let blanks = std::mem::take(&mut self.blanks);
        if blanks > 0 {
            self.quote = Quote::default();
        }
        let Some(last) = self.last.replace(kind) else { return };
        self.out.push('\n');
        if last == Kind::Indented && kind == Kind::Indented {
            for blank in lines.get(at - blanks..at).unwrap_or_default() {
                self.out.push_str(blank);
                self.out.push('\n');
            }
        } else if blanks > 0 {
            self.out.push('\n');
        }
    }

    fn exact(&mut self, line: &str, kind: Kind, lines: &[&str], at: usize) {
        self.begin(kind, lines, at);
        self.out.push_str(line);
    }

    /// How many times the line stands here, if it is worth saying so.
    fn repeats(&self, rest: &[&str], kind: Kind) -> usize {
        let Some(line) = rest.first().filter(|line| line.len() >= LEAST_REPEATED && line.contains(' ')) else {
            return 1;
        };
        // A quotation would begin or end with each of them; a row of a table is read by machines, an item of a list is an item
        // more, and a statement is made as often as it stands there.
        let is_code = !is_log(line) && (line.contains(['=', '(', ';', '{', '\t']) || is_row(line));
        if kind != Kind::Prose || is_code || self.quote.is_open && self.blanks == 0 || has_mark(line) && is_odd(line) {
            return 1;
        }
        rest.iter().take_while(|other| *other == line).count()
    }

    fn prose(&mut self, line: &str, kind: Kind, count: usize, options: Options, lines: &[&str], at: usize) {
        self.begin(kind, lines, at);
        let without = if options.binary { binary::without_runs(line) } else { None };
        write(without.as_deref().unwrap_or(line), &mut self.quote, kind == Kind::Drawn, &mut self.out);
        if count > 1 {
            self.out.push_str(&format!(" [×{count}]"));
        }
    }

    fn frames(&mut self, rest: &[&str], run: &frames::Run, lines: &[&str], at: usize) {
        let write = |from: usize, to: usize, writer: &mut Self| {
            for line in rest.get(from..to).unwrap_or_default() {
                writer.exact(line, Kind::Indented, lines, at);
            }
        };
        match run.middle {
            Some((head, tail, count)) => {
                write(0, head, self);
                self.exact(&format!("[… {count} frames of libraries]"), Kind::Indented, lines, at);
                write(run.lines - tail, run.lines, self);
            }
            None => write(0, run.lines, self),
        }
    }
}

/// Of a list, or between commas.
fn is_row(line: &str) -> bool {
    let line = line.trim();
    line.matches(',').nth(1).is_some()
        || line.split(',').skip(1).any(|behind| !behind.starts_with(' '))
        || line.starts_with(['-', '*', '+', '•', '"', '\'', '[', '<'])
}

/// Whether a line begins with its time, or its level.
fn is_log(line: &str) -> bool {
    const LEVELS: [&str; 7] = ["TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL"];
    if line.contains('\t') {
        return false;
    }
    let begins_with_time = |word: &str| {
        word.bytes().filter(u8::is_ascii_digit).count() >= 3 && word.contains([':', '-', '/']) && !word.contains(',')
    };
    let mut words = line.trim_start_matches('[').split([' ', ']']);
    words.next().is_some_and(begins_with_time)
        || line.split([' ', ':', '[', ']']).take(4).any(|word| LEVELS.contains(&word))
}

fn is_odd(line: &str) -> bool {
    let mut quote = Quote::default();
    write(line, &mut quote, true, &mut String::new());
    quote.is_open
}
