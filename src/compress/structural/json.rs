//! JSON as it stands: numbers and strings keep their text, members their order and their doubles.
//!
//! A parser into numbers would turn 1.0, 1e400 and long integers into others. Schemas are not looked into: whoever reads
//! one may compare it byte by byte.

use std::borrow::Cow;

use super::strings;

/// Containers in containers. What is deeper is left alone: others' parsers refuse it too.
pub const MOST_DEPTH: usize = 128;
const SCHEMA_TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
/// What a table calls its rows: of one list, of a list of lists, of lines.
pub const TABLE_BODIES: [&str; 3] = ["rows", "groups", "lines"];

pub type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

#[derive(Debug)]
pub enum Value<'a> {
    /// A number, a word, or a whole schema.
    Raw(&'a str),
    /// What stands between the quotation marks, with the escapes that it needs.
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Members<'a>),
}

#[derive(Debug)]
pub struct Document<'a> {
    pub value: Value<'a>,
    /// An object in it would be taken for one of our tables.
    pub has_table: bool,
    pub has_schema: bool,
    pub depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Invalid,
    TooDeep,
}

/// An object or a list, with blanks around it. Other values are [`Failure::Invalid`]: nothing is gained of them.
pub fn parse(text: &str) -> Result<Document<'_>, Failure> {
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, has_table: false, has_schema: false, deepest: 0 };
    parser.blank();
    if !matches!(parser.bytes.get(parser.at), Some(b'{' | b'[')) {
        return Err(Failure::Invalid);
    }
    let value = parser.value(0)?;
    parser.blank();
    if parser.at < text.len() {
        return Err(Failure::Invalid);
    }
    let Parser { has_table, has_schema, deepest, .. } = parser;
    Ok(Document { value, has_table, has_schema, depth: deepest })
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    has_table: bool,
    has_schema: bool,
    deepest: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Failure> {
        match self.bytes.get(self.at) {
            Some(b'"') => Ok(Value::Text(strings::plain(self.string()?))),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.list(depth + 1),
            _ => self.scalar().map(Value::Raw),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, Failure> {
        self.open(depth)?;
        let mut items = Vec::new();
        if self.takes(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.blank();
            if self.takes(b']') {
                return Ok(Value::List(items));
            }
            self.comma()?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Failure> {
        let start = self.at;
        self.open(depth)?;
        let mut members = Members::new();
        if self.takes(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            let name = strings::plain(self.string()?);
            self.blank();
            if !self.takes(b':') {
                return Err(Failure::Invalid);
            }
            self.blank();
            members.push((name, self.value(depth)?));
            self.blank();
            if self.takes(b'}') {
                break;
            }
            self.comma()?;
        }
        self.has_table |= is_table(&members);
        if is_schema(&members) {
            self.has_schema = true;
            return Ok(Value::Raw(self.text.get(start..self.at).unwrap_or_default()));
        }
        Ok(Value::Object(members))
    }

    fn open(&mut self, depth: usize) -> Result<(), Failure> {
        if depth > MOST_DEPTH {
            return Err(Failure::TooDeep);
        }
        self.deepest = self.deepest.max(depth);
        self.at += 1;
        self.blank();
        Ok(())
    }

    fn comma(&mut self) -> Result<(), Failure> {
        if !self.takes(b',') {
            return Err(Failure::Invalid);
        }
        self.blank();
        Ok(())
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// What stands between the quotation marks.
    fn string(&mut self) -> Result<&'a str, Failure> {
        if !self.takes(b'"') {
            return Err(Failure::Invalid);
        }
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let digits = match self.bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
                        Some(b'u') => 4,
                        _ => return Err(Failure::Invalid),
                    };
                    let escape = self.bytes.get(self.at + 2..self.at + 2 + digits).ok_or(Failure::Invalid)?;
                    if !escape.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Failure::Invalid);
                    }
                    self.at += 2 + digits;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(Failure::Invalid),
            }
        }
        self.at += 1;
        self.text.get(start..self.at - 1).ok_or(Failure::Invalid)
    }

    fn scalar(&mut self) -> Result<&'a str, Failure> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length =
            rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte))).unwrap_or(rest.len());
        let text = self.text.get(self.at..self.at + length).ok_or(Failure::Invalid)?;
        if !matches!(text, "true" | "false" | "null") && !is_number(text.as_bytes()) {
            return Err(Failure::Invalid);
        }
        self.at += length;
        Ok(text)
    }
}

fn is_number(bytes: &[u8]) -> bool {
    let digits = |from: &[u8]| from.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// Names that come twice are one name to whoever reads it.
fn is_table(members: &Members) -> bool {
    let count = |wanted: &[&str]| members.iter().filter(|(name, _)| wanted.contains(&&**name)).count();
    let (heads, bodies) = (count(&["columns"]), count(&TABLE_BODIES));
    heads > 0 && bodies > 0 && heads + bodies == members.len()
}

/// GeoJSON has "type" and "properties" as well, hence the types.
fn is_schema(members: &Members) -> bool {
    let (mut is_typed, mut has_part) = (false, false);
    for (name, value) in members {
        match (&**name, value) {
            ("$schema" | "$defs", _) => return true,
            ("openapi" | "swagger", Value::Text(_)) => return true,
            ("type", Value::Text(text)) => is_typed |= SCHEMA_TYPES.contains(&&**text),
            ("type", Value::List(types)) => {
                let is_type = |one: &Value| matches!(one, Value::Text(text) if SCHEMA_TYPES.contains(&&**text));
                is_typed |= !types.is_empty() && types.iter().all(is_type);
            }
            ("properties" | "items", Value::Object(_) | Value::Raw(_)) | ("enum", Value::List(_)) => has_part = true,
            _ => {}
        }
    }
    is_typed && has_part
}
