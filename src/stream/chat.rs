//! Chat completion chunks. Fields nobody has heard of survive in both directions.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// Fields of a message that come in a delta of their own, in this order. The rest of a message comes in the first one.
const TEXTS: [&str; 4] = ["reasoning_content", "reasoning", "content", "refusal"];

/// More choices or tool calls than this are nonsense, not an answer.
const MOST_ITEMS: u64 = 4096;

/// A completion as far as it has come.
#[derive(Debug, Default)]
pub struct Chat {
    /// The plain body, without its choices.
    pub body: Object,
    choices: Vec<Object>,
    pub text_len: usize,
}

impl Chat {
    /// Takes a chunk. False: it has no meaning that a plain body could carry.
    pub fn push(&mut self, chunk: Object) -> bool {
        for (name, value) in chunk {
            match (name.as_str(), value) {
                ("choices", Value::Array(choices)) => {
                    for choice in choices {
                        if self.push_choice(choice).is_none() {
                            return false;
                        }
                    }
                }
                ("choices", Value::Null) => {}
                ("choices", _) => return false,
                ("object", _) => {}
                // Gateways write the first chunk of a stream with fields that later ones leave empty.
                (_, Value::Null) => {
                    self.body.entry(name).or_insert(Value::Null);
                }
                (_, Value::String(text)) if text.is_empty() => {
                    self.body.entry(name).or_insert(Value::String(text));
                }
                (_, value) => {
                    self.body.insert(name, value);
                }
            }
        }
        true
    }

    fn push_choice(&mut self, choice: Value) -> Option<()> {
        let Value::Object(choice) = choice else { return None };
        let index = match choice.get("index") {
            None | Some(Value::Null) => 0,
            Some(index) => index.as_u64().filter(|index| *index < MOST_ITEMS)?,
        };
        let found = self.choices.iter().position(|known| known.get("index").and_then(Value::as_u64) == Some(index));
        let at = found.unwrap_or_else(|| {
            let mut new = Object::new();
            new.insert("index".to_owned(), index.into());
            new.insert("message".to_owned(), Value::Object(Object::new()));
            new.insert("finish_reason".to_owned(), Value::Null);
            self.choices.push(new);
            self.choices.len() - 1
        });
        let known = self.choices.get_mut(at)?;
        for (name, value) in choice {
            match (name.as_str(), value) {
                ("index", _) => {}
                ("delta", Value::Object(delta)) => {
                    let Some(Value::Object(message)) = known.get_mut("message") else { return None };
                    self.text_len += merge(message, delta)?;
                }
                ("delta", Value::Null) => {}
                ("delta", _) => return None,
                ("logprobs", Value::Object(logprobs)) => match known.get_mut("logprobs") {
                    Some(Value::Object(whole)) => {
                        merge(whole, logprobs)?;
                    }
                    _ => {
                        known.insert(name, Value::Object(logprobs));
                    }
                },
                (_, Value::Null) => {
                    known.entry(name).or_insert(Value::Null);
                }
                (_, value) => {
                    known.insert(name, value);
                }
            }
        }
        Some(())
    }

    pub fn finish(mut self) -> Option<Value> {
        if self.choices.is_empty() {
            return None;
        }
        self.choices.sort_by_key(|choice| choice.get("index").and_then(Value::as_u64));
        for choice in &mut self.choices {
            let Some(Value::Object(message)) = choice.get_mut("message") else { return None };
            message.entry("role").or_insert_with(|| "assistant".into());
            message.entry("content").or_insert(Value::Null);
            if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
                // Holes would be calls whose beginning was lost.
                if calls.iter().any(|call| !call.is_object()) {
                    return None;
                }
                calls.iter_mut().filter_map(Value::as_object_mut).for_each(|call| drop(call.remove("index")));
            }
        }
        self.body.insert("object".to_owned(), "chat.completion".into());
        self.body.insert("choices".to_owned(), self.choices.into_iter().map(Value::Object).collect());
        Some(Value::Object(self.body))
    }
}

/// Adds a delta to what there is: texts grow, lists grow (by their items' `index` where they have one), objects merge.
/// Returns the bytes of text that were added.
fn merge(whole: &mut Object, delta: Object) -> Option<usize> {
    let mut added = 0;
    for (name, value) in delta {
        let names_itself = matches!(name.as_str(), "role" | "id" | "type" | "index");
        match (whole.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more)) => {
                // Some servers repeat who a call is for with every piece of its arguments.
                if names_itself || (name == "name" && *text == more) {
                    if !more.is_empty() {
                        *text = more;
                    }
                } else {
                    added += more.len();
                    text.push_str(&more);
                }
            }
            (Some(Value::Object(known)), Value::Object(more)) => added += merge(known, more)?,
            (Some(Value::Array(known)), Value::Array(more)) => added += merge_items(known, more)?,
            (Some(known), value) => {
                if !value.is_null() {
                    added += value.as_str().map_or(0, str::len);
                    *known = value;
                }
            }
            (None, Value::Array(more)) => {
                let mut known = Vec::new();
                added += merge_items(&mut known, more)?;
                whole.insert(name, Value::Array(known));
            }
            (None, value) => {
                if !names_itself {
                    added += value.as_str().map_or(0, str::len);
                }
                whole.insert(name, value);
            }
        }
    }
    Some(added)
}

fn merge_items(known: &mut Vec<Value>, more: Vec<Value>) -> Option<usize> {
    let mut added = 0;
    for item in more {
        let index = item.get("index").and_then(Value::as_u64);
        match (index, item) {
            (Some(index), Value::Object(item)) => {
                if index >= MOST_ITEMS {
                    return None;
                }
                let index = usize::try_from(index).ok()?;
                if known.len() <= index {
                    known.resize(index + 1, Value::Null);
                }
                match known.get_mut(index)? {
                    Value::Object(whole) => added += merge(whole, item)?,
                    hole => {
                        added += item.get("function").and_then(Value::as_object).map_or(0, texts_in);
                        *hole = Value::Object(item);
                    }
                }
            }
            (_, item) => known.push(item),
        }
    }
    Some(added)
}

fn texts_in(object: &Object) -> usize {
    object.values().filter_map(Value::as_str).map(str::len).sum()
}

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
