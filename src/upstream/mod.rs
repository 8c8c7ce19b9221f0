//! The only room with a network, and the only one that spends money: one charge for each attempt that was billed.
//!
//! `http.rs` sends, `retry.rs` says what is tried again, `fallback.rs` who is asked next, `attempt.rs` keeps the account of
//! one attempt, `meter.rs` reads the usage off the answer, `usage_chunk.rs` asks streams for it. What is known of each
//! upstream is in `states.rs`. Nothing here knows of caching or routing.

pub mod adapt;
pub mod attempt;
pub mod begin;
pub mod breaker;
pub mod fallback;
pub mod http;
pub mod latency;
pub mod limits;
pub mod meter;
pub mod plan;
pub mod retry;
pub mod states;
pub mod usage_chunk;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ::http::{HeaderMap, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::budget::{Admission, Budgets, Names, Place, Reservation};
use crate::context::Context;
use crate::error::{Error, Phase, Result};
use crate::exchange::{Body, Request, Response};
use crate::ledger::{Count, PriceTable, Usage};
use crate::patience::{Failure, Patience};
use crate::stream::Kind;
use crate::tokens::prompt_of;
use crate::upstream::attempt::{DEFAULT, Running};
use crate::upstream::begin::begin;
use crate::upstream::fallback::{Ended, is_curable};
use crate::upstream::limits::Slot;
use crate::upstream::meter::Meter;
use crate::upstream::plan::{Plan, Tier};
use crate::upstream::retry::{Verdict, judge, pause};
use crate::upstream::states::{State, States};
use crate::upstream::usage_chunk::{UsageChunks, with_usage};

/// One attempt, ready to go out.
pub struct Outgoing<'a> {
    pub url: &'a str,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The caller wants server-sent events.
    pub stream: bool,
    /// It goes to an upstream of the policy's, not to the client's own: nothing of the client's may be added to it.
    pub is_named: bool,
}

/// On whose account attempts are made.
#[derive(Default)]
struct Way<'a> {
    /// None = nothing is known of the upstream, and nothing is limited.
    state: Option<&'a Arc<State>>,
    /// The name in the policy's list, for a fallback.
    alias: Option<Arc<str>>,
    /// What it was called before a budget sent it to a cheaper model.
    before: Vec<Arc<str>>,
    /// The call's own request, where the one at hand is already in the words of a fallback.
    origin: Option<&'a Request>,
    is_substitute: bool,
    /// A stream counts as an answer once its first token is there.
    watches: bool,
    deadline: Option<Instant>,
    /// Cheaper models that a budget has sent the call to.
    diverted: Vec<Arc<str>>,
}

/// Who puts bytes on the wire: reqwest, or an adapter to the user's own http client.
#[async_trait]
pub trait Sender: Send + Sync {
    /// One attempt, no retries. An answer with any status is Ok; a body that is not a stream comes whole.
    async fn send(&self, outgoing: Outgoing<'_>, patience: Arc<Patience>) -> Result<Response>;

    /// Tells who sends apart: two clients of one family may have transports of their own.
    fn identity(&self) -> usize {
        0
    }

    /// Whether it gets on only while the caller's event loop runs.
    fn needs_event_loop(&self) -> bool {
        false
    }
}

/// The end of the pipeline.
pub struct Upstream {
    prices: Arc<PriceTable>,
    name: Arc<str>,
    states: States,
    /// None when the policy has none: then nothing is counted before it leaves.
    budgets: Option<Arc<Budgets>>,
    usage_chunks: UsageChunks,
}

impl Upstream {
    pub fn new(prices: Arc<PriceTable>, states: States, budgets: Option<Arc<Budgets>>) -> Self {
        Self { prices, name: DEFAULT.into(), states, budgets, usage_chunks: UsageChunks::default() }
    }

    pub fn prices(&self) -> &Arc<PriceTable> {
        &self.prices
    }

    /// Sends until there is an answer that counts, or nobody wants another attempt.
    ///
    /// # Errors
    /// The error of the last attempt; where the policy names other upstreams, of the last attempt at the first.
    pub async fn call(&self, cx: &Context, request: Request) -> Result<Response> {
        let response = match (&cx.tier, &cx.plan) {
            (Some(tier), _) => self.call_tier(cx, &request, tier).await?,
            (None, Some(plan)) => self.walk(cx, &request, plan).await?,
            (None, None) if self.states.hedge.is_some() => self.walk(cx, &request, &Plan::default()).await?,
            (None, None) => self.attempts(cx, &request, &Way::default()).await.result?,
        };
        response.is_chosen.store(true, Ordering::Relaxed);
        Ok(response)
    }

