//! The texts of an answer that came without its usage, whole or in pieces.

use serde_json::Value;

use super::{TokenCount, Vocabulary};

/// Where the API has what the model wrote; anything else in an answer is the server's own.
const TEXTS: [&str; 7] = ["content", "text", "refusal", "reasoning", "reasoning_content", "arguments", "name"];
/// What is walked to get there.
const WAYS: [&str; 8] =
    ["choices", "message", "tool_calls", "function", "function_call", "output", "content", "summary"];

/// Tokens that a model wrote, estimated: what it thought and did not say is not among them.
pub fn answer_tokens(model: &str, body: &Value) -> TokenCount {
    let mut text = String::new();
    gather(body, &mut text);
    text_tokens(model, &text)
}

/// Tokens of a text that a model wrote, estimated.
pub fn text_tokens(model: &str, text: &str) -> TokenCount {
    let vocabulary = Vocabulary::of_model(model).unwrap_or(Vocabulary::O200k);
    TokenCount { estimated: true, ..vocabulary.count(text) }
}

fn gather(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, text)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(found) if TEXTS.contains(&name.as_str()) => text.push_str(found),
                    Value::Array(_) | Value::Object(_) if WAYS.contains(&name.as_str()) => gather(field, text),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
