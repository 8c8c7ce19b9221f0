//! Whether brackets pair, outside of strings and comments, in languages that have braces.

use std::iter::Peekable;
use std::str::Chars;

/// What a language's strings look like.
struct Dialect {
    has_templates: bool,
    /// Quotes of which an apostrophe closes only a single character: `'a'`, but `&'a str`.
    has_characters: bool,
    has_expressions: bool,
}

fn dialect(language: &str) -> Option<Dialect> {
    let (has_templates, has_characters, has_expressions) = match language {
        "javascript" | "js" | "typescript" | "ts" => (true, false, true),
        "go" | "golang" => (true, true, false),
        "java" | "c" | "cpp" | "c++" | "rust" | "rs" | "csharp" | "cs" | "c#" | "kotlin" | "swift" => {
            (false, true, false)
        }
        // Others have quotes, patterns or text in which brackets mean nothing.
        _ => return None,
    };
    Some(Dialect { has_templates, has_characters, has_expressions })
}

/// True: brackets are missing or crossed. False says nothing.
pub fn are_unbalanced(language: &str, code: &str) -> bool {
    let Some(dialect) = dialect(language) else { return false };
    // Parts left out, tags, raw strings, and branches of a preprocessor, of which each may open the same bracket.
    let is_odd =
        ["</", "/>", "R\"", "@\"", "$\"", "#else", "#elif", "r#\"", "r\"", "…"].iter().any(|sign| code.contains(sign));
    if is_odd || code.lines().any(|line| line.trim().trim_start_matches(['/', '#', '*', ' ']).starts_with("...")) {
        return false;
    }
    Reader { characters: code.chars().peekable(), dialect, open: Vec::new(), before: '\n' }.finds_odd()
}

pub fn pairs(open: char, close: char) -> bool {
    matches!((open, close), ('(', ')') | ('[', ']') | ('{', '}'))
}

struct Reader<'a> {
    characters: Peekable<Chars<'a>>,
    dialect: Dialect,
    open: Vec<char>,
    /// The last character that is no white space.
    before: char,
}

impl Reader<'_> {
    fn finds_odd(mut self) -> bool {
        while let Some(c) = self.characters.next() {
            match c {
                '/' => self.slash(),
                '"' => self.string('"'),
                '\'' if self.dialect.has_characters => self.character(),
                '\'' => self.string('\''),
                '`' if self.dialect.has_templates => self.template(),
                '(' | '[' | '{' => self.open.push(c),
                ')' | ']' | '}' if !self.open.pop().is_some_and(|open| pairs(open, c)) => return true,
                _ => {}
            }
            if !c.is_whitespace() {
                self.before = c;
            }
        }
        !self.open.is_empty()
    }

    /// A comment, a pattern, or a division.
    fn slash(&mut self) {
        if self.characters.next_if_eq(&'/').is_some() {
            while self.characters.next_if(|c| *c != '\n').is_some() {}
        } else if self.characters.next_if_eq(&'*').is_some() {
            let mut last = ' ';
            for c in self.characters.by_ref() {
                if last == '*' && c == '/' {
                    break;
                }
                last = c;
            }
        } else if self.dialect.has_expressions && "\n(,=:[!&|?{};>n".contains(self.before) {
            self.pattern();
        }
    }

    /// A regular expression of JavaScript; it ends within its line. `return /x/` is why `n` may stand before it: after
    /// another word with this end, what looks like one is at worst a line unread.
    fn pattern(&mut self) {
        let mut in_class = false;
        while let Some(c) = self.characters.next_if(|c| *c != '\n') {
            match c {
                '\\' => drop(self.characters.next()),
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => return,
                _ => {}
            }
        }
    }

    /// A string of one line, or between three quotes.
    fn string(&mut self, quote: char) {
        let is_long = self.characters.next_if_eq(&quote).is_some();
        if is_long && self.characters.next_if_eq(&quote).is_none() {
            return;
        }
        let mut row = 0;
        while let Some(c) = self.characters.next() {
            match c {
                '\\' => {
                    self.characters.next();
                    row = 0;
                }
                c if c == quote => {
                    row += 1;
                    if !is_long || row == 3 {
                        return;
                    }
                }
                _ => row = 0,
            }
        }
    }

    /// `'x'`, `'\n'`, `'\u{1F600}'`; else a lifetime, a label or a digit separator.
    fn character(&mut self) {
        let mut ahead = self.characters.clone();
        let is_escape = ahead.next() == Some('\\');
        let most = if is_escape { 12 } else { 1 };
        if is_escape {
            ahead.next();
        }
        let Some(length) = ahead.take(most).position(|c| c == '\'') else { return };
        for _ in 0..length + 2 + usize::from(is_escape) {
            self.characters.next();
        }
    }

    /// What stands in a template is not looked at; templates within it end it early, and pair as often as not.
    fn template(&mut self) {
        while let Some(c) = self.characters.next() {
            match c {
                '\\' => drop(self.characters.next()),
                '`' => return,
                _ => {}
            }
        }
    }
}
