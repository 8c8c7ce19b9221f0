//! What an answer says, whatever its endpoint: the view of it that all scorers share.
//!
//! How logprobs that only a scorer asked for are taken out again is in `strip.rs`.

use serde_json::{Value, json};

use crate::exchange::Endpoint;

/// A call of a tool that the model asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    /// As the model wrote them: JSON if it did well, free text of a custom tool.
    pub arguments: String,
    /// Of a custom tool, whose input is free text.
    pub is_custom: bool,
}

/// A token of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenProbability {
    /// Natural logarithm of its probability. NaN = the server did not say.
    pub logprob: f64,
    /// The likeliest tokens at its place, with their logprobs; may be empty.
    pub top: Vec<(String, f64)>,
    pub token: String,
}

/// Says that what an answer comes to are calls of tools.
pub const CALLS: &str = "calls of tools";

/// One of the answers to a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    pub text: String,
    pub refusal: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// Calls of tools that the provider runs itself (Responses: `web_search_call`, ...).
    pub other_calls: usize,
    /// In the words of chat completions: `stop`, `length`, `content_filter`, `tool_calls`, or what else came.
    pub finish: Option<String>,
    /// Empty = none came.
    pub tokens: Vec<TokenProbability>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub choices: Vec<Choice>,
    pub body: Value,
}

impl Choice {
    /// What it comes to, to be compared with another: its text, or the calls of tools that it asks for, as JSON.
    pub fn said(&self) -> String {
        if self.tool_calls.is_empty() {
            return self.text.clone();
        }
        let calls = self.tool_calls.iter().map(|call| {
            let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::from(&*call.arguments));
            json!({"name": call.name, "arguments": arguments})
        });
        json!({CALLS: calls.collect::<Vec<Value>>()}).to_string()
    }
}

impl Answer {
    /// What the first choice comes to.
    pub fn said(&self) -> String {
        self.choices.first().map(Choice::said).unwrap_or_default()
    }

    /// Each choice as an answer of its own.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.choices.iter().map(|choice| Self { choices: vec![choice.clone()], body: Value::Null })
    }

    /// Reads a plain body. None: it is no answer of this endpoint.
    pub fn read(endpoint: Endpoint, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let choices = match endpoint {
            Endpoint::Chat => body.get("choices")?.as_array()?.iter().map(of_chat).collect(),
            Endpoint::Responses => vec![of_response(&body)?],
            Endpoint::Embeddings | Endpoint::Other => return None,
        };
        Some(Self { choices, body })
    }

    /// Text of the first choice; empty if there is none.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| &choice.text)
    }
}

fn of_chat(choice: &Value) -> Choice {
    let message = choice.get("message").unwrap_or(&Value::Null);
    let mut tool_calls: Vec<ToolCall> = list(message, "tool_calls").iter().filter_map(of_call).collect();
    tool_calls.extend(message.get("function_call").and_then(|call| named(call, "arguments", false)));
    Choice {
        text: text_of(message.get("content").unwrap_or(&Value::Null)),
        refusal: said(message, "refusal"),
        tool_calls,
        other_calls: 0,
        finish: said(choice, "finish_reason"),
        tokens: choice.get("logprobs").map(|logprobs| tokens(list(logprobs, "content"))).unwrap_or_default(),
    }
}

fn of_call(call: &Value) -> Option<ToolCall> {
    match call.get("custom") {
        Some(custom) => named(custom, "input", true),
        None => named(call.get("function")?, "arguments", false),
    }
}

fn of_response(body: &Value) -> Option<Choice> {
    let mut choice = Choice::default();
    for item in body.get("output")?.as_array()? {
        match item.get("type").and_then(Value::as_str) {
            Some("message") => list(item, "content").iter().for_each(|part| add_part(&mut choice, part)),
            Some("function_call") => choice.tool_calls.extend(named(item, "arguments", false)),
            Some("custom_tool_call") => choice.tool_calls.extend(named(item, "input", true)),
            Some(kind) if kind.ends_with("_call") => choice.other_calls += 1,
            _ => {}
        }
    }
    let why = body.get("incomplete_details").and_then(|details| details.get("reason")).and_then(Value::as_str);
    choice.finish = match (body.get("status").and_then(Value::as_str), why) {
        (Some("incomplete"), Some("max_output_tokens")) => Some("length".to_owned()),
        (Some("incomplete"), Some(why)) => Some(why.to_owned()),
        (Some("completed"), _) if !choice.tool_calls.is_empty() => Some("tool_calls".to_owned()),
        (Some("completed"), _) => Some("stop".to_owned()),
        (status, _) => status.map(str::to_owned),
    };
    Some(choice)
}

fn add_part(choice: &mut Choice, part: &Value) {
    match part.get("type").and_then(Value::as_str) {
        Some("output_text") => {
            choice.text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
            choice.tokens.extend(tokens(list(part, "logprobs")));
        }
        Some("refusal") => choice.refusal = said(part, "refusal").or(choice.refusal.take()),
        _ => {}
    }
}

/// The text of a message's content: a string, or the texts of its parts.
pub(super) fn text_of(content: &Value) -> String {
    let Some(parts) = content.as_array() else { return content.as_str().unwrap_or_default().to_owned() };
    parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
}

fn named(call: &Value, field: &str, is_custom: bool) -> Option<ToolCall> {
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get(field) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        // Some servers send the object itself.
        Some(value) => value.to_string(),
    };
    Some(ToolCall { name, arguments, is_custom })
}

fn tokens(list: &[Value]) -> Vec<TokenProbability> {
    let token = |value: &Value| value.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
    let logprob = |value: &Value| value.get("logprob").and_then(Value::as_f64).unwrap_or(f64::NAN);
    list.iter()
        .map(|one| TokenProbability {
            logprob: logprob(one),
            top: self::list(one, "top_logprobs").iter().map(|other| (token(other), logprob(other))).collect(),
            token: token(one),
        })
        .collect()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn said(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}
