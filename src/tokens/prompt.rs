//! Tokens of a prompt as the API bills it: its texts, and what stands around them.
//!
//! The numbers are those of OpenAI's cookbook ("How to count tokens with tiktoken"), which were found by comparing with
//! bills. What no rule is known for (images, audio, files, calls of tools) is estimated and marked so. Besides the count
//! there is a bound, for budgets: what the API will hardly bill more than, or why nobody can say.

use serde_json::{Map, Value};

use super::{TokenCount, Vocabulary};
use crate::exchange::{Endpoint, Request};

const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
/// The beginning of the answer is part of the prompt.
const REPLY: u64 = 3;
const PER_PROPERTIES: u64 = 3;
const PER_PROPERTY: u64 = 3;
const PER_ENUM_ITEM: u64 = 3;
/// The names of an enumeration take the place of something: each such property has this many less.
const ENUM_LESS: u64 = 3;
const TOOLS_END: u64 = 12;
/// An image of 1024 x 1024 at gpt-4o.
const PER_IMAGE: u64 = 765;
/// The largest that the API takes: 10,000 patches and their factor; gpt-4o-mini bills tiles, at 33 times the tokens.
const MOST_PER_IMAGE: u64 = 16_200;
const MOST_PER_IMAGE_AT_4O_MINI: u64 = 48_169;
/// What a template may add that nobody sees: the date, a system prompt of its own.
const TEMPLATE: u64 = 64;

/// Fields by which the server adds to the prompt what it finds (OpenAI, OpenRouter, xAI, Qwen, Zhipu, Azure).
const BRING_MORE: [&str; 6] =
    ["web_search_options", "plugins", "search_parameters", "enable_search", "web_search", "data_sources"];

/// The tokens of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub count: TokenCount,
    /// Whether the model's vocabulary is known.
    pub is_known: bool,
    /// No more than this will be billed; or what it is that nobody can count.
    pub most: Result<u64, &'static str>,
}

/// Tokens of `messages` and `tools`, as a chat request has them.
pub fn chat_tokens(model: &str, messages: &Value, tools: Option<&Value>) -> TokenCount {
    let mut tally = Tally::new(model);
    tally.messages(messages);
    if let Some(tools) = tools {
        tally.tools(tools);
    }
    tally.count()
}

/// Tokens that one message adds to a prompt.
pub fn message_tokens(model: &str, message: &Value) -> u64 {
    chat_tokens(model, message, None).tokens.saturating_sub(REPLY)
}

/// Tokens of the prompt of a request.
pub fn prompt_of(request: &Request) -> Prompt {
    let model = request.model().unwrap_or_default();
    let mut tally = Tally::new(&model);
    let field = |name| request.get::<Value>(name);
    match request.endpoint {
        Endpoint::Chat => {
            tally.messages(&field("messages").unwrap_or_default());
            for name in ["tools", "functions"] {
                if let Some(tools) = field(name) {
                    tally.tools(&tools);
                }
            }
            if let Some(format) = field("response_format") {
                tally.schema(&format);
            }
            if let Some(prediction) = field("prediction") {
                // What of it was not used is billed as output, at no other price than what was.
                tally.schema(&prediction);
            }
            if BRING_MORE.iter().any(|name| request.has(name) && request.raw(name) != Some(b"false")) {
                tally.unknown("what a search brings");
            }
        }
        Endpoint::Responses => {
            match field("input") {
                Some(Value::String(text)) => tally.messages(&serde_json::json!([{"role": "user", "content": text}])),
                Some(items) => tally.messages(&items),
                None => {}
            }
            if let Some(Value::String(text)) = field("instructions") {
                tally.messages(&serde_json::json!([{"role": "developer", "content": text}]));
                tally.tokens -= REPLY;
            }
            if let Some(tools) = field("tools") {
                tally.tools(&tools);
            }
            if let Some(text) = field("text") {
                tally.schema(&text);
            }
            if ["previous_response_id", "conversation", "prompt"].iter().any(|name| request.has(name)) {
                tally.unknown("a prompt that is on the server");
            }
        }
        Endpoint::Embeddings => tally.input(&field("input").unwrap_or_default()),
        Endpoint::Other => tally.unknown("a request of another kind"),
    }
    tally.prompt()
}