    /// Asks the model that a stage chose, in its own words.
    async fn call_tier(&self, cx: &Context, request: &Request, tier: &Tier) -> Result<Response> {
        let cx = Context { plan: Some(Arc::clone(&tier.plan)), tier: None, ..cx.clone() };
        let request = tier.target.request(&cx, request);
        cx.patience.turns_to(tier.target.limits);
        self.walk(&cx, &request, &tier.plan).await
    }

    /// All attempts at one upstream, until there is an answer that counts, or nobody wants another.
    async fn attempts(&self, cx: &Context, request: &Request, way: &Way<'_>) -> Ended {
        let name = way.state.and_then(|state| state.name.as_ref()).unwrap_or(&self.name);
        let mut usage_added = self.usage_chunks.adds(request);
        let mut sent = if usage_added { with_usage(request) } else { request.clone() };
        let mut refused = false;
        let mut retries = 0_u32;
        let mut is_substitute = way.is_substitute;
        let mut asked = request.clone();
        let mut names = Names { alias: way.alias.clone(), before: way.before.clone() };
        loop {
            let (slot, reckoned) = match self.enter(cx, &sent, way).await {
                Ok(entered) => entered,
                Err(error) => return Ended::failed(error),
            };
            cx.patience.touch();
            let mut reservations = Vec::new();
            for budgets in self.budgets.iter().chain(&cx.max_cost) {
                let admitted = match budgets.admit(cx, asked.clone(), &mut names, |name| way.place(cx, name)) {
                    Ok(Admission::Leaves(admitted)) => admitted,
                    Ok(Admission::Goes(name)) => {
                        // It waits for nothing at this upstream any more.
                        drop(slot);
                        return Box::pin(self.divert(cx, request, way, &name, names.before)).await;
                    }
                    Err(error) => {
                        // It does not leave: what other budgets hold for it is free again.
                        reservations.into_iter().for_each(Reservation::release);
                        return Ended::failed(error);
                    }
                };
                reservations.extend(admitted.reservation);
                if admitted.is_substitute {
                    is_substitute = true;
                    asked = admitted.request;
                    sent = if usage_added { with_usage(&asked) } else { asked.clone() };
                }
            }
            let began = Instant::now();
            let running = Running::start(cx, &sent, name, reservations);
            let connect = cx.patience.connect();
            let outgoing = Outgoing {
                url: &sent.url,
                headers: attempt_headers(&sent, retries),
                body: sent.body().clone(),
                stream: sent.is_stream(),
                is_named: way.state.is_some_and(|state| state.name.is_some()),
            };
            let result = cx.sender.send(outgoing, Arc::clone(&cx.patience)).await;
            if let (Some(limiter), Ok(response)) = (way.limiter(), &result) {
                limiter.heard(&response.headers);
            }
            let (wish, failed) = match result {
                Ok(mut response) => {
                    if usage_added
                        && matches!(response.status, 400 | 422)
                        && self.usage_chunks.may_be_refused(request, &response)
                    {
                        // Our own addition may be what it refuses: the caller's request, as it is, tells.
                        running.refused(response.status);
                        usage_added = false;
                        refused = true;
                        sent = asked.clone();
                        continue;
                    }
                    if (refused || usage_added) && response.is_success() {
                        self.usage_chunks.note(&request.url, usage_added);
                    }
                    response.usage_added = usage_added;
                    response.is_substitute = is_substitute;
                    let curable = is_curable(response.status);
                    let verdict = judge(response.status, &response.headers, SystemTime::now());
                    let Verdict::Retry(wish) = verdict else {
                        let meter = Meter::new(running, &asked, names.alias.as_ref(), Arc::clone(&self.prices));
                        let response = meter.read(response);
                        let (response, good) = match Kind::of(request.endpoint) {
                            Some(kind) if way.watches => begin(kind, response).await,
                            _ => (response, true),
                        };
                        let curable = curable || !good;
                        way.record(began, curable);
                        return Ended { result: Ok(way.hold(response, slot, reckoned, cx)), curable };
                    };
                    running.refused(response.status);
                    way.record(began, curable);
                    let failure = Failure::Status {
                        status: response.status,
                        headers: response.headers.clone(),
                        body: full(&response.body),
                    };
                    if !cx.patience.failed(failure) {
                        return Ended { result: Ok(response), curable };
                    }
                    (wish, Ended { result: Ok(response), curable })
                }
                Err(error) if error.is_retryable() => {
                    running.failed(&error);
                    if outgrown(&error, connect, cx.patience.connect()) {
                        continue;
                    }
                    way.record(began, true);
                    let failed = Ended::failed(error.clone());
                    if !cx.patience.failed(Failure::Error(error)) {
                        return failed;
                    }
                    (None, failed)
                }
                Err(error) => {
                    running.failed(&error);
                    return Ended::failed(error);
                }
            };
            // Others may have it: it is not needed while we wait.
            drop(slot);
            let wait = wish.unwrap_or_else(|| pause(retries + 1, random()));
            // There will be no time for another attempt after that.
            if way.deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
                return failed;
            }
            retries += 1;
            cx.books.count(Count::Retry);
            cx.patience.pauses(wait);
            tokio::time::sleep(wait).await;
        }
    }

