//! Server-sent events (WHATWG HTML, 9.2), split at any byte. What the events mean is in `chat.rs` and `responses.rs`.

use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they came; all events' bytes put together are the stream.
    pub raw: Bytes,
    pub event: Option<Arc<str>>,
    /// The data lines, joined. Shared by all who read the event.
    pub data: Arc<str>,
    /// Whether a reader gets to see it: comments alone are no event, nor is one that the stream's end cut off.
    pub dispatched: bool,
}

impl Event {
    /// A new event, as bytes and as fields.
    pub fn encode(event: Option<&str>, data: &str) -> Self {
        let mut raw = String::new();
        write(&mut raw, event, data);
        Self { raw: raw.into(), event: event.map(Into::into), data: data.into(), dispatched: true }
    }
}

/// Appends one event to the text of a stream.
pub fn write(text: &mut String, event: Option<&str>, data: &str) {
    if let Some(event) = event {
        text.push_str("event: ");
        text.push_str(event);
        text.push('\n');
    }
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
}

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Where the line that is being read begins, and how far it was searched for its end.
    line: usize,
    seen: usize,
    /// The last line ended in CR: a LF that follows belongs to that line's end.
    after_cr: bool,
    event: Option<String>,
    data: Vec<u8>,
    has_data: bool,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes; returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(&first) = self.buffer.get(self.seen) {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                self.seen += 1;
                self.line = self.seen;
                continue;
            }
            let Some(length) = self.buffer[self.seen..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.seen = self.buffer.len();
                break;
            };
            let end = self.seen + length;
            self.after_cr = self.buffer[end] == b'\r';
            let blank = end == self.line;
            if !blank {
                self.field(end);
            }
            self.seen = end + 1;
            self.line = self.seen;
            if blank {
                // A pair of CR and LF stays in one piece where it came in one.
                if self.after_cr && self.buffer.get(self.seen) == Some(&b'\n') {
                    self.after_cr = false;
                    self.seen += 1;
                }
                events.push(self.take());
            }
        }
        events
    }

    /// What is left at the end of the stream: bytes that nobody sees as an event.
    pub fn finish(&mut self) -> Option<Event> {
        let raw = self.buffer.split().freeze();
        (!raw.is_empty()).then(|| Event { raw, ..Event::default() })
    }

    fn take(&mut self) -> Event {
        let raw = self.buffer.split_to(self.seen).freeze();
        self.seen = 0;
        self.line = 0;
        let event = self.event.take().filter(|event| !event.is_empty()).map(Into::into);
        let dispatched = mem::take(&mut self.has_data) || event.is_some();
        // Bytes that are not UTF-8 raise in the SDK; here they must not pass for an answer.
        let data = std::str::from_utf8(&self.data).unwrap_or("\u{FFFD}").into();
        self.data.clear();
        Event { raw, event, data, dispatched }
    }

    fn field(&mut self, end: usize) {
        let line = &self.buffer[self.line..end];
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.event = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
}