struct Tally {
    vocabulary: Vocabulary,
    is_known: bool,
    is_4o_mini: bool,
    tokens: u64,
    /// Bytes of all texts: no vocabulary makes more tokens of them.
    bytes: u64,
    /// What the bound has more than the count.
    extra: u64,
    estimated: bool,
    unknown: Option<&'static str>,
}

impl Tally {
    fn new(model: &str) -> Self {
        let known = Vocabulary::of_model(model);
        Self {
            vocabulary: known.unwrap_or(Vocabulary::O200k),
            is_known: known.is_some(),
            is_4o_mini: model.contains("gpt-4o-mini"),
            tokens: 0,
            bytes: 0,
            extra: 0,
            estimated: known.is_none(),
            unknown: None,
        }
    }

    fn count(&self) -> TokenCount {
        TokenCount { tokens: self.tokens, estimated: self.estimated }
    }

    fn prompt(&self) -> Prompt {
        // Of a known vocabulary only the framing may differ. Of another one, texts may come to twice as many tokens, and
        // never to more than they have bytes.
        let most = if self.is_known {
            self.tokens + self.tokens / 50 + 16
        } else {
            (2 * self.tokens).min(self.tokens + self.bytes) + TEMPLATE
        };
        let most = self.unknown.map_or(Ok(most.saturating_add(self.extra)), Err);
        Prompt { count: self.count(), is_known: self.is_known, most }
    }

    fn unknown(&mut self, what: &'static str) {
        self.estimated = true;
        self.unknown.get_or_insert(what);
    }

    fn text(&mut self, text: &str) {
        let count = self.vocabulary.count(text);
        self.tokens = self.tokens.saturating_add(count.tokens);
        self.bytes = self.bytes.saturating_add(text.len() as u64);
        if count.estimated && self.is_known {
            // Too long to be counted: the rest of it may be of another kind.
            self.extra = self.extra.saturating_add(count.tokens);
        }
        self.estimated |= count.estimated;
    }

