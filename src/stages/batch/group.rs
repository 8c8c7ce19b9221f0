//! Which calls may share a request: those that differ in the user's last message alone.
//!
//! When in doubt, a call goes alone: a field that nobody here knows, anything that is no text, anything that belongs to one
//! answer (tools, logprobs, several choices, stop sequences).

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::batch::Shape;
use crate::context::Context;
use crate::effects::has_effects;
use crate::exchange::{Endpoint, Request};
use crate::key::is_ignored_header;
use crate::tokens::answer::text_tokens;
use crate::tokens::chat_tokens;

/// Fields that mean the same for each question of a pack.
const SHARED: [&str; 15] = [
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "verbosity",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
];
/// Fields that are none with these values.
const NONE: [(&str, &[&[u8]]); 5] =
    [("stream", &[b"false"]), ("store", &[b"false"]), ("logprobs", &[b"false"]), ("n", &[b"1"]), ("stop", &[b"[]"])];

/// What the calls of a pack have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group([u8; 32]);

/// One call's part of a pack.
#[derive(Clone, Debug)]
pub struct Item {
    /// All messages before the question.
    pub prefix: Vec<Value>,
    /// The text of the user's last message.
    pub question: String,
    pub question_tokens: u64,
    pub shape: Shape,
    /// Tokens that the answer may have; None = not said.
    pub most: Option<u64>,
}

/// The model as its server knows it.
pub fn model(cx: &Context, request: &Request) -> String {
    cx.tier.as_ref().map_or_else(|| request.model().unwrap_or_default(), |tier| tier.model().to_owned())
}

/// Of what comes before the question. It may be long: once for a pack, not for each of its calls.
pub fn prefix_tokens(model: &str, prefix: &[Value]) -> u64 {
    if prefix.is_empty() { 0 } else { chat_tokens(model, &Value::from(prefix.to_vec()), None).tokens }
}

/// # Errors
/// Why the call goes alone, in words.
pub fn read(cx: &Context, request: &Request, session: Option<u64>) -> Result<(Group, Item), String> {
    if request.endpoint != Endpoint::Chat {
        return Err("it is no chat completion".to_owned());
    }
    // What a call may cost, it may cost alone.
    if cx.max_cost.is_some() {
        return Err("max_cost is for one call".to_owned());
    }
    // A key of one call's own is good for one request.
    if has_effects(request) || request.headers.contains_key("idempotency-key") {
        return Err("it has an effect on the server, or an Idempotency-Key".to_owned());
    }
    let mut fields: Vec<(&str, &[u8])> = Vec::new();
    for (name, value) in request.fields() {
        let is_none = value == b"null" || NONE.iter().any(|(none, values)| *none == name && values.contains(&value));
        if name == "messages" || is_none {
            continue;
        }
        if !SHARED.contains(&name) {
            return Err(format!("{name} may not mean the same for several questions"));
        }
        fields.push((name, value));
    }
    let mut prefix = request.get::<Vec<Value>>("messages").unwrap_or_default();
    let last = prefix.pop().as_ref().and_then(question);
    let question = last.filter(|_| prefix.iter().all(is_plain)).ok_or("its messages are not of text alone")?;
    let format = request.get::<Value>("response_format");
    let shape = Shape::read(format.as_ref()).ok_or("its response_format is none that several can share")?;
    let group = group(cx, request, session, fields, &prefix);
    let question_tokens = text_tokens(&model(cx, request), &question).tokens;
    let most = most(request).ok_or("the length of its answer is not limited by a number above 0")?;
    Ok((group, Item { prefix, question, question_tokens, shape, most }))
}

fn group(
    cx: &Context,
    request: &Request,
    session: Option<u64>,
    mut fields: Vec<(&str, &[u8])>,
    prefix: &[Value],
) -> Group {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    // Never across clients, whose owners may be others, nor across tags, which are accounts of the bill. Where an event
    // loop has to send, those who wait on another one would wait for it.
    part(&cx.books.client().number().to_le_bytes());
    part(&session.unwrap_or_default().to_le_bytes());
    part(cx.tag.as_deref().unwrap_or_default().as_bytes());
    // Two names of one model may have prices, budgets and fallbacks of their own.
    part(cx.receipt.read(|facts| Arc::clone(&facts.model_asked)).as_bytes());
    part(&cx.sender.identity().to_le_bytes());
    let event_loop = cx.event_loop.filter(|_| cx.sender.needs_event_loop());
    part(&event_loop.unwrap_or_default().to_le_bytes());
    part(cx.tier.as_ref().map_or("", |tier| tier.name()).as_bytes());
    part(request.url.as_bytes());
    let mut headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| !is_ignored_header(name))
        .collect();
    headers.sort_unstable();
    fields.sort_unstable();
    for (name, value) in headers.into_iter().chain([("", &b""[..])]).chain(fields) {
        part(name.as_bytes());
        part(value);
    }
    part(Value::from(prefix.to_vec()).to_string().as_bytes());
    Group(hash.finalize().into())
}

/// Tokens that the answer may have; the inner None: not said. None: it is said in a way that cannot be multiplied.
fn most(request: &Request) -> Option<Option<u64>> {
    let mut most = None;
    for name in ["max_tokens", "max_completion_tokens"] {
        if request.has(name) {
            most = Some(request.get::<u64>(name).filter(|tokens| *tokens > 0)?);
        }
    }
    Some(most)
}

/// The text of a user's message; None: it is something else, or more than text.
fn question(message: &Value) -> Option<String> {
    let members = message.as_object()?;
    if members.get("role")?.as_str()? != "user" || members.keys().any(|key| !matches!(key.as_str(), "role" | "content"))
    {
        return None;
    }
    let text = text(members.get("content")?)?;
    (!text.trim().is_empty()).then_some(text)
}

fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Option<Vec<&str>> = parts
                .iter()
                .map(|part| if part.get("type")? == "text" { part.get("text")?.as_str() } else { None })
                .collect();
            Some(texts?.join("\n"))
        }
        _ => None,
    }
}

/// A message of nothing but text.
fn is_plain(message: &Value) -> bool {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    let has_calls =
        ["tool_calls", "function_call", "audio"].iter().any(|name| message.get(*name).is_some_and(|x| !x.is_null()));
    matches!(role, "system" | "developer" | "user" | "assistant")
        && !has_calls
        && message.get("content").and_then(text).is_some()
}
