//! Logprobs: asked for when a scorer wants them, and not again where there are none.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exchange::{Endpoint, Request};

/// Servers beyond this many that have no logprobs: they are asked again.
const MOST: usize = 1000;

/// URLs and models that gave no logprobs.
#[derive(Default)]
pub struct Without(Mutex<HashSet<(Arc<str>, Arc<str>)>>);

impl Without {
    pub fn knows(&self, place: &(Arc<str>, Arc<str>)) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(place)
    }

    /// Remembers a place; whether that is news.
    pub fn remember(&self, place: (Arc<str>, Arc<str>)) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(place)
    }
}

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
