//! Logprobs: what makes an answer come with them.

use crate::exchange::{Endpoint, Request};

/// The request with what makes its answer come with logprobs.
pub fn with_logprobs(request: &Request) -> Request {
    match request.endpoint {
        Endpoint::Responses => {
            let mut include = request.get::<Vec<String>>("include").unwrap_or_default();
            include.push("message.output_text.logprobs".to_owned());
            let include = serde_json::Value::from(include).to_string();
            request.with_field("include", &include).with_field("top_logprobs", "2")
        }
        _ => request.with_field("logprobs", "true").with_field("top_logprobs", "2"),
    }
}
