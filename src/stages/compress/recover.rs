//! What was left out of a tool's result is not lost: the model is offered a tool that brings it back.
//!
//! The call of that tool is answered here, by asking again with the whole result in its place; the application never sees
//! it. To know whether it comes, the answer is read to its end before the application has it.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::escalate::answer::Answer;
use crate::exchange::{Endpoint, Request};

/// The name of the tool.
pub const TOOL: &str = "farthing_restore";
const WHAT: &str =
    "Brings back the full text of a shortened tool result. Call it when what was left out of the result is needed.";

/// A short name for a text, always the same.
pub fn id(text: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(4).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// What stands behind a text that was shortened.
pub fn mark(id: &str) -> String {
    format!("\n[shortened; whole: {TOOL} id={id}]")
}

/// The request with the tool in it; None: it would not be the same request any more.
pub fn offered(request: &Request) -> Option<Request> {
    let is_free = request.raw("tool_choice").is_none_or(|choice| choice == b"\"auto\"" || choice == b"null");
    if !is_free || request.has("functions") || request.get::<u64>("n").unwrap_or(1) > 1 {
        return None;
    }
    let mut tools = request.get::<Vec<Value>>("tools").unwrap_or_default();
    let name = |tool: &Value| tool.get("function").unwrap_or(tool).get("name").cloned();
    if tools.iter().any(|tool| name(tool).is_some_and(|name| name == TOOL)) {
        return None;
    }
    let parameters = json!({
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
        "additionalProperties": false,
    });
    tools.push(match request.endpoint {
        Endpoint::Chat => {
            json!({"type": "function", "function": {"name": TOOL, "description": WHAT, "parameters": parameters}})
        }
        Endpoint::Responses => json!({"type": "function", "name": TOOL, "description": WHAT, "parameters": parameters}),
        Endpoint::Embeddings | Endpoint::Other => return None,
    });
    // The others keep their text: it is the beginning of what the provider has in its cache.
    let own = serde_json::to_string(tools.last()?).ok()?;
    let list = match request.raw("tools").and_then(|raw| std::str::from_utf8(raw).ok()).filter(|_| tools.len() > 1) {
        Some(raw) => format!("{},{own}]", raw.trim_end().strip_suffix(']')?),
        None => format!("[{own}]"),
    };
    Some(request.with_field("tools", &list))
}

/// The ids that an answer asks for; an empty one stands for all. None: it calls other tools, or none.
pub fn asked(answer: &Answer) -> Option<Vec<String>> {
    let calls = answer.choices.iter().flat_map(|choice| &choice.tool_calls).filter(|call| call.name == TOOL);
    let id = |arguments: &str| {
        let read: Option<Value> = serde_json::from_str(arguments).ok();
        read.and_then(|read| Some(read.get("id")?.as_str()?.trim().to_owned())).unwrap_or_default()
    };
    let ids: Vec<String> = calls.map(|call| id(&call.arguments)).collect();
    (!ids.is_empty()).then_some(ids)
}
