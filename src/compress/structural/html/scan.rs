//! HTML as a row of texts and tags. Nothing is nested here, so that a page cannot be too deep.
//!
//! Unlike a browser it loses nothing that breaks off: a comment, a script or a tag without an end is taken to be shorter,
//! not to take the rest of the page with it. Each kind of end is looked for in vain once at most, hence linear.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// With its entities.
    Text(&'a str),
    Open(Tag<'a>),
    /// A tag's name, in whatever case.
    Close(&'a str),
    /// A script, a style, a picture, whole.
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    pub name: &'a str,
    attributes: &'a str,
}

/// Nothing in them is shown as text.
const DROPPED: [&str; 4] = ["script", "style", "svg", "template"];

pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// There is no ">" any more; no end of a comment; none of these elements.
    lacks_end: bool,
    lacks_comment_end: bool,
    lacks_close: [bool; DROPPED.len()],
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, lacks_end: false, lacks_comment_end: false, lacks_close: [false; DROPPED.len()] }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What begins with "<"; None: a text does.
    fn tag(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        match bytes.get(1)? {
            _ if self.lacks_end => None,
            b'!' if rest.starts_with("<!--") => {
                let end = if self.lacks_comment_end { None } else { rest.get(4..)?.find("-->") };
                self.lacks_comment_end = end.is_none();
                self.at += end.map_or(4, |end| 4 + end + 3);
                Some(Token::Dropped)
            }
            b'!' | b'?' => {
                self.end(plain_end(bytes))?;
                Some(Token::Dropped)
            }
            b'/' if bytes.get(2)?.is_ascii_alphabetic() => {
                let name = name(rest.get(2..)?);
                self.end(plain_end(bytes))?;
                Some(Token::Close(name))
            }
            byte if byte.is_ascii_alphabetic() => {
                let name = name(rest.get(1..)?);
                let length = self.end(tag_end(bytes, 1 + name.len()))?;
                let attributes = rest.get(1 + name.len()..length - 1)?;
                let dropped = DROPPED.iter().position(|dropped| name.eq_ignore_ascii_case(dropped));
                if dropped.is_some_and(|index| !attributes.ends_with('/') && self.drop(index)) {
                    return Some(Token::Dropped);
                }
                Some(Token::Open(Tag { name, attributes }))
            }
            _ => None,
        }
    }

    /// Behind the ">".
    fn end(&mut self, end: End) -> Option<usize> {
        self.lacks_end = end == End::Missing;
        let End::At(end) = end else { return None };
        self.at += end + 1;
        Some(end + 1)
    }

    /// To the end of an element that is not shown; false: it has none, and only its tag is left out.
    fn drop(&mut self, index: usize) -> bool {
        if self.lacks_close[index] {
            return false;
        }
        let rest = self.rest();
        let mut from = 0;
        while let Some(at) = rest.get(from..).and_then(|rest| rest.find("</")).map(|offset| from + offset) {
            from = at + 2;
            let close = rest.get(from..).map(name).unwrap_or_default();
            if close.eq_ignore_ascii_case(DROPPED[index]) {
                // Without a ">" here, the others have none either.
                let Some(end) = rest.get(from..).and_then(|rest| rest.find('>')) else { break };
                self.at += from + end + 1;
                return true;
            }
        }
        self.lacks_close[index] = true;
        false
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        if rest.is_empty() {
            return None;
        }
        if rest.starts_with('<')
            && let Some(token) = self.tag()
        {
            return Some(token);
        }
        // A "<" that begins no tag is text.
        let next = if self.lacks_end { None } else { rest.bytes().skip(1).position(|byte| byte == b'<') };
        let length = next.map_or(rest.len(), |offset| offset + 1);
        self.at += length;
        rest.get(..length).map(Token::Text)
    }
}

fn name(text: &str) -> &str {
    let end =
        text.bytes().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/' | b'<' | b'"' | b'\''));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// Where a tag ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    At(usize),
    /// Another tag begins before: this one is text.
    Broken,
    /// Nor does any other.
    Missing,
}

fn plain_end(bytes: &[u8]) -> End {
    match bytes.iter().skip(1).position(|byte| matches!(byte, b'>' | b'<')) {
        Some(offset) if bytes.get(1 + offset) == Some(&b'>') => End::At(1 + offset),
        Some(_) => End::Broken,
        None => End::Missing,
    }
}

/// One between quotation marks, which come behind "=", does not end it.
fn tag_end(bytes: &[u8], from: usize) -> End {
    let mut at = from;
    let mut is_value = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'>' => return End::At(at),
            b'<' => return End::Broken,
            mark @ (b'"' | b'\'') if is_value => {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                let Some(length) = rest.iter().position(|byte| byte == mark) else { return plain_end(bytes) };
                at += 1 + length;
                is_value = false;
            }
            b'=' => is_value = true,
            byte if byte.is_ascii_whitespace() => {}
            _ => is_value = false,
        }
        at += 1;
    }
    plain_end(bytes)
}

impl<'a> Tag<'a> {
    /// The attribute's text with its entities; an empty one for an attribute without a value.
    pub fn attribute(&self, wanted: &str) -> Option<&'a str> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest.bytes().skip(1).position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'/'));
            let split = end.map_or(rest.len(), |end| end + 1);
            let (name, behind) = (rest.get(..split)?, rest.get(split..)?);
            let trimmed = behind.trim_start_matches(|c: char| c.is_ascii_whitespace());
            let (value, next) = match trimmed.strip_prefix('=') {
                Some(value) => value_of(value.trim_start_matches(|c: char| c.is_ascii_whitespace())),
                None => ("", behind),
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(value);
            }
            rest = next;
        }
    }
}

/// A value and what is behind it.
fn value_of(text: &str) -> (&str, &str) {
    for mark in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(mark) {
            return quoted.split_once(mark).unwrap_or((quoted, ""));
        }
    }
    text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""))
}
