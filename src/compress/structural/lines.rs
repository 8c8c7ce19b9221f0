//! What each line of a text is: code and quotations are not looked into, drawings keep their blanks.

use super::frames::run;
use super::inline::has_columns;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Blank,
    /// Of a fence, or in it.
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

pub fn kinds(lines: &[&str]) -> Vec<Kind> {
    let mut fence: Option<(u8, usize)> = None;
    let mut kinds: Vec<Kind> = Vec::with_capacity(lines.len());
    // Whether the line before has columns, and is not yet known to have a neighbour that has.
    let mut had_columns = false;
    for line in lines {
        let kind = one(line, &mut fence);
        let columns = kind == Kind::Prose && has_columns(line);
        if columns && had_columns {
            if let Some(before) = kinds.last_mut() {
                *before = Kind::Drawn;
            }
            kinds.push(Kind::Drawn);
        } else {
            kinds.push(kind);
        }
        had_columns = columns;
    }
    // Rules of several lengths below each other are bars.
    for (at, pair) in lines.windows(2).enumerate() {
        if let (Some(one), Some(other)) = (rule(pair[0]), rule(pair[1]))
            && one != other
        {
            kinds[at] = Kind::Drawn;
            kinds[at + 1] = Kind::Drawn;
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

fn one(line: &str, fence: &mut Option<(u8, usize)>) -> Kind {
    let trimmed = line.trim_start_matches([' ', '\t']);
    let ticks = ticks(trimmed);
    if let Some((mark, length)) = *fence {
        if let Some((found, count)) = ticks
            && found == mark
            && count >= length
            && trimmed.bytes().skip(count).all(|byte| byte.is_ascii_whitespace())
        {
            *fence = None;
        }
        return Kind::Fenced;
    }
    if let Some((mark, count)) = ticks
        // Inline code, and the marks that Python sets below a line of a stack trace.
        && !trimmed.bytes().skip(count).any(|byte| byte == if mark == b'`' { b'`' } else { b'^' })
    {
        *fence = Some((mark, count));
        return Kind::Fenced;
    }
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

fn ticks(trimmed: &str) -> Option<(u8, usize)> {
    let mark = *trimmed.as_bytes().first().filter(|byte| matches!(byte, b'`' | b'~'))?;
    let count = trimmed.bytes().take_while(|byte| *byte == mark).count();
    (count >= 3).then_some((mark, count))
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
