//! Python's brackets, quotes and indentation, as its tokenizer sees them (Python Language Reference, 2).

use std::iter::Peekable;
use std::str::Chars;

/// False: no Python version can parse it. True says nothing.
pub fn may_parse(code: &str) -> bool {
    let is_session = |line: &str| {
        let line = line.trim_start();
        [">>>", "In [", "$ ", "%", "!"].iter().any(|sign| line.starts_with(sign))
    };
    if code.contains('…') || code.lines().any(is_session) {
        return true;
    }
    Reader { characters: code.chars().peekable(), open: Vec::new(), indents: Vec::new(), has_format: false }.read()
}

struct Reader<'a> {
    characters: Peekable<Chars<'a>>,
    open: Vec<char>,
    /// Columns of the open blocks, with tabs to the next eighth column, and with tabs as one.
    indents: Vec<(usize, usize)>,
    /// There was an f-string, whose inner quotes newer versions allow and this reader does not know.
    has_format: bool,
}

impl Reader<'_> {
    fn read(mut self) -> bool {
        if !self.line_begins() {
            return false;
        }
        let mut word = String::new();
        while let Some(c) = self.characters.next() {
            let is_right = match c {
                '#' => {
                    while self.characters.next_if(|c| *c != '\n').is_some() {}
                    true
                }
                '\\' => {
                    self.characters.next_if_eq(&'\r');
                    self.characters.next_if_eq(&'\n');
                    true
                }
                '\n' => self.line_begins(),
                '"' | '\'' => {
                    let is_format = word.len() <= 2 && word.contains(['f', 'F', 't', 'T']);
                    self.has_format |= is_format;
                    self.string(c)
                }
                '(' | '[' | '{' => {
                    self.open.push(c);
                    true
                }
                ')' | ']' | '}' => self.open.pop().is_some_and(|open| super::brackets::pairs(open, c)),
                _ => true,
            };
            if !is_right {
                return self.has_format;
            }
            if c.is_alphanumeric() || c == '_' { word.push(c) } else { word.clear() }
        }
        self.open.is_empty() || self.has_format
    }

    /// After the opening quote, up to the closing one.
    fn string(&mut self, quote: char) -> bool {
        let is_long = self.characters.next_if_eq(&quote).is_some();
        if is_long && self.characters.next_if_eq(&quote).is_none() {
            // Empty.
            return true;
        }
        let mut row = 0;
        while let Some(c) = self.characters.next() {
            match c {
                '\\' => {
                    self.characters.next();
                    row = 0;
                }
                '\n' if !is_long => return false,
                c if c == quote => {
                    row += 1;
                    if !is_long || row == 3 {
                        return true;
                    }
                }
                _ => row = 0,
            }
        }
        false
    }

    /// Reads the indentation of a line, as the tokenizer compares it with those before (2.1.8). The first line may be
    /// indented: it is a part of something.
    fn line_begins(&mut self) -> bool {
        let (mut column, mut plain) = (0, 0);
        while let Some(c) = self.characters.next_if(|c| matches!(c, ' ' | '\t')) {
            column = if c == '\t' { (column / 8 + 1) * 8 } else { column + 1 };
            plain += 1;
        }
        if !self.open.is_empty() || matches!(self.characters.peek(), None | Some('\n' | '\r' | '#' | '\\')) {
            return true;
        }
        let Some(first) = self.indents.first().copied() else {
            self.indents.push((column, plain));
            return true;
        };
        if column < first.0 {
            self.indents = vec![(column, plain)];
            return true;
        }
        let depth = self.indents.len();
        while self.indents.last().is_some_and(|(known, _)| *known > column) {
            self.indents.pop();
        }
        let closes = self.indents.len() < depth;
        match self.indents.last().copied() {
            Some((known, other)) if known == column => other == plain,
            // It would open a block; but a line that closed some must come back to where one began.
            Some((known, other)) if known < column => {
                let is_deeper = plain > other && !closes;
                self.indents.push((column, plain));
                is_deeper
            }
            _ => true,
        }
    }
}