    fn messages(&mut self, messages: &Value) {
        let items = match messages {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        for item in items {
            match item {
                Value::String(text) => {
                    self.tokens += PER_MESSAGE;
                    self.text(text);
                }
                Value::Object(message) => self.message(message),
                _ => {}
            }
        }
        self.tokens += REPLY;
    }

    fn message(&mut self, message: &Map<String, Value>) {
        self.tokens += PER_MESSAGE;
        if message.get("type").and_then(Value::as_str) == Some("item_reference") {
            self.unknown("a prompt that is on the server");
        }
        for (name, value) in message {
            match (name.as_str(), value) {
                ("content" | "output" | "summary", value) => self.content(value),
                ("name", Value::String(text)) => {
                    self.tokens += PER_NAME;
                    self.text(text);
                }
                ("role" | "refusal" | "reasoning_content" | "arguments" | "input", Value::String(text)) => {
                    self.text(text);
                }
                ("tool_calls", Value::Array(calls)) => calls.iter().for_each(|call| self.call(call)),
                ("function_call", Value::Object(_)) => self.call(value),
                ("audio", value) if !value.is_null() => self.unknown("audio"),
                ("encrypted_content", Value::String(text)) => {
                    // Thoughts of the model, which it reads again: fewer tokens than letters.
                    self.estimated = true;
                    self.extra = self.extra.saturating_add(text.len() as u64);
                }
                // Items of the server's tools, and what nobody has heard of: no more than its JSON, about.
                (_, Value::Array(items)) if !items.is_empty() => self.schema(value),
                (_, Value::Object(fields)) if !fields.is_empty() => self.schema(value),
                _ => {}
            }
        }
    }

    fn call(&mut self, call: &Value) {
        // How calls stand in a prompt is not published.
        self.estimated = true;
        self.tokens += PER_MESSAGE;
        let inner = call.get("function").or_else(|| call.get("custom")).unwrap_or(call);
        for name in ["name", "arguments", "input"] {
            if let Some(text) = inner.get(name).and_then(Value::as_str) {
                self.text(text);
            }
        }
        self.extra += 16;
    }

    fn content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.text(text),
            Value::Array(parts) => parts.iter().for_each(|part| self.part(part)),
            Value::Object(_) => self.part(content),
            _ => {}
        }
    }

    fn part(&mut self, part: &Value) {
        match part.get("type").and_then(Value::as_str) {
            Some("image_url" | "input_image" | "computer_screenshot") => {
                self.estimated = true;
                self.tokens += PER_IMAGE;
                let most = if self.is_4o_mini { MOST_PER_IMAGE_AT_4O_MINI } else { MOST_PER_IMAGE };
                self.extra += most - PER_IMAGE;
            }
            Some("input_audio") => self.unknown("audio"),
            Some("file" | "input_file") => self.unknown("a file"),
            _ => match part.get("text").or_else(|| part.get("refusal")).unwrap_or(part) {
                Value::String(text) => self.text(text),
                _ => self.unknown("content of a kind that is not known"),
            },
        }
    }

    fn tools(&mut self, tools: &Value) {
        let Some(tools) = tools.as_array().filter(|tools| !tools.is_empty()) else { return };
        let before = self.tokens;
        let per_function = if self.vocabulary == Vocabulary::O200k { 7 } else { 10 };
        for tool in tools {
            let kind = tool.get("type").and_then(Value::as_str);
            if !matches!(kind, None | Some("function" | "custom")) {
                self.unknown("what a tool of the server's brings");
                continue;
            }
            self.tokens += per_function;
            let function = tool.get("function").or_else(|| tool.get("custom")).unwrap_or(tool);
            let named = |name: &str| function.get(name).and_then(Value::as_str).unwrap_or_default();
            self.text(&format!("{}:{}", named("name"), without_stop(named("description"))));
            if let Some(parameters) = function.get("parameters") {
                self.properties(parameters, 0);
            }
            if let Some(format) = function.get("format") {
                self.schema(format);
            }
        }
        self.tokens += TOOLS_END;
        // Descriptions of types are written out in ways that the rules do not have in all cases.
        self.extra += (self.tokens - before) / 4;
    }

    fn properties(&mut self, schema: &Value, depth: u32) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty()) else {
            return;
        };
        // The rules are for flat ones.
        self.estimated |= depth > 0;
        self.tokens += PER_PROPERTIES;
        for (name, property) in properties {
            self.tokens += PER_PROPERTY;
            let named = |name: &str| property.get(name).and_then(Value::as_str).unwrap_or_default();
            if let Some(items) = property.get("enum").and_then(Value::as_array) {
                self.tokens -= ENUM_LESS;
                for item in items {
                    self.tokens += PER_ENUM_ITEM;
                    match item {
                        Value::String(text) => self.text(text),
                        other => self.text(&other.to_string()),
                    }
                }
            }
            self.text(&format!("{name}:{}:{}", named("type"), without_stop(named("description"))));
            if depth < 64 {
                self.properties(property, depth + 1);
                if let Some(items) = property.get("items") {
                    self.properties(items, depth + 1);
                }
            }
            let combined = ["anyOf", "oneOf", "allOf", "$ref"];
            if combined.iter().any(|name| property.get(name).is_some()) {
                self.schema(property);
            }
        }
        if let Some(shared) = schema.get("$defs").or_else(|| schema.get("definitions")) {
            self.schema(shared);
        }
    }

    /// JSON that the model reads in some form: no more than its text, about.
    fn schema(&mut self, schema: &Value) {
        if schema.get("type").and_then(Value::as_str) == Some("text") && schema.get("text").is_none() {
            return;
        }
        self.estimated = true;
        self.text(&schema.to_string());
    }

    fn input(&mut self, input: &Value) {
        match input {
            Value::String(text) => self.text(text),
            // Tokens, by their numbers.
            Value::Number(_) => self.tokens += 1,
            Value::Array(items) => items.iter().for_each(|item| self.input(item)),
            Value::Object(part) => {
                for value in part.values() {
                    self.input(value);
                }
            }
            _ => {}
        }
    }
}

/// The last full stop of a description is not written.
fn without_stop(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}
