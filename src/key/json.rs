//! Writes the JSON text of a request and notes where its top-level fields stand, as `scan.rs` finds them in a text.
//!
//! The counterpart of `encode.rs` for the body that goes out: compact, UTF-8, in the order in which it is pushed.

use super::encode::{MAX_DEPTH, Unkeyed};
use super::scan::Field;

/// Writes one object; push its parts in document order.
#[derive(Default)]
pub struct JsonWriter {
    out: Vec<u8>,
    /// Open arrays and objects: the byte that closes it, and whether it has a member already.
    open: Vec<(u8, bool)>,
    fields: Vec<Field>,
}

impl JsonWriter {
    /// A writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity), open: Vec::with_capacity(8), fields: Vec::with_capacity(12) }
    }

    /// The text, and the places of its top-level fields.
    pub fn finish(self) -> (Vec<u8>, Vec<Field>) {
        (self.out, self.fields)
    }

    pub fn null(&mut self) {
        self.element();
        self.out.extend_from_slice(b"null");
    }

    pub fn bool(&mut self, value: bool) {
        self.element();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// An integer of any size, given as decimal digits with an optional leading minus.
    pub fn integer(&mut self, literal: &str) {
        self.element();
        self.out.extend_from_slice(literal.as_bytes());
    }

    pub fn small_integer(&mut self, value: i64) {
        self.element();
        self.serialize(&value);
    }

    /// # Errors
    /// [`Unkeyed::NotFinite`] for NaN and infinities.
    pub fn float(&mut self, value: f64) -> Result<(), Unkeyed> {
        if !value.is_finite() {
            return Err(Unkeyed::NotFinite);
        }
        self.element();
        self.serialize(&value);
        Ok(())
    }

    pub fn string(&mut self, value: &str) {
        self.element();
        self.serialize(value);
    }

    /// # Errors
    /// [`Unkeyed::TooDeep`]
    pub fn begin_array(&mut self) -> Result<(), Unkeyed> {
        self.begin(b'[', b']')
    }

    /// # Errors
    /// [`Unkeyed::TooDeep`]
    pub fn begin_object(&mut self) -> Result<(), Unkeyed> {
        self.begin(b'{', b'}')
    }

    /// Begins a member of the open object; its value comes next.
    pub fn name(&mut self, name: &str) {
        let first = self.open.last_mut().is_none_or(|(_, any)| !std::mem::replace(any, true));
        if self.open.len() == 1 {
            self.end_field();
        }
        if !first {
            self.out.push(b',');
        }
        self.serialize(name);
        self.out.push(b':');
        if self.open.len() == 1 {
            self.fields.push(Field { name: name.into(), value: self.out.len()..0 });
        }
    }

    /// Closes the array or object that was opened last.
    ///
    /// # Errors
    /// [`Unkeyed::Malformed`] when none is open.
    pub fn end(&mut self) -> Result<(), Unkeyed> {
        if self.open.len() == 1 {
            self.end_field();
        }
        let Some((close, _)) = self.open.pop() else { return Err(Unkeyed::Malformed) };
        self.out.push(close);
        Ok(())
    }

    /// The comma before an array's element.
    fn element(&mut self) {
        if let Some((b']', any)) = self.open.last_mut()
            && std::mem::replace(any, true)
        {
            self.out.push(b',');
        }
    }

    fn begin(&mut self, open: u8, close: u8) -> Result<(), Unkeyed> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Unkeyed::TooDeep);
        }
        self.element();
        self.out.push(open);
        self.open.push((close, false));
        Ok(())
    }

    fn end_field(&mut self) {
        if let Some(field) = self.fields.last_mut()
            && field.value.end == 0
        {
            field.value.end = self.out.len();
        }
    }

    /// Numbers and strings; writing them into memory does not fail.
    fn serialize<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        let _ = serde_json::to_writer(&mut self.out, value);
    }
}
