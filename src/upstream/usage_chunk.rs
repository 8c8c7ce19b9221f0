//! The usage chunk of a chat stream: asked for where the caller did not, so that a stream's cost is known and not estimated;
//! `engine.rs` takes it out again. Which upstreams take the request for it is learned here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exchange::{Body, Endpoint, Request, Response};

/// More URLs than this start the list again.
const MOST_URLS: usize = 1000;

/// By URL, whether requests that ask for a usage chunk are taken there; none is here before that is known.
#[derive(Default)]
pub struct UsageChunks(Mutex<HashMap<Arc<str>, bool>>);

impl UsageChunks {
    pub fn adds(&self, request: &Request) -> bool {
        request.endpoint == Endpoint::Chat
            && request.is_stream()
            && !request.asks_usage()
            && self.taken(&request.url) != Some(false)
    }

    /// Whether an error may be about the usage chunk that was asked for.
    pub fn may_be_refused(&self, request: &Request, response: &Response) -> bool {
        let names_it = match &response.body {
            Body::Full(body) => {
                let text = String::from_utf8_lossy(body);
                text.contains("stream_options") || text.contains("include_usage")
            }
            Body::Stream(_) => false,
        };
        // Where it was taken before, another error is what the caller has to see, and is not asked for twice.
        names_it || self.taken(&request.url).is_none()
    }

    fn taken(&self, url: &Arc<str>) -> Option<bool> {
        self.known().get(url).copied()
    }

    pub fn note(&self, url: &Arc<str>, taken: bool) {
        let mut known = self.known();
        if known.get(url) == Some(&taken) {
            return;
        }
        if known.len() >= MOST_URLS {
            known.clear();
        }
        known.insert(Arc::clone(url), taken);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request with the chunk asked for.
pub fn with_usage(request: &Request) -> Request {
    let mut options = request.get::<serde_json::Map<String, serde_json::Value>>("stream_options").unwrap_or_default();
    options.insert("include_usage".to_owned(), serde_json::Value::Bool(true));
    request.with_field("stream_options", &serde_json::Value::Object(options).to_string())
}
