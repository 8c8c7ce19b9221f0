//! Answered before? Then it costs nothing; and equal calls in flight make one call.
//!
//! The exact cache. What may be stored is in `cache/rules.rs`, where it is stored in `store/`, how the waiting is shared
//! in `single_flight.rs`, what equal means in `key/`.

pub mod flight;
pub mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::at_end::at_end;
use crate::context::{Context, Mode};
use crate::error::{Error, Result};
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::key::Key;
use crate::ledger::{Books, Call, Money, Outcome, Usage};
use crate::pipeline::{Next, Stage};
use crate::receipt::Facts;
use crate::single_flight::{Boarding, Flights, Passenger, Seat};
use crate::store::Entry;
use crate::store::disk::{DiskStore, Ordered};
use crate::store::memory::MemoryStore;
use crate::stream::{Kind, replay};

/// How often a waiter starts again after the work that it shared was lost.
const MOST_LOST_FLIGHTS: u32 = 3;

/// Counts of one cache, over all clients that share it.
#[derive(Debug, Default)]
pub struct Counters {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub stored: AtomicU64,
}

/// The stage; clients with the same policy share one.
pub struct CacheStage {
    store: MemoryStore,
    /// Below the memory; None = there is no file.
    disk: Option<Arc<DiskStore>>,
    flights: Arc<Flights>,
    counters: Arc<Counters>,
    max_bytes: u64,
    ttl: Option<Duration>,
    deterministic_only: bool,
    off: bool,
    /// Calls of different tags, of different clients do not join: budgets may send them to different models.
    apart_by_tag: AtomicBool,
    apart_by_client: AtomicBool,
}

impl CacheStage {
    /// `ttl`: how long an answer is good for; None = until it is evicted. `off`: lets everything pass, whatever a call says.
    pub fn new(
        store: MemoryStore,
        disk: Option<Arc<DiskStore>>,
        max_bytes: u64,
        ttl: Option<Duration>,
        deterministic_only: bool,
        off: bool,
    ) -> Self {
        Self {
            store,
            disk,
            flights: Arc::default(),
            counters: Arc::default(),
            max_bytes,
            ttl,
            deterministic_only,
            off,
            apart_by_tag: AtomicBool::new(false),
            apart_by_client: AtomicBool::new(false),
        }
    }

    /// Whether calls of different tags, of different clients are kept from joining.
    pub fn keep_apart(&self, by_tag: bool, by_client: bool) {
        self.apart_by_tag.store(by_tag, Ordering::Relaxed);
        self.apart_by_client.store(by_client, Ordering::Relaxed);
    }

