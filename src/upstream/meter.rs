//! Reads the usage off an answer and charges it: off the body, or off a stream as it passes by.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::exchange::{Body, Endpoint, EventStream, Request, Response};
use crate::glance::Glance;
use crate::ledger::usage::Counts;
use crate::ledger::{PriceTable, Usage};
use crate::stream::sse::Event;
use crate::stream::{Assembler, Kind};
use crate::tokens::answer::answer_tokens;
use crate::tokens::prompt_of;
use crate::upstream::attempt::Running;

/// Charges one attempt.
pub struct Meter {
    /// None once it was charged.
    running: Option<Running>,
    /// Whether it is the answer that the caller gets.
    is_chosen: Arc<AtomicBool>,
    endpoint: Endpoint,
    url: Arc<str>,
    model_asked: Arc<str>,
    /// The name that the application knows: an alias, or the same.
    alias: Arc<str>,
    /// What was asked: its tokens are counted where the answer does not tell.
    request: Request,
    prices: Arc<PriceTable>,
}

/// The fields that money needs, of an answer that has them in an odd form.
#[derive(Deserialize)]
struct Odd<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    usage: Option<Value>,
    service_tier: Option<Value>,
}

impl Meter {
    /// `alias`: the name in the policy under which a fallback was asked; None = the name that the application used.
    pub fn new(running: Running, request: &Request, alias: Option<&Arc<str>>, prices: Arc<PriceTable>) -> Self {
        let asked = || running.cx().receipt.read(|facts| Arc::clone(&facts.model_asked));
        Self {
            endpoint: request.endpoint,
            url: Arc::clone(&request.url),
            model_asked: request.model().unwrap_or_default().into(),
            alias: alias.map_or_else(asked, Arc::clone),
            request: request.clone(),
            prices,
            running: Some(running),
            is_chosen: Arc::default(),
        }
    }

    /// Charges a whole answer at once, and a stream when it ends, however it ends.
    pub fn read(mut self, mut response: Response) -> Response {
        if !response.is_success() {
            if let Some(running) = self.running.take() {
                running.refused(response.status);
            }
            return response;
        }
        if let Some(running) = &self.running {
            running.answers(response.status);
        }
        match response.body {
            Body::Full(bytes) => {
                let glance = Glance::of(self.endpoint, &bytes);
                self.charge_body(glance.as_ref(), &bytes);
                response.is_whole = glance.is_some_and(|glance| glance.is_whole);
                response.body = Body::Full(bytes);
            }
            Body::Stream(events) => {
                self.is_chosen = Arc::clone(&response.is_chosen);
                let kind = if self.endpoint == Endpoint::Responses { Kind::Responses } else { Kind::Chat };
                response.body = Body::Stream(Box::pin(Metered {
                    events,
                    kind,
                    assembler: Some(Assembler::new(kind)),
                    meter: self,
                    whole: Arc::clone(&response.whole),
                }));
            }
        }
        response
    }

    fn charge_body(&mut self, glance: Option<&Glance>, body: &Bytes) {
        let (model, usage) = match glance {
            Some(glance) => (glance.model.clone(), glance.usage.clone()),
            None => {
                // What is not JSON has no usage and no answer; the SDK raises on it.
                let Ok(odd) = serde_json::from_slice::<Odd<'_>>(body) else {
                    if let Some(running) = self.running.take() {
                        running.unbilled();
                    }
                    return;
                };
                let model = odd.model.and_then(|model| serde_json::from_str::<Arc<str>>(model.get()).ok());
                let tier = odd.service_tier.as_ref().and_then(Value::as_str);
                let usage = odd.usage.and_then(|usage| Usage::new(self.endpoint, &Counts::read(&usage), tier));
                (model, usage)
            }
        };
        let usage = usage.unwrap_or_else(|| self.estimate(&serde_json::from_slice(body).unwrap_or_default()));
        self.charge(model, usage, true);
    }

    /// What an answer used that does not tell, by the tokens of its texts and of the request's.
    fn estimate(&self, answer: &Value) -> Usage {
        let completion =
            if self.endpoint == Endpoint::Embeddings { 0 } else { answer_tokens(&self.model_asked, answer).tokens };
        Usage { prompt: prompt_of(&self.request).count.tokens, completion, estimated: true, ..Usage::default() }
    }

    /// `ended`: it came to its end; else it is an answer only if the caller got what there was of it.
    fn charge(&mut self, model_answered: Option<Arc<str>>, usage: Usage, ended: bool) {
        let model = model_answered.clone().unwrap_or_else(|| Arc::clone(&self.model_asked));
        // The user's own price comes first, also under the name that was asked for: a server may answer under another one
        // (a snapshot, a file, a deployment). A bundled price for the name asked for would be another model's.
        let cost = self
            .prices
            .charge_own(&model, &usage)
            .or_else(|| self.prices.charge_own(&self.model_asked, &usage))
            .or_else(|| self.prices.charge_own(&self.alias, &usage))
            .or_else(|| self.prices.charge(&self.url, &model, &usage, now()));
        let Some(running) = self.running.take() else { return };
        if ended || self.is_chosen.load(Ordering::Relaxed) {
            if running.is_for_caller() {
                running.cx().receipt.update(|facts| facts.model_answered = model_answered);
            }
            running.charged(model, usage, cost);
        } else {
            running.abandoned(model, usage, cost);
        }
    }
}

struct Metered {
    events: EventStream,
    kind: Kind,
    /// None once the stream was charged.
    assembler: Option<Assembler>,
    meter: Meter,
    whole: Arc<OnceLock<Bytes>>,
}

impl Metered {
    fn settle(&mut self, ended: bool) {
        let Some(assembler) = self.assembler.take() else { return };
        let model = assembler.model().map(Into::into);
        let usage = assembler
            .usage()
            .and_then(|usage| {
                Usage::new(self.meter.endpoint, &Counts::read(&usage), assembler.service_tier().as_deref())
            })
            .unwrap_or_else(|| self.meter.estimate(&assembler.so_far()));
        self.meter.charge(model, usage, ended);
        if ended
            && let Some(body) = assembler.finish()
            && let Ok(text) = serde_json::to_vec(&body)
        {
            let _ = self.whole.set(text.into());
        }
    }
}

impl Stream for Metered {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.events.as_mut().poll_next(task));
        match &next {
            Some(Ok(event)) => {
                if let Some(assembler) = &mut self.assembler {
                    assembler.push(event);
                }
                // Before the last event is handed on: whoever reads it may not read on.
                if self.kind.is_end(event) {
                    self.settle(true);
                }
            }
            Some(Err(_)) => self.settle(false),
            None => self.settle(true),
        }
        Poll::Ready(next)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // The caller left in the middle: the tokens so far were billed all the same.
        self.settle(false);
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