    /// All attempts at a cheaper model of another upstream.
    async fn divert(
        &self,
        cx: &Context,
        request: &Request,
        way: &Way<'_>,
        name: &Arc<str>,
        before: Vec<Arc<str>>,
    ) -> Ended {
        let Some(target) = cx.plan.as_ref().and_then(|plan| plan.substitute(name)) else {
            return Ended::failed(Error::Internal(format!("no plan for the model {name}")));
        };
        let origin = way.origin.unwrap_or(request);
        let request = target.request(cx, origin);
        cx.patience.turns_to(target.limits);
        let state = self.states.get(target.upstream.as_deref(), &target.url, &target.headers);
        let way = Way {
            state: Some(&state),
            alias: Some(Arc::clone(name)),
            before,
            origin: Some(origin),
            is_substitute: true,
            watches: way.watches,
            deadline: way.deadline,
            diverted: way.diverted.iter().chain([name]).map(Arc::clone).collect(),
        };
        self.attempts(cx, &request, &way).await
    }

    /// Waits until the upstream's limits let the request out; returns how many tokens were reckoned for it.
    async fn enter(&self, cx: &Context, request: &Request, way: &Way<'_>) -> Result<(Slot, u64)> {
        let Some(limiter) = way.limiter() else { return Ok((Slot::default(), 0)) };
        // Counting a long prompt takes time that a limit of calls alone is not worth.
        let tokens = if limiter.counts_tokens() { reckon(request) } else { 0 };
        let patience = cx.patience.limits().and_then(|limits| limits.read).map(|read| Instant::now() + read);
        let until = [patience, way.deadline].into_iter().flatten().min();
        Ok((limiter.enter(tokens, until).await?, tokens))
    }
}

impl Way<'_> {
    fn limiter(&self) -> Option<&limits::Limiter> {
        self.state.and_then(|state| state.limiter.as_ref())
    }

    /// Where a cheaper model is, seen from here.
    fn place(&self, cx: &Context, name: &str) -> Place {
        if self.diverted.iter().any(|known| **known == *name) {
            return Place::Nowhere;
        }
        match &cx.plan {
            Some(plan) if plan.substitute(name).is_some() => Place::Elsewhere,
            Some(plan) if plan.absent.iter().any(|known| **known == *name) => Place::Nowhere,
            _ => Place::Here,
        }
    }

    fn record(&self, began: Instant, failed: bool) {
        if let Some(state) = self.state {
            state.record(began, failed);
        }
    }

    /// Keeps the place among the calls at once until the answer has ended.
    fn hold(&self, mut response: Response, slot: Slot, reckoned: u64, cx: &Context) -> Response {
        let Some(state) = self.state.filter(|state| state.limiter.is_some()) else { return response };
        let held = Held { state: Arc::clone(state), reckoned, cx: cx.clone(), _slot: slot };
        if let Body::Stream(events) = response.body {
            response.body = Body::Stream(Box::pin(events.inspect(move |_| {
                let _ = &held;
            })));
        }
        response
    }
}

/// What an answer holds of its upstream's limits while it comes in.
struct Held {
    state: Arc<State>,
    reckoned: u64,
    cx: Context,
    _slot: Slot,
}

impl Drop for Held {
    fn drop(&mut self) {
        let used = self.cx.receipt.read(|facts| facts.usage.as_ref().map_or(0, Usage::total));
        if let Some(limiter) = &self.state.limiter {
            limiter.used(self.reckoned, used);
        }
    }
}

/// About how many tokens a request will use: those of its prompt, and the answer's own limit.
fn reckon(request: &Request) -> u64 {
    let limits = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
    let answer = limits.iter().find_map(|name| request.get::<u64>(name)).unwrap_or_default();
    prompt_of(request).count.tokens.saturating_add(answer)
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
