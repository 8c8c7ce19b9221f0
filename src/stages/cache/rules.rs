//! Which calls may be answered from the cache, and which answers may be kept. When in doubt: not.

use serde_json::{Map, Value};

use crate::effects::has_effects;
use crate::exchange::{Endpoint, Request};

/// Whether a request may be looked up, shared and stored at all.
pub fn is_cacheable(request: &Request, deterministic_only: bool) -> bool {
    if request.endpoint == Endpoint::Other || !request.has("model") && !request.has("prompt") {
        return false;
    }
    if has_effects(request) {
        return false;
    }
    !deterministic_only || is_deterministic(request)
}

/// Whether a request asks for the same answer each time.
pub fn is_deterministic(request: &Request) -> bool {
    request.endpoint == Endpoint::Embeddings || request.get::<f64>("temperature") == Some(0.0) || request.has("seed")
}

/// Whether the user set the limit at which an answer may have been cut: then the cut answer is the answer asked for.
pub fn sets_limit(request: &Request) -> bool {
    ["max_tokens", "max_completion_tokens", "max_output_tokens"].iter().any(|name| request.has(name))
}

/// Whether a plain body that is not plainly whole ([`crate::glance`]) is a complete, good answer all the same.
pub fn is_good_answer(endpoint: Endpoint, body: &[u8], user_set_limit: bool) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    if body.get("error").is_some_and(|error| !error.is_null()) {
        return false;
    }
    match endpoint {
        Endpoint::Chat => good_chat(&body, user_set_limit),
        Endpoint::Responses => good_response(&body, user_set_limit),
        Endpoint::Embeddings => good_embeddings(&body),
        Endpoint::Other => false,
    }
}

fn good_embeddings(body: &Value) -> bool {
    let items = body.get("data").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    !items.is_empty() && items.iter().all(|item| !is_empty(item.get("embedding")))
}

fn good_chat(body: &Value, user_set_limit: bool) -> bool {
    let Some(choices) = body.get("choices").and_then(Value::as_array) else { return false };
    !choices.is_empty()
        && choices.iter().all(|choice| {
            let finished = match choice.get("finish_reason").and_then(Value::as_str) {
                Some("stop" | "tool_calls" | "function_call") => true,
                Some("length") => user_set_limit,
                _ => false,
            };
            let Some(message) = choice.get("message") else { return false };
            let calls = message.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let legacy = message.get("function_call").filter(|call| !call.is_null());
            let calls_are_whole = calls
                .iter()
                .filter_map(|call| call.get("function"))
                .chain(legacy)
                .all(|function| !is_empty(function.get("name")) && is_object_text(function.get("arguments")));
            let says_something = !is_empty(message.get("content")) || !calls.is_empty() || legacy.is_some();
            finished && is_empty(message.get("refusal")) && calls_are_whole && says_something
        })
}

fn good_response(body: &Value, user_set_limit: bool) -> bool {
    let complete = match body.get("status").and_then(Value::as_str) {
        Some("completed") => true,
        Some("incomplete") => {
            user_set_limit
                && body.pointer("/incomplete_details/reason").and_then(Value::as_str) == Some("max_output_tokens")
        }
        _ => false,
    };
    let output = body.get("output").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut says_something = false;
    for item in output {
        match item.get("type").and_then(Value::as_str) {
            Some("message") => {
                let parts = item.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if parts.iter().any(|part| part.get("type").and_then(Value::as_str) == Some("refusal")) {
                    return false;
                }
                says_something |= parts.iter().any(|part| !is_empty(part.get("text")));
            }
            Some("function_call") => {
                if !is_object_text(item.get("arguments")) {
                    return false;
                }
                says_something = true;
            }
            Some("custom_tool_call") => says_something = true,
            Some("reasoning") => {}
            // The server did something of its own.
            _ => return false,
        }
    }
    complete && says_something
}

/// The arguments of a call are an object. An empty text is how some servers write "no arguments".
fn is_object_text(text: Option<&Value>) -> bool {
    match text {
        Some(Value::String(text)) => text.is_empty() || serde_json::from_str::<Map<String, Value>>(text).is_ok(),
        Some(Value::Object(_)) | None | Some(Value::Null) => true,
        Some(_) => false,
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}
