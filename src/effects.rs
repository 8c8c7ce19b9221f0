//! Which requests do more than ask, or ask about what is not in them: they are neither answered from a store nor sent twice
//! to be quicker. What is made of that is the stages' and the upstream's.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Endpoint, Request};

/// Request fields that tie a call to state on the server.
const STATE_FIELDS: [&str; 2] = ["previous_response_id", "conversation"];

/// Request fields whose effect or answer is not in the request: a web search (OpenAI, xAI, OpenRouter, Qwen, Zhipu), audio
/// out (large, and each one expires).
const EFFECT_FIELDS: [&str; 6] =
    ["web_search_options", "search_parameters", "plugins", "enable_search", "web_search", "audio"];

/// Models that search the web by themselves: `gpt-4o-search-preview`, `gpt-5-search-api`; Perplexity's; OpenRouter's suffix.
fn searches(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.contains("-search-") || name.starts_with("sonar") || name.ends_with(":online")
}

/// Whether a request changes something on the server, or its answer depends on more than the request.
pub fn has_effects(request: &Request) -> bool {
    let is_true = |name| request.raw(name) == Some(b"true");
    if is_true("store") || is_true("background") {
        return true;
    }
    if STATE_FIELDS.iter().chain(&EFFECT_FIELDS).any(|name| request.has(name)) {
        return true;
    }
    if request.get::<Vec<String>>("modalities").is_some_and(|kinds| kinds.iter().any(|kind| kind == "audio")) {
        return true;
    }
    // A prompt template lives on the server and changes there, unless its version is pinned.
    if request.endpoint == Endpoint::Responses
        && request.has("prompt")
        && request.get::<Value>("prompt").is_none_or(|prompt| !prompt.get("version").is_some_and(Value::is_string))
    {
        return true;
    }
    if request.model().is_some_and(|model| searches(&model)) {
        return true;
    }
    // Items that the server holds.
    if request.endpoint == Endpoint::Responses
        && request.raw("input").is_some_and(|input| memmem(input, b"\"item_reference\""))
    {
        return true;
    }
    has_hosted_tool(request)
}

/// Whether a request names what one server holds: no other can answer it.
pub fn is_tied(request: &Request) -> bool {
    STATE_FIELDS.iter().any(|name| request.has(name))
        || request.endpoint == Endpoint::Responses
            && (request.has("prompt") || request.raw("input").is_some_and(|input| memmem(input, b"\"item_reference\"")))
}

/// Tools that the server runs have effects, or see a world that changes. The caller runs `function` and `custom` ones.
fn has_hosted_tool(request: &Request) -> bool {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    let Some(raw) = request.raw("tools") else { return false };
    match serde_json::from_slice::<Option<Vec<Tool<'_>>>>(raw) {
        Ok(tools) => {
            tools.unwrap_or_default().iter().any(|tool| !matches!(tool.kind.as_deref(), Some("function" | "custom")))
        }
        Err(_) => true,
    }
}

fn memmem(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
