//! What a request asks, whatever its endpoint: the views of it that routing and judging share.
//!
//! Read once a call, and only where a stage needs it. Not a mirror of the API's schema: what is not looked at here is in
//! the request.

use serde_json::Value;

use crate::exchange::{Endpoint, Request};

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    /// JSON schema of its arguments; None = none was given.
    pub parameters: Option<Value>,
}

/// What the caller says of calls of tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    #[default]
    Auto,
    None,
    /// At least one call.
    Required,
    /// This one.
    Named(String),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Text of the system and developer messages (Responses: `instructions` too), joined by blank lines.
    pub system: String,
    /// Text of the last message of the user's.
    pub prompt: String,
    /// Messages of the user's.
    pub turns: usize,
    /// All messages (Responses: input items), as they were sent.
    pub messages: Vec<Value>,
    /// The last message is a tool's result.
    pub after_tool: bool,
    pub tools: Vec<Tool>,
    /// Tools that the provider runs (Responses: `web_search`, `file_search`, ...), and custom ones without a schema.
    pub other_tools: usize,
    pub tool_choice: ToolChoice,
    /// `json_object` or a schema was asked for.
    pub wants_json: bool,
    pub schema: Option<Value>,
    pub has_images: bool,
    pub has_audio: bool,
    pub has_files: bool,
    /// Tokens that the answer may have; None = not said.
    pub max_output: Option<u64>,
    /// The caller asked for logprobs.
    pub wants_logprobs: bool,
    /// Answers that were asked for (`n`).
    pub answers: u64,
}

impl Question {
    /// What a request asks. A request of another endpoint than chat and responses has no messages.
    pub fn read(request: &Request) -> Self {
        let mut question = Self { answers: request.get("n").unwrap_or(1), ..Self::default() };
        let tools = request.get::<Vec<Value>>("tools").unwrap_or_default();
        match request.endpoint {
            Endpoint::Chat => {
                question.messages = request.get("messages").unwrap_or_default();
                question.max_output = request.get("max_completion_tokens").or_else(|| request.get("max_tokens"));
                question.wants_logprobs = request.raw("logprobs") == Some(b"true");
                question.format(&request.get("response_format").unwrap_or_default());
                question.has_audio = request.has("audio");
                for functions in request.get::<Vec<Value>>("functions").unwrap_or_default() {
                    question.tool(&functions);
                }
                for tool in &tools {
                    question.tool(tool.get("function").unwrap_or(&Value::Null));
                }
            }
            Endpoint::Responses => {
                question.system = request.get("instructions").unwrap_or_default();
                question.messages = match request.get("input") {
                    Some(Value::String(text)) => vec![serde_json::json!({"role": "user", "content": text})],
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                question.max_output = request.get("max_output_tokens");
                let include = request.get::<Vec<String>>("include").unwrap_or_default();
                question.wants_logprobs = include.iter().any(|name| name.contains("logprobs"));
                let text = request.get::<Value>("text").unwrap_or_default();
                question.format(text.get("format").unwrap_or(&Value::Null));
                for tool in &tools {
                    let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
                    question.tool(if is_function { tool } else { &Value::Null });
                }
            }
            Endpoint::Embeddings | Endpoint::Other => return question,
        }
        question.tool_choice = choice(&request.get("tool_choice").unwrap_or_default());
        question.read_messages();
        question
    }

    fn tool(&mut self, function: &Value) {
        match function.get("name").and_then(Value::as_str) {
            Some(name) => {
                let parameters = function.get("parameters").filter(|schema| !schema.is_null()).cloned();
                self.tools.push(Tool { name: name.to_owned(), parameters });
            }
            None => self.other_tools += 1,
        }
    }

    fn format(&mut self, format: &Value) {
        match format.get("type").and_then(Value::as_str) {
            Some("json_object") => self.wants_json = true,
            Some("json_schema") => {
                self.wants_json = true;
                let schema = format.get("json_schema").and_then(|named| named.get("schema"));
                self.schema = schema.or_else(|| format.get("schema")).cloned();
            }
            _ => {}
        }
    }

    fn read_messages(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        for message in &messages {
            let role = message.get("role").and_then(Value::as_str);
            let kind = message.get("type").and_then(Value::as_str);
            self.after_tool = role == Some("tool") || kind == Some("function_call_output");
            let text = self.content(message.get("content").unwrap_or(&Value::Null));
            match role {
                Some("system" | "developer") => {
                    if !self.system.is_empty() {
                        self.system.push_str("\n\n");
                    }
                    self.system.push_str(&text);
                }
                Some("user") => {
                    self.turns += 1;
                    self.prompt = text;
                }
                _ => {}
            }
        }
        self.messages = messages;
    }

    /// The text of a message; notes what else is in it.
    fn content(&mut self, content: &Value) -> String {
        let Some(parts) = content.as_array() else { return content.as_str().unwrap_or_default().to_owned() };
        let mut text = String::new();
        for part in parts {
            match part.get("type").and_then(Value::as_str) {
                Some("text" | "input_text" | "output_text") => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                }
                Some("image_url" | "input_image") => self.has_images = true,
                Some("input_audio") => self.has_audio = true,
                Some("file" | "input_file") => self.has_files = true,
                _ => {}
            }
        }
        text
    }
}

fn choice(value: &Value) -> ToolChoice {
    match value {
        Value::String(word) if word == "none" => ToolChoice::None,
        Value::String(word) if word == "required" => ToolChoice::Required,
        Value::Object(named) => {
            let name = named.get("name").or_else(|| named.get("function").and_then(|function| function.get("name")));
            match name.and_then(Value::as_str) {
                Some(name) => ToolChoice::Named(name.to_owned()),
                None if named.get("mode").and_then(Value::as_str) == Some("required") => ToolChoice::Required,
                None => ToolChoice::Auto,
            }
        }
        _ => ToolChoice::Auto,
    }
}
