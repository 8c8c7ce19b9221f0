//! Whether packed answers are what their questions get alone: a sample of them is asked alone as well, when the caller has
//! its answer.

use std::sync::Arc;

use crate::context::Context;
use crate::escalate::answer::Answer;
use crate::escalate::extract::agree;
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::ledger::{Count, Purpose};
use crate::patience::Patience;
use crate::pipeline::Next;
use crate::stages::aside::beside;
use crate::stages::sample::is_drawn;

/// What it costs stands in a line of its own.
const NAME: &str = "batch check";

/// Asks in the background, if the call is one of the sample. `share`: 0 to 1.
pub fn start(share: f64, cx: &Context, next: &Next, request: &Request, packed: &str) {
    cx.books.count(Count::Packed);
    if !is_drawn(share) {
        return;
    }
    let limits = cx.tier.as_ref().and_then(|tier| tier.target.limits).unwrap_or(cx.limits);
    let inner = beside(cx, Purpose::Own(NAME), limits, Arc::new(Patience::alone(limits)));
    let (next, request, packed) = (next.clone(), request.clone(), packed.to_owned());
    cx.spawn(async move {
        let Ok(response) = next.run(&inner, request).await else { return };
        if let Some(alone) = text(&response) {
            inner.books.count(Count::Checked);
            if agree(&packed, &alone, None) {
                inner.books.count(Count::CheckedSame);
            }
        }
    });
}

fn text(response: &Response) -> Option<String> {
    match &response.body {
        Body::Full(body) if response.is_success() => Answer::read(Endpoint::Chat, body).map(|answer| answer.said()),
        _ => None,
    }
}
