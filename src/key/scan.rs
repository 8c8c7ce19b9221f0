//! JSON text to canonical encoding in one pass, and the places of the top-level fields.
//!
//! Our own scanner because the key needs what a value tree loses: integers of any length, duplicate names, and where in
//! the text a field stands (so that a field can be replaced without writing the rest anew). It accepts RFC 8259 and
//! nothing more; what it refuses is passed on unkeyed, never rejected.

use std::borrow::Cow;
use std::ops::Range;

use super::encode::{Encoder, MAX_DEPTH, Unkeyed};

/// One top-level member: its name, and where its value stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Box<str>,
    pub value: Range<usize>,
}

/// Encodes the object in `text` into `encoder`, without the top-level members named in `skip`, and lists its fields.
///
/// # Errors
/// [`Unkeyed`] when the text has no canonical form.
pub fn scan(text: &[u8], skip: &[&str], encoder: &mut Encoder) -> Result<Vec<Field>, Unkeyed> {
    let text = std::str::from_utf8(text).map_err(|_| Unkeyed::Malformed)?;
    let mut scanner = Scanner { text, at: 0, encoder, fields: Vec::with_capacity(12), skip };
    scanner.space();
    if scanner.peek() != Some(b'{') {
        return Err(Unkeyed::Malformed);
    }
    scanner.object(0)?;
    scanner.space();
    if scanner.at != text.len() {
        return Err(Unkeyed::Malformed);
    }
    Ok(scanner.fields)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    encoder: &'a mut Encoder,
    fields: Vec<Field>,
    skip: &'a [&'a str],
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unkeyed> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(Unkeyed::Malformed)
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Unkeyed> {
        if depth > MAX_DEPTH {
            return Err(Unkeyed::TooDeep);
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let text = self.string()?;
                self.encoder.string(&text);
                Ok(())
            }
            Some(b't') => self.word("true").map(|()| self.encoder.bool(true)),
            Some(b'f') => self.word("false").map(|()| self.encoder.bool(false)),
            Some(b'n') => self.word("null").map(|()| self.encoder.null()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Unkeyed::Malformed),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Unkeyed> {
        self.expect(b'{')?;
        self.encoder.begin_object()?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return self.encoder.end();
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            self.encoder.name(&name);
            let start = self.at;
            self.value(depth + 1)?;
            if depth == 0 {
                if self.fields.iter().any(|field| *field.name == *name) {
                    return Err(Unkeyed::DuplicateName);
                }
                if self.skip.contains(&name.as_ref()) {
                    self.encoder.drop_member();
                }
                self.fields.push(Field { name: name.into(), value: start..self.at });
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return self.encoder.end();
                }
                _ => return Err(Unkeyed::Malformed),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Unkeyed> {
        self.expect(b'[')?;
        self.encoder.begin_array()?;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return self.encoder.end();
        }
        loop {
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return self.encoder.end();
                }
                _ => return Err(Unkeyed::Malformed),
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Unkeyed> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Unkeyed::Malformed)
        }
    }

    fn number(&mut self) -> Result<(), Unkeyed> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(Unkeyed::Malformed),
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let literal = &self.text[start..self.at];
        if integer {
            self.encoder.integer(literal);
            return Ok(());
        }
        self.encoder.float(literal.parse().map_err(|_| Unkeyed::Malformed)?)
    }

    fn digits(&mut self) -> Result<(), Unkeyed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(Unkeyed::Malformed) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Unkeyed> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => return self.escaped_string(start).map(Cow::Owned),
                Some(0x20..) => self.at += 1,
                _ => return Err(Unkeyed::Malformed),
            }
        }
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, Unkeyed> {
        let mut text = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while matches!(self.peek(), Some(byte) if byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            text.push_str(&self.text[plain..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return Err(Unkeyed::Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Unkeyed> {
        let byte = self.peek().ok_or(Unkeyed::Malformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(Unkeyed::Malformed),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Unkeyed> {
        let high = self.four_hex()?;
        if !(0xD800..0xDC00).contains(&high) {
            return char::from_u32(high).ok_or(Unkeyed::Surrogate);
        }
        if !self.text[self.at..].starts_with("\\u") {
            return Err(Unkeyed::Surrogate);
        }
        self.at += 2;
        let low = self.four_hex()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(Unkeyed::Surrogate);
        }
        char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).ok_or(Unkeyed::Surrogate)
    }

    fn four_hex(&mut self) -> Result<u32, Unkeyed> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Unkeyed::Malformed)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Unkeyed::Malformed);
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| Unkeyed::Malformed)
    }
}
