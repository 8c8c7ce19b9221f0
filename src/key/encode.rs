//! The canonical encoding: equal JSON values give equal bytes, different values give different bytes.
//!
//! Typed and length-delimited, so that no value can be written in another one's shape: object members are sorted by name,
//! arrays keep their order, and a number is one number however it was spelled (`0`, `0.0`, `-0`). What is *in* a request
//! and what is left out is decided in `key/mod.rs`; this file knows JSON values only.

use std::fmt;

/// Nesting beyond this is not encoded: such a request is not cached, and recursion stays bounded.
pub const MAX_DEPTH: usize = 128;

/// Integral floats below this are exact, so `1.0` and `1` are one number; above it neighbours collapse.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

const NULL: u8 = b'n';
const FALSE: u8 = b'f';
const TRUE: u8 = b't';
const INTEGER: u8 = b'i';
const FLOAT: u8 = b'd';
const STRING: u8 = b's';
const ARRAY: u8 = b'[';
const OBJECT: u8 = b'{';
const END: u8 = b'e';

/// Why a value has no canonical form. The request is then passed on without a key, which means: not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkeyed {
    /// The bytes are not one JSON value (or not an object where a request needs one).
    Malformed,
    /// A member name occurs twice: servers differ in which one counts.
    DuplicateName,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// NaN, an infinity, or a literal that overflows a double.
    NotFinite,
    /// A lone surrogate, which UTF-8 cannot carry.
    Surrogate,
}

impl fmt::Display for Unkeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a JSON object",
            Self::DuplicateName => "a member name occurs twice",
            Self::TooDeep => "nested too deep",
            Self::NotFinite => "a number that JSON cannot carry",
            Self::Surrogate => "a lone surrogate",
        })
    }
}

#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
}

/// An open array or object. Its members live in `Encoder::members[first_member..]`.
struct Frame {
    object: bool,
    first_member: usize,
    start: usize,
}

/// Writes one value; push its parts in document order.
#[derive(Default)]
pub struct Encoder {
    out: Vec<u8>,
    members: Vec<Member>,
    frames: Vec<Frame>,
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity), ..Self::default() }
    }

    /// What was written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    pub fn null(&mut self) {
        self.out.push(NULL);
    }

    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { TRUE } else { FALSE });
    }

    /// An integer of any size, given as decimal digits with an optional leading minus.
    pub fn integer(&mut self, literal: &str) {
        let literal = if literal == "-0" { "0" } else { literal };
        self.out.push(INTEGER);
        self.length(literal.len());
        self.out.extend_from_slice(literal.as_bytes());
    }

    /// A machine integer, without a detour through a string on the heap.
    pub fn small_integer(&mut self, value: i64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        self.out.push(INTEGER);
        self.length(digits.len() - at);
        self.out.extend_from_slice(&digits[at..]);
    }

    /// # Errors
    /// [`Unkeyed::NotFinite`] for NaN and infinities.
    pub fn float(&mut self, value: f64) -> Result<(), Unkeyed> {
        if !value.is_finite() {
            return Err(Unkeyed::NotFinite);
        }
        if value.fract() == 0.0 && value.abs() < EXACT_INTEGERS {
            self.small_integer(value as i64);
        } else {
            self.out.push(FLOAT);
            self.out.extend_from_slice(&value.to_bits().to_be_bytes());
        }
        Ok(())
    }

    pub fn string(&mut self, value: &str) {
        self.out.push(STRING);
        self.length(value.len());
        self.out.extend_from_slice(value.as_bytes());
    }

    /// # Errors
    /// [`Unkeyed::TooDeep`]
    pub fn begin_array(&mut self) -> Result<(), Unkeyed> {
        self.begin(ARRAY)
    }

    /// # Errors
    /// [`Unkeyed::TooDeep`]
    pub fn begin_object(&mut self) -> Result<(), Unkeyed> {
        self.begin(OBJECT)
    }

    /// Begins a member of the open object; its value comes next.
    pub fn name(&mut self, name: &str) {
        let start = self.out.len();
        self.out.extend_from_slice(name.as_bytes());
        self.members.push(Member { start, name_end: self.out.len() });
    }

    /// Takes the member begun last back out, with its value: for fields that are not part of the key.
    pub fn drop_member(&mut self) {
        if let Some(member) = self.members.pop() {
            self.out.truncate(member.start);
        }
    }

    /// Closes the array or object that was opened last.
    ///
    /// # Errors
    /// [`Unkeyed::DuplicateName`]
    pub fn end(&mut self) -> Result<(), Unkeyed> {
        let Some(frame) = self.frames.pop() else { return Err(Unkeyed::Malformed) };
        if frame.object {
            self.write_members(&frame)?;
            self.members.truncate(frame.first_member);
        }
        self.out.push(END);
        Ok(())
    }

    /// Members were written as `name value` in document order; what counts is `length name value` in order of the names.
    fn write_members(&mut self, frame: &Frame) -> Result<(), Unkeyed> {
        let members = &mut self.members[frame.first_member..];
        let Some(first) = members.first().copied() else { return Ok(()) };
        let out = &self.out;
        let mut order: Vec<(Member, usize)> = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let end = members.get(index + 1).map_or(out.len(), |next| next.start);
            order.push((*member, end));
        }
        let name = |entry: &(Member, usize)| &out[entry.0.start..entry.0.name_end];
        order.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if order.windows(2).any(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Unkeyed::DuplicateName);
        }
        self.scratch.clear();
        for (member, end) in &order {
            write_length(&mut self.scratch, member.name_end - member.start);
            self.scratch.extend_from_slice(&self.out[member.start..*end]);
        }
        debug_assert!(first.start >= frame.start);
        self.out.truncate(first.start);
        self.out.extend_from_slice(&self.scratch);
        Ok(())
    }

    fn begin(&mut self, tag: u8) -> Result<(), Unkeyed> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Unkeyed::TooDeep);
        }
        self.out.push(tag);
        let start = self.out.len();
        self.frames.push(Frame { object: tag == OBJECT, first_member: self.members.len(), start });
        Ok(())
    }

    fn length(&mut self, length: usize) {
        write_length(&mut self.out, length);
    }
}

/// LEB128, so that short strings cost one byte.
fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length as u8) | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}
