//! The only room with a network, and the only one that spends money: one charge for each attempt that was billed.
//!
//! `http.rs` sends, `retry.rs` says what is tried again, `attempt.rs` keeps the account of one attempt, `meter.rs` reads the
//! usage off the answer. Nothing here knows of caching or routing.

pub mod attempt;
pub mod http;
pub mod meter;
pub mod retry;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;

use crate::budget::Budgets;
use crate::context::Context;
use crate::error::{Error, Phase, Result};
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::ledger::{Count, PriceTable};
use crate::patience::{Failure, Patience};
use crate::upstream::attempt::{DEFAULT, Running};
use crate::upstream::meter::Meter;
use crate::upstream::retry::{Verdict, judge, pause};

/// One attempt, ready to go out.
pub struct Outgoing<'a> {
    pub url: &'a str,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The caller wants server-sent events.
    pub stream: bool,
}

/// Who puts bytes on the wire: reqwest, or an adapter to the user's own http client.
#[async_trait]
pub trait Sender: Send + Sync {
    /// One attempt, no retries. An answer with any status is Ok; a body that is not a stream comes whole.
    async fn send(&self, outgoing: Outgoing<'_>, patience: Arc<Patience>) -> Result<Response>;
}

/// The end of the pipeline.
pub struct Upstream {
    prices: Arc<PriceTable>,
    name: Arc<str>,
    /// None when the policy has none: then nothing is counted before it leaves.
    budgets: Option<Arc<Budgets>>,
    /// By URL, whether requests that ask for a usage chunk are taken there; none is here before that is known.
    takes_usage: Mutex<HashMap<Arc<str>, bool>>,
}

/// More URLs than this do not fit in `takes_usage`; it starts again then.
const MOST_URLS: usize = 1000;

impl Upstream {
    pub fn new(prices: Arc<PriceTable>, budgets: Option<Arc<Budgets>>) -> Self {
        Self { prices, name: DEFAULT.into(), budgets, takes_usage: Mutex::default() }
    }

    pub fn prices(&self) -> &Arc<PriceTable> {
        &self.prices
    }

    /// Sends until there is an answer that counts, or nobody wants another attempt.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call(&self, cx: &Context, mut request: Request) -> Result<Response> {
        let mut usage_added = self.adds_usage(&request);
        let mut sent = if usage_added { with_usage(&request) } else { request.clone() };
        let mut refused = false;
        let mut retries = 0_u32;
        let mut is_substitute = false;
        loop {
            cx.patience.touch();
            let mut reservation = None;
            if let Some(budgets) = &self.budgets {
                let admitted = budgets.admit(cx, request, None)?;
                request = admitted.request;
                reservation = admitted.reservation;
                if admitted.is_substitute {
                    is_substitute = true;
                    sent = if usage_added { with_usage(&request) } else { request.clone() };
                }
            }
            let running = Running::start(cx, &sent, &self.name, reservation);
            let connect = cx.patience.connect();
            let outgoing = Outgoing {
                url: &sent.url,
                headers: attempt_headers(&sent, retries),
                body: sent.body().clone(),
                stream: sent.is_stream(),
            };
            let wish = match cx.sender.send(outgoing, Arc::clone(&cx.patience)).await {
                Ok(mut response) => {
                    if usage_added && matches!(response.status, 400 | 422) && self.may_refuse_usage(&request, &response)
                    {
                        // Our own addition may be what it refuses: the caller's request, as it is, tells.
                        running.refused(response.status);
                        usage_added = false;
                        refused = true;
                        sent = request.clone();
                        continue;
                    }
                    if (refused || usage_added) && response.is_success() {
                        self.note_usage(&request.url, usage_added);
                    }
                    response.usage_added = usage_added;
                    response.is_substitute = is_substitute;
                    let verdict = judge(response.status, &response.headers, SystemTime::now());
                    let Verdict::Retry(wish) = verdict else {
                        let meter = Meter::new(running, &request, Arc::clone(&self.prices));
                        return Ok(meter.read(response));
                    };
                    running.refused(response.status);
                    let failure = Failure::Status {
                        status: response.status,
                        headers: response.headers.clone(),
                        body: full(&response.body),
                    };
                    if !cx.patience.failed(failure) {
                        return Ok(response);
                    }
                    wish
                }
                Err(error) if error.is_retryable() => {
                    running.failed(&error);
                    if outgrown(&error, connect, cx.patience.connect()) {
                        continue;
                    }
                    if !cx.patience.failed(Failure::Error(error.clone())) {
                        return Err(error);
                    }
                    None
                }
                Err(error) => {
                    running.failed(&error);
                    return Err(error);
                }
            };
            retries += 1;
            cx.books.count(Count::Retry);
            let wait = wish.unwrap_or_else(|| pause(retries, random()));
            cx.patience.pauses(wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn adds_usage(&self, request: &Request) -> bool {
        request.endpoint == Endpoint::Chat
            && request.is_stream()
            && !request.asks_usage()
            && self.usage_taken(&request.url) != Some(false)
    }

    /// Whether an error may be about the usage chunk that was asked for.
    fn may_refuse_usage(&self, request: &Request, response: &Response) -> bool {
        let names_it = match &response.body {
            Body::Full(body) => {
                let text = String::from_utf8_lossy(body);
                text.contains("stream_options") || text.contains("include_usage")
            }
            Body::Stream(_) => false,
        };
        // Where it was taken before, another error is what the caller has to see, and is not asked for twice.
        names_it || self.usage_taken(&request.url).is_none()
    }

    fn usage_taken(&self, url: &Arc<str>) -> Option<bool> {
        self.known_usage().get(url).copied()
    }

    fn note_usage(&self, url: &Arc<str>, taken: bool) {
        let mut known = self.known_usage();
        if known.get(url) == Some(&taken) {
            return;
        }
        if known.len() >= MOST_URLS {
            known.clear();
        }
        known.insert(Arc::clone(url), taken);
    }

    fn known_usage(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        self.takes_usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter with a longer connect timeout came while the attempt ran: the time that ran out was not the one that counts.
fn outgrown(error: &Error, then: Option<Duration>, now: Option<Duration>) -> bool {
    matches!(error, Error::Timeout { phase: Phase::Connect, .. })
        && match (then, now) {
            (Some(then), Some(now)) => now > then,
            (Some(_), None) => true,
            (None, _) => false,
        }
}

fn with_usage(request: &Request) -> Request {
    let mut options = request.get::<serde_json::Map<String, serde_json::Value>>("stream_options").unwrap_or_default();
    options.insert("include_usage".to_owned(), serde_json::Value::Bool(true));
    request.with_field("stream_options", &serde_json::Value::Object(options).to_string())
}

fn attempt_headers(request: &Request, retries: u32) -> HeaderMap {
    const COUNT: &str = "x-stainless-retry-count";
    let mut headers = (*request.headers).clone();
    if retries > 0 && headers.get(COUNT).is_some_and(|count| count == "0") {
        headers.insert(COUNT, HeaderValue::from(retries));
    }
    headers
}

fn full(body: &Body) -> Bytes {
    match body {
        Body::Full(bytes) => bytes.clone(),
        Body::Stream(_) => Bytes::new(),
    }
}

/// 0..1, good enough to spread retries: the hasher's keys are random per process, the count is new each time.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(SystemTime::now()) >> 11) as f64 / (1_u64 << 53) as f64
}
