//! Waits for the first token of a stream: until then another upstream may answer in its place, and nobody notices.

use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::exchange::{Body, Response};
use crate::stream::Kind;
use crate::stream::sse::Event;

/// Events without a token in them that are waited for: more than any upstream sends before its first.
const MOST_EVENTS: usize = 64;

/// Reads a stream up to its first token, or its end. The response is as if nothing had been read; false: it broke off, or
/// told of an error, before that.
pub async fn begin(kind: Kind, mut response: Response) -> (Response, bool) {
    let Body::Stream(mut events) = response.body else { return (response, true) };
    let mut read = Vec::new();
    let mut ended;
    let good = loop {
        let next = events.next().await;
        ended = next.is_none();
        let verdict = match &next {
            None => Some(false),
            Some(Err(_)) => Some(false),
            Some(Ok(event)) if is_error(event) => Some(false),
            Some(Ok(event)) => {
                (kind.is_end(event) || has_token(kind, event) || read.len() >= MOST_EVENTS).then_some(true)
            }
        };
        read.extend(next);
        if let Some(good) = verdict {
            break good;
        }
    };
    let read = stream::iter(read);
    // A stream that has ended must not be asked again.
    response.body = Body::Stream(if ended { Box::pin(read) } else { Box::pin(read.chain(events)) });
    (response, good)
}

fn is_error(event: &Event) -> bool {
    if matches!(event.event.as_deref(), Some("error" | "response.failed")) {
        return true;
    }
    event.data.contains("\"error\"")
        && serde_json::from_str::<Value>(&event.data)
            .is_ok_and(|data| data.get("error").is_some_and(|error| !error.is_null()))
}

fn has_token(kind: Kind, event: &Event) -> bool {
    let Ok(data) = serde_json::from_str::<Value>(&event.data) else { return true };
    match kind {
        Kind::Chat => data.get("choices").and_then(Value::as_array).into_iter().flatten().any(|choice| {
            let delta = choice.get("delta").and_then(Value::as_object);
            delta.into_iter().flatten().any(|(name, value)| name != "role" && !is_empty(value))
                || choice.get("finish_reason").is_some_and(|reason| !reason.is_null())
        }),
        Kind::Responses => data
            .get("type")
            .and_then(Value::as_str)
            .is_none_or(|kind| kind.ends_with(".delta") || kind.ends_with(".done")),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
