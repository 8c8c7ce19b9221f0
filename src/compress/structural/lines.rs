//! What each line of a text is: code and quotations are not looked into, drawings keep their blanks.

use super::frames::run;
use super::inline::columns;
use super::verbatim::Blocks;
use crate::compress::code::Fence;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Blank,
    /// Of a fence, or in it; of a block that a program reads as it is.
    Fenced,
    /// By four blanks or a tab: code, or a list within a list.
    Indented,
    Quoted,
    /// Its blanks are part of a drawing: cells between bars, or columns that stand below each other.
    Drawn,
    Prose,
}

/// Of so many lines a text's kind is told.
const MOST_LOOKED_AT: usize = 2_000;
/// Python's way to write a value: its strings stand between apostrophes, which elsewhere say nothing.
const REPRESENTATIONS: [&str; 5] = ["{'", "['", "[{'", "('", "[('"];
const CODE_STARTS: [&str; 27] = [
    "import ",
    "from ",
    "def ",
    "class ",
    "function ",
    "const ",
    "let ",
    "var ",
    "public ",
    "private ",
    "protected ",
    "static ",
    "return ",
    "return;",
    "#include",
    "package ",
    "use ",
    "fn ",
    "pub ",
    "impl ",
    "func ",
    "if (",
    "for (",
    "while (",
    "} else",
    "async ",
    "@",
];

pub fn kinds(text: &str, lines: &[&str]) -> Vec<Kind> {
    let mut fence = Fence::default();
    let mut kinds: Vec<Kind> = Vec::with_capacity(lines.len());
    let blocks = Blocks::new(text, lines);
    // Columns of the line before that is not yet known to stand in a table.
    let mut columns_before = 0;
    while let Some(line) = lines.get(kinds.len()) {
        if !fence.is_open()
            && let Some(end) = blocks.end(kinds.len())
        {
            for line in lines.get(kinds.len()..end).unwrap_or_default() {
                fence.takes(line);
            }
            // A fence that begins within it and does not end there: one of the two is not what it looks like.
            kinds.resize(if fence.is_open() { lines.len() } else { end }, Kind::Fenced);
            columns_before = 0;
            continue;
        }
        let kind = one(line, &mut fence);
        let columns = if kind == Kind::Prose { columns(line) } else { 0 };
        // Below each other two are enough for a table, alone a line has to have several.
        let is_drawn = columns > 0 && (columns_before > 0 || columns > 1);
        if is_drawn
            && columns_before > 0
            && let Some(before) = kinds.last_mut()
        {
            *before = Kind::Drawn;
        }
        kinds.push(if is_drawn { Kind::Drawn } else { kind });
        columns_before = columns;
    }
    // Rules of several lengths below each other are bars.
    for (at, pair) in lines.windows(2).enumerate() {
        if let (Some(one), Some(other)) = (rule(pair[0]), rule(pair[1]))
            && one != other
        {
            for kind in kinds.iter_mut().skip(at).take(2).filter(|kind| **kind == Kind::Prose) {
                *kind = Kind::Drawn;
            }
        }
    }
    kinds
}

/// How long a line is that is a rule.
fn rule(line: &str) -> Option<usize> {
    let line = line.trim();
    let first = *line.as_bytes().first().filter(|byte| matches!(byte, b'-' | b'=' | b'_'))?;
    line.bytes().all(|byte| byte == first).then_some(line.len())
}

fn one(line: &str, fence: &mut Fence) -> Kind {
    if fence.takes(line) {
        return Kind::Fenced;
    }
    let trimmed = line.trim_start_matches([' ', '\t']);
    if trimmed.trim_start_matches(['\r', '\u{A0}', ' ', '\t']).is_empty() {
        return Kind::Blank;
    }
    let indentation = line.bytes().take_while(|byte| *byte == b' ').count();
    if indentation >= 4 || line.as_bytes().get(indentation) == Some(&b'\t') {
        return Kind::Indented;
    }
    if trimmed.starts_with('>') || REPRESENTATIONS.iter().any(|start| trimmed.starts_with(start)) {
        return Kind::Quoted;
    }
    if line.bytes().filter(|byte| *byte == b'|').nth(1).is_some() || trimmed.starts_with('+') {
        return Kind::Drawn;
    }
    Kind::Prose
}

/// A program or a patch that stands in no fence. It is code all the same, and stays as it is.
pub fn is_program(lines: &[&str]) -> bool {
    let (mut all, mut code) = (0, 0);
    let mut at = 0;
    while let Some(line) = lines.get(at).filter(|_| at < MOST_LOOKED_AT) {
        // A stack trace shows a program's lines, and is none.
        if let Some(run) = lines.get(at..).and_then(run) {
            at += run.lines;
            continue;
        }
        at += 1;
        let trimmed = line.trim();
        if line.starts_with("@@ -") || line.starts_with("diff --git ") || line.starts_with("#!/") {
            return true;
        }
        if trimmed.is_empty() {
            continue;
        }
        all += 1;
        // A line of a log begins with its time or level, and may end with an object.
        let is_log = trimmed.starts_with(|c: char| c.is_ascii_digit() || c == '[');
        code += usize::from(!is_log && (trimmed.ends_with([';', '{', '}']) || is_head(trimmed)));
    }
    code >= 3 && code * 4 >= all
}

/// "def f(x):", "import os"; not "from here on we walk."
fn is_head(trimmed: &str) -> bool {
    CODE_STARTS.iter().any(|start| trimmed.starts_with(start)) && !trimmed.ends_with(['.', '?', '!', ','])
}
