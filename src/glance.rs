//! One pass over a plain answer, for all who want to know something of it: what money needs, and whether it is the usual
//! answer, whole and good. What is odd is looked at again where it matters (`upstream/meter.rs`, `stages/cache/rules.rs`);
//! there is no mirror of the API's schema here.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::exchange::Endpoint;
use crate::ledger::Usage;
use crate::ledger::usage::{Counts, loose};

/// What the pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    pub model: Option<Arc<str>>,
    /// None: the upstream did not say what it used.
    pub usage: Option<Usage>,
    /// Text that ended by itself, or a vector for each input. False: only a closer look can tell.
    pub is_whole: bool,
}

/// The fields of all three endpoints. Whatever is not of these types makes the answer an odd one.
#[derive(Deserialize)]
struct Answer<'a> {
    model: Option<&'a str>,
    service_tier: Option<&'a str>,
    #[serde(default, deserialize_with = "loose")]
    usage: Counts,
    error: Option<IgnoredAny>,
    status: Option<&'a str>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    output: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    data: Option<Vec<Vector<'a>>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    finish_reason: Option<&'a str>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    refusal: Option<IgnoredAny>,
    tool_calls: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Item<'a> {
    r#type: Option<&'a str>,
    #[serde(borrow)]
    content: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    r#type: Option<&'a str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Vector<'a> {
    #[serde(borrow)]
    embedding: Option<&'a RawValue>,
}

impl Glance {
    /// None: an odd answer, or none at all.
    pub fn of(endpoint: Endpoint, body: &[u8]) -> Option<Self> {
        let answer = serde_json::from_slice::<Answer<'_>>(body).ok()?;
        let is_whole = answer.error.is_none()
            && match endpoint {
                Endpoint::Chat => all(answer.choices.as_deref(), Choice::is_whole),
                Endpoint::Responses => {
                    answer.status == Some("completed") && all(answer.output.as_deref(), Item::is_whole)
                }
                Endpoint::Embeddings => all(answer.data.as_deref(), Vector::is_whole),
                Endpoint::Other => false,
            };
        let usage = Usage::new(endpoint, &answer.usage, answer.service_tier);
        Some(Self { model: answer.model.map(Into::into), usage, is_whole })
    }
}

impl Choice<'_> {
    fn is_whole(&self) -> bool {
        let Some(Message { content, refusal, tool_calls, function_call }) = &self.message else { return false };
        let is_text_alone = refusal.is_none() && tool_calls.is_none() && function_call.is_none();
        self.finish_reason == Some("stop") && is_text_alone && is_text(*content)
    }
}

impl Item<'_> {
    fn is_whole(&self) -> bool {
        self.r#type == Some("message")
            && all(self.content.as_deref(), |part| part.r#type == Some("output_text") && is_text(part.text))
    }
}

impl Vector<'_> {
    fn is_whole(&self) -> bool {
        self.embedding.is_some_and(|embedding| !matches!(embedding.get(), "[]" | "\"\""))
    }
}

/// Whether there are any, and each is as it should be.
fn all<T>(items: Option<&[T]>, is_right: impl Fn(&T) -> bool) -> bool {
    items.is_some_and(|items| !items.is_empty() && items.iter().all(is_right))
}

/// Whether a value is a string that says something.
fn is_text(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get().starts_with('"') && value.get() != "\"\"")
}
