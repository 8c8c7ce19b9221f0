//! A plain completion as the chunks that a stream would have brought.

use serde_json::{Value, json};

use super::{Object, TEXTS};

/// The chunks of a plain completion: for each choice the role, the texts, the tool calls, the finish; then the usage.
pub fn replay(body: &Value, include_usage: bool) -> Vec<Value> {
    let mut frame = body.as_object().cloned().unwrap_or_default();
    let usage = frame.remove("usage");
    let choices = match frame.remove("choices") {
        Some(Value::Array(choices)) => choices,
        _ => Vec::new(),
    };
    frame.insert("object".to_owned(), "chat.completion.chunk".into());
    if include_usage {
        frame.insert("usage".to_owned(), Value::Null);
    }
    let mut chunks = Vec::new();
    for choice in choices {
        let Value::Object(choice) = choice else { continue };
        for part in choice_parts(choice) {
            let mut chunk = frame.clone();
            chunk.insert("choices".to_owned(), Value::Array(vec![Value::Object(part)]));
            chunks.push(Value::Object(chunk));
        }
    }
    if include_usage && let Some(usage) = usage {
        let mut chunk = frame;
        chunk.insert("choices".to_owned(), json!([]));
        chunk.insert("usage".to_owned(), usage);
        chunks.push(Value::Object(chunk));
    }
    chunks
}

fn choice_parts(mut choice: Object) -> Vec<Object> {
    let index = choice.remove("index").unwrap_or_else(|| 0.into());
    let mut message = match choice.remove("message") {
        Some(Value::Object(message)) => message,
        _ => Object::new(),
    };
    let finish_reason = choice.remove("finish_reason").unwrap_or_default();
    let mut logprobs = choice.remove("logprobs");
    let has_logprobs = logprobs.is_some();
    let part = |delta: Object, logprobs: Option<Value>| {
        let mut part = Object::new();
        part.insert("index".to_owned(), index.clone());
        part.insert("delta".to_owned(), Value::Object(delta));
        if has_logprobs {
            part.insert("logprobs".to_owned(), logprobs.unwrap_or_default());
        }
        part.insert("finish_reason".to_owned(), Value::Null);
        part
    };

    let mut deltas = Vec::new();
    for name in TEXTS {
        if let Some(Value::String(text)) = message.get_mut(name)
            && !text.is_empty()
        {
            deltas.push(single(name, Value::String(std::mem::take(text))));
            // The first delta tells the field with nothing in it, as OpenAI's does; of optional fields it says nothing.
            if name != "content" {
                message.remove(name);
            }
        }
    }
    let mut calls = Vec::new();
    if let Some(Value::Array(whole)) = message.remove("tool_calls") {
        for (position, call) in whole.into_iter().enumerate() {
            calls.extend(call_parts(position, call));
        }
        if calls.is_empty() {
            message.insert("tool_calls".to_owned(), json!([]));
        }
    }

    let mut parts = vec![part(message, None)];
    for delta in deltas {
        // They are the tokens of the text, whichever it is.
        let is_last_text = !delta.contains_key("reasoning") && !delta.contains_key("reasoning_content");
        parts.push(part(delta, if is_last_text { logprobs.take() } else { None }));
    }
    parts.extend(calls.into_iter().map(|call| part(single("tool_calls", json!([call])), None)));
    let mut last = part(Object::new(), logprobs.take());
    last.insert("finish_reason".to_owned(), finish_reason);
    last.extend(choice);
    parts.push(last);
    parts
}

/// A call as OpenAI sends it: who it is for, then its arguments.
fn call_parts(position: usize, call: Value) -> Vec<Value> {
    let Value::Object(mut call) = call else { return Vec::new() };
    call.insert("index".to_owned(), position.into());
    let mut parts = Vec::new();
    if let Some(Value::Object(function)) = call.get_mut("function")
        && let Some(Value::String(arguments)) = function.get_mut("arguments")
        && !arguments.is_empty()
    {
        let arguments = std::mem::take(arguments);
        parts.push(json!({"index": position, "function": {"arguments": arguments}}));
    }
    parts.insert(0, Value::Object(call));
    parts
}

fn single(name: &str, value: Value) -> Object {
    let mut object = Object::new();
    object.insert(name.to_owned(), value);
    object
}