    /// Equal calls that may join have the same one.
    fn flight_key(&self, cx: &Context, key: Key) -> Key {
        let by_tag = self.apart_by_tag.load(Ordering::Relaxed);
        let by_client = self.apart_by_client.load(Ordering::Relaxed);
        if !by_tag && !by_client {
            return key;
        }
        let mut hash = Sha256::new();
        hash.update(key.0);
        if by_client {
            hash.update(cx.books.client().number().to_le_bytes());
        }
        if by_tag {
            hash.update(cx.tag.as_deref().unwrap_or_default());
        }
        Key(hash.finalize().into())
    }

    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    pub fn disk(&self) -> Option<&Arc<DiskStore>> {
        self.disk.as_ref()
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Calls in flight that others can join.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// An answer in memory that is still good for this caller.
    pub fn find(&self, key: &Key, mode: Mode, ttl: Option<Duration>) -> Option<Arc<Entry>> {
        if self.off || !mode.reads() {
            return None;
        }
        let entry = self.store.get(key).filter(|entry| entry.is_fresh(ttl))?;
        if self.disk.is_some() {
            entry.set_used();
        }
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Some(entry)
    }

    /// The same on disk; what is found comes into memory. Waits for the disk.
    pub fn find_on_disk(&self, key: &Key, mode: Mode, ttl: Option<Duration>) -> Option<Arc<Entry>> {
        let disk = self.disk.as_ref().filter(|_| !self.off && mode.reads())?;
        let invalidations = disk.invalidations();
        let found = disk.get(key, self.ttl)?;
        // Another policy may have stored it there.
        if self.deterministic_only && !found.about.is_deterministic {
            return None;
        }
        let entry = self.store.put_unless_younger(*key, Arc::new(found));
        if disk.invalidations() != invalidations {
            // It may have been among those, and memory was told before it was there.
            self.store.remove(key);
        }
        if !entry.is_fresh(ttl) {
            return None;
        }
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Some(entry)
    }

    /// Forgets what was stored under a tag (None: everything), also on disk; returns how many answers that were. `wait`:
    /// how the caller waits for the disk.
    ///
    /// # Errors
    /// What `wait` says; memory has forgotten it in any case.
    pub fn invalidate<E>(&self, tag: Option<&str>, wait: impl FnOnce(Ordered) -> Result<u64, E>) -> Result<u64, E> {
        let forget = || match tag {
            Some(tag) => self.store.invalidate_tag(tag) as u64,
            None => {
                self.store.clear();
                0
            }
        };
        let in_memory = forget();
        let Some(disk) = &self.disk else { return Ok(in_memory) };
        let on_disk = wait(disk.invalidate(tag))?;
        // Somebody may have read it from the disk in the meantime.
        forget();
        Ok(on_disk.max(in_memory))
    }

    /// The receipt of a hit.
    pub fn hit_facts(entry: &Entry, model_asked: Arc<str>, tag: Option<Arc<str>>) -> Facts {
        Facts {
            outcome: Some(Outcome::Hit),
            model_asked,
            model_answered: entry.about.model_answered.clone(),
            tag,
            usage: entry.about.usage.clone(),
            cost: Some(Money::ZERO),
            saved: entry.about.cost,
            age: Some(entry.age()),
            complete: true,
            ..Facts::default()
        }
    }

    /// Notes a hit in the ledger.
    pub fn record_hit(books: &Books, endpoint: Endpoint, facts: &Facts) {
        books.record_call(Call {
            endpoint,
            model_asked: facts.model_asked.clone(),
            model_answered: facts.model_answered.clone(),
            tag: facts.tag.clone(),
            outcome: Outcome::Hit,
            usage: facts.usage.clone(),
            saved: facts.saved,
        });
    }

    fn note_hit(cx: &Context, endpoint: Endpoint, entry: &Entry) {
        let facts = Self::hit_facts(entry, cx.receipt.read(|facts| Arc::clone(&facts.model_asked)), cx.tag.clone());
        Self::record_hit(&cx.books, endpoint, &facts);
        cx.receipt.update(|receipt| *receipt = facts);
    }

    async fn fly(&self, cx: &Context, key: Key, request: &Request, next: &Next) -> Result<Response> {
        let find = || self.find(&key, cx.mode, cx.ttl);
        // A function of the policy that an async caller gave runs on that caller's loop.
        let needs_event_loop = cx.sender.needs_event_loop() || (cx.hooks.is_some() && cx.event_loop.is_some());
        let left = cx.left.clone();
        let passenger = Passenger { limits: cx.limits, event_loop: cx.event_loop, needs_event_loop, left };
        let flight_key = self.flight_key(cx, key);
        let joins = cx.mode.reads() && !cx.inside && cx.wishes.is_none();
        let boarding = if joins {
            self.flights.board(flight_key, passenger, find)
        } else {
            // A fresh answer was asked for, and an older call in flight is not one; or that call waits for a function
            // that waits for this one; or other models may answer it than this one's.
            Boarding::Leads(Seat::alone(passenger))
        };
        match boarding {
            Boarding::Settled(entry) => {
                Self::note_hit(cx, request.endpoint, &entry);
                Ok(replayed(&entry, request))
            }
            Boarding::Leads(seat) => {
                if cx.mode.writes() {
                    seat.flight.set_stores();
                }
                self.counters.misses.fetch_add(1, Ordering::Relaxed);
                cx.receipt.update(|facts| facts.outcome = Some(Outcome::Miss));
                let work = flight::Work {
                    flight: Arc::clone(&seat.flight),
                    listed: joins.then(|| Arc::clone(&self.flights)),
                    store: self.store.clone(),
                    disk: self.disk.clone(),
                    counters: Arc::clone(&self.counters),
                    ttl: self.lifetime(cx),
                    key,
                    flight_key,
                };
                let cx = Context { patience: Arc::clone(&seat.flight.patience), ..cx.clone() };
                seat.works(cx.spawn(work.run(cx.clone(), request.clone(), next.clone())));
                flight::land(seat, &cx, request, Outcome::Miss).await
            }
            Boarding::Joined(seat) => {
                if cx.mode.writes() {
                    seat.flight.set_stores();
                }
                cx.receipt.update(|facts| facts.outcome = Some(Outcome::Joined));
                // A call of one `map` that waits for an equal one: its worker comes with no other meanwhile.
                let _parked = cx.packing.as_ref().map(|packing| packing.park());
                flight::land(seat, cx, request, Outcome::Joined).await
            }
        }
    }

    fn lifetime(&self, cx: &Context) -> Option<Duration> {
        match (cx.ttl, self.ttl) {
            (Some(call), _) => Some(call),
            (None, policy) => policy,
        }
    }
}

#[async_trait]
impl Stage for CacheStage {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response> {
        let cacheable = !self.off && cx.mode != Mode::Off && rules::is_cacheable(&request, self.deterministic_only);
        let Some(key) = request.key().filter(|_| cacheable) else {
            return bypass(cx, request, next).await;
        };
        if self.disk.is_some()
            && !cx.looked_on_disk
            && let Some(entry) = self.find(&key, cx.mode, cx.ttl).or_else(|| self.find_on_disk(&key, cx.mode, cx.ttl))
        {
            Self::note_hit(cx, request.endpoint, &entry);
            return Ok(replayed(&entry, &request));
        }
        let mut lost = 0;
        loop {
            match self.fly(cx, key, &request, &next).await {
                Err(Error::FlightLost) if lost < MOST_LOST_FLIGHTS => lost += 1,
                Err(Error::FlightLost) => return bypass(cx, request, next).await,
                Err(error) => {
                    note_call(cx, request.endpoint, Outcome::Error, None, None);
                    cx.receipt.update(|facts| {
                        facts.outcome = Some(Outcome::Error);
                        facts.complete = true;
                    });
                    return Err(error);
                }
                landed => return landed,
            }
        }
    }
}

/// Runs the rest without reading or storing anything.
pub async fn bypass(cx: &Context, request: Request, next: Next) -> Result<Response> {
    cx.receipt.update(|facts| facts.outcome = Some(Outcome::Bypass));
    let endpoint = request.endpoint;
    let result = next.run(cx, request).await;
    let outcome = match &result {
        Ok(response) if response.is_success() => Outcome::Bypass,
        _ => Outcome::Error,
    };
    cx.receipt.update(|facts| facts.outcome = Some(outcome));
    note_call(cx, endpoint, outcome, None, None);
    let receipt = Arc::clone(&cx.receipt);
    let completes = move || receipt.update(|facts| facts.complete = true);
    match result {
        Ok(response) if response.is_success() => Ok(at_end(response, move |_| completes())),
        failed => {
            completes();
            failed
        }
    }
}

/// Notes a call in the ledger; `usage` and `saved` are what was not paid for.
pub fn note_call(cx: &Context, endpoint: Endpoint, outcome: Outcome, usage: Option<Usage>, saved: Option<Money>) {
    let (model_asked, model_answered) =
        cx.receipt.read(|facts| (Arc::clone(&facts.model_asked), facts.model_answered.clone()));
    cx.books.record_call(Call { endpoint, model_asked, model_answered, tag: cx.tag.clone(), outcome, usage, saved });
}

/// A stored answer in the form that this request asks for.
fn replayed(entry: &Entry, request: &Request) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    for (name, value) in entry.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers.insert("x-farthing-cache", HeaderValue::from_static("hit"));
    let stored = Response::new(200, headers, Body::Full(entry.body.clone()));
    if request.is_stream() { streamed(stored, request) } else { stored }
}

/// A plain answer as the events that a stream would have brought; left as it is if it has no such form.
fn streamed(response: Response, request: &Request) -> Response {
    let Some(kind) = Kind::of(request.endpoint) else { return response };
    let Body::Full(body) = &response.body else { return response };
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return response };
    let events: Bytes = replay(kind, &value, request.asks_usage());
    let mut headers = response.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    Response { headers, body: Body::Full(events), ..response }
}
