//! Streamed answers: what a stream of events amounts to as a plain body, and a plain body as the events that a stream
//! would have brought. The event format itself is `sse.rs`; nothing here waits or sends.

pub mod chat;
pub mod responses;
pub mod sse;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::exchange::Endpoint;
use sse::Event;

/// How long a connection is read on when the answer is complete, so that it can be used again: as long as the SDK does it.
pub const LONGEST_GOODBYE: Duration = Duration::from_millis(100);

/// The two shapes of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Responses,
}

impl Kind {
    /// None: answers of this endpoint have no streamed form that is known here.
    pub fn of(endpoint: Endpoint) -> Option<Self> {
        match endpoint {
            Endpoint::Chat => Some(Self::Chat),
            Endpoint::Responses => Some(Self::Responses),
            Endpoint::Embeddings | Endpoint::Other => None,
        }
    }

    /// Whether nothing of the answer comes after this event. The SDK stops reading there, before the connection ends.
    pub fn is_end(self, event: &Event) -> bool {
        match self {
            Self::Chat => event.dispatched && event.data.starts_with(DONE),
            Self::Responses => match &event.event {
                Some(name) => responses::is_end(name),
                None => {
                    event.data.contains("\"response.")
                        && serde_json::from_str::<Value>(&event.data)
                            .is_ok_and(|data| data.get("type").and_then(Value::as_str).is_some_and(responses::is_end))
                }
            },
        }
    }
}

/// The sentinel at the end of a chat stream.
pub const DONE: &str = "[DONE]";

/// Puts a plain body together from events.
#[derive(Debug)]
pub struct Assembler {
    kind: State,
    /// The stream told of an error, or of something that has no plain form.
    broken: bool,
    done: bool,
}

#[derive(Debug)]
enum State {
    Chat(chat::Chat),
    Responses(responses::Responses),
}

impl Assembler {
    pub fn new(kind: Kind) -> Self {
        let kind = match kind {
            Kind::Chat => State::Chat(chat::Chat::default()),
            Kind::Responses => State::Responses(responses::Responses::default()),
        };
        Self { kind, broken: false, done: false }
    }

    pub fn push(&mut self, event: &Event) {
        // The SDK stops reading at the sentinel, so what follows is no part of the answer.
        if self.done || self.broken || !event.dispatched {
            return;
        }
        if event.data.starts_with(DONE) {
            self.done = true;
            return;
        }
        let taken = event.event.as_deref() != Some("error")
            && match &mut self.kind {
                State::Chat(chat) => chat.push(&event.data),
                State::Responses(responses) => match serde_json::from_str::<Value>(&event.data) {
                    Ok(Value::Object(data)) if data.get("error").is_none_or(Value::is_null) => responses.push(data),
                    _ => false,
                },
            };
        self.broken = !taken;
    }

    /// The plain body; None unless the stream came to its proper end.
    pub fn finish(self) -> Option<Value> {
        if self.broken {
            return None;
        }
        match self.kind {
            // A chat stream has no other end than the sentinel: without it, the connection may have been cut.
            State::Chat(chat) => self.done.then(|| chat.finish()).flatten(),
            State::Responses(responses) => responses.finish(),
        }
    }

    /// The newest `usage` object that came by.
    pub fn usage(&self) -> Option<Value> {
        self.field("usage").filter(|usage| usage.is_object()).cloned()
    }

    pub fn service_tier(&self) -> Option<String> {
        self.field("service_tier").and_then(Value::as_str).map(str::to_owned)
    }

    pub fn model(&self) -> Option<&str> {
        self.field("model").and_then(Value::as_str)
    }

    /// Bytes of generated text so far, arguments of tools included.
    pub fn text_len(&self) -> usize {
        match &self.kind {
            State::Chat(chat) => chat.text_len,
            State::Responses(responses) => responses.text_len,
        }
    }

    /// The texts of the answer so far, in the form of a plain body.
    pub fn so_far(&self) -> Value {
        match &self.kind {
            State::Chat(chat) => chat.so_far(),
            State::Responses(responses) => serde_json::json!({"output": [{"text": responses.text}]}),
        }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        match &self.kind {
            State::Chat(chat) => chat.body.get(name),
            State::Responses(responses) => responses.response.as_ref()?.get(name),
        }
    }
}

/// A plain body as the data of the events that a stream would have brought. `include_usage` adds a chat stream's usage
/// chunk; the Responses API always tells its usage.
pub fn replay_events(kind: Kind, body: &Value, include_usage: bool) -> Vec<Value> {
    match kind {
        Kind::Chat => chat::replay(body, include_usage),
        Kind::Responses => responses::replay(body),
    }
}

/// The same as the bytes of a stream.
pub fn replay(kind: Kind, body: &Value, include_usage: bool) -> Bytes {
    let mut text = String::new();
    for event in replay_events(kind, body, include_usage) {
        let name = event.get("type").and_then(Value::as_str).filter(|_| kind == Kind::Responses);
        sse::write(&mut text, name, &event.to_string());
    }
    if kind == Kind::Chat {
        sse::write(&mut text, None, DONE);
    }
    text.into()
}

/// Whether a chat chunk is the one that `include_usage` adds.
pub fn is_usage_only_chunk(chunk: &Value) -> bool {
    chunk.get("usage").is_some_and(Value::is_object)
        && chunk.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty)
}
