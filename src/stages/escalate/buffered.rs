//! A draft that has come whole: judged as a body, and handed on as it came.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;

use crate::context::Context;
use crate::error::Error;
use crate::escalate::strip::{Added, event_without, without};
use crate::exchange::{Body, Endpoint, Response};
use crate::ledger::{Money, Usage};
use crate::receipt::Compressed;
use crate::stream::Kind;
use crate::stream::sse::Event;

/// See the module.
pub struct Buffered {
    pub status: u16,
    pub body: Bytes,
    headers: HeaderMap,
    /// None = it did not come as a stream.
    events: Option<Vec<Event>>,
    usage_added: bool,
    is_whole: bool,
    is_substitute: bool,
    /// What the receipt says of it.
    usage: Option<Usage>,
    model_answered: Option<Arc<str>>,
    cost: Option<Money>,
    compressed: Option<Compressed>,
}

impl Buffered {
    /// Reads an answer to its end.
    ///
    /// # Errors
    /// It broke off.
    pub async fn read(cx: &Context, response: Response) -> Result<Self, BrokenOff> {
        let Response { status, headers, body, usage_added, whole, is_whole, is_substitute, .. } = response;
        let (body, events) = match body {
            Body::Full(body) => (body, None),
            Body::Stream(mut stream) => {
                let mut events = Vec::new();
                let mut error = None;
                while let Some(event) = stream.next().await {
                    match event {
                        Ok(event) => events.push(event),
                        Err(why) => {
                            error = Some(why);
                            break;
                        }
                    }
                }
                drop(stream);
                let Some(body) = whole.get().cloned() else {
                    return Err(BrokenOff { status, headers, events, error, usage_added });
                };
                (body, Some(events))
            }
        };
        let (usage, model_answered, cost) =
            cx.receipt.read(|facts| (facts.usage.clone(), facts.model_answered.clone(), facts.cost));
        let compressed = cx.receipt.read(|facts| facts.decisions.as_ref()?.compress.clone());
        Ok(Self {
            status,
            body,
            headers,
            events,
            usage_added,
            is_whole,
            is_substitute,
            usage,
            model_answered,
            cost,
            compressed,
        })
    }

    pub fn cost(&self) -> Option<Money> {
        self.cost
    }

    /// The answer for the caller. `added`: what came that nobody but a stage asked for.
    pub fn into_response(mut self, cx: &Context, endpoint: Endpoint, added: Option<Added>) -> Response {
        cx.receipt.update(|facts| {
            facts.usage = self.usage;
            facts.model_answered = self.model_answered;
            facts.cost = self.cost;
            if self.compressed.is_some() || facts.decisions.is_some() {
                facts.decisions().compress = self.compressed;
            }
        });
        let body = added.map_or_else(|| self.body.clone(), |added| without(endpoint, &self.body, added));
        if body.len() != self.body.len() {
            self.headers.remove(http::header::CONTENT_LENGTH);
        }
        let mut response = Response::new(self.status, self.headers, Body::Full(body.clone()));
        response.usage_added = self.usage_added;
        response.is_whole = self.is_whole;
        response.is_substitute = self.is_substitute;
        if let Some(events) = self.events {
            response.whole = Arc::new(OnceLock::from(body));
            let cut = Kind::of(endpoint).zip(added);
            let stripped = move |event: Event| match cut {
                Some((kind, added)) => event_without(kind, event, added),
                None => event,
            };
            response.body =
                Body::Stream(Box::pin(stream::iter(events.into_iter().map(move |event| Ok(stripped(event))))));
        }
        response
    }
}

/// A stream that ended before its answer did.
pub struct BrokenOff {
    status: u16,
    headers: HeaderMap,
    events: Vec<Event>,
    /// None = it just ended.
    error: Option<Error>,
    usage_added: bool,
}

impl BrokenOff {
    pub fn into_error(self) -> Error {
        self.error.unwrap_or_else(|| Error::connection("the stream ended before its answer did"))
    }

    /// What came of it, and then what broke it off.
    pub fn into_response(self) -> Response {
        let came = self.events.into_iter().map(Ok).chain(self.error.map(Err));
        let mut response = Response::new(self.status, self.headers, Body::Stream(Box::pin(stream::iter(came))));
        response.usage_added = self.usage_added;
        response
    }
}
