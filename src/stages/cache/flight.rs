//! One shared call: the work that fills the flight's log, and how each waiter reads its own answer out of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};

use super::{Counters, note_call, rules, streamed};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exchange::{Body, Request, Response};
use crate::glance::Glance;
use crate::key::Key;
use crate::ledger::Outcome;
use crate::pipeline::Next;
use crate::single_flight::{Bill, End, Flight, Flights, Head, Landing, Log, Seat, Waited};
use crate::store::disk::DiskStore;
use crate::store::memory::MemoryStore;
use crate::store::{About, Entry};
use crate::stream::sse::Event;
use crate::stream::{Kind, LONGEST_GOODBYE};

/// Events that a reader takes in one look.
const MOST_AT_ONCE: usize = 64;

/// What the task of a flight needs.
pub struct Work {
    pub flight: Arc<Flight>,
    /// The list that it stands on until it has landed.
    pub listed: Option<Arc<Flights>>,
    /// Where a good answer goes, if anybody wants it stored.
    pub store: MemoryStore,
    pub disk: Option<Arc<DiskStore>>,
    pub counters: Arc<Counters>,
    pub ttl: Option<Duration>,
    pub key: Key,
    /// Its place on that list.
    pub flight_key: Key,
}

impl Work {
    /// Makes the call, writes the log, stores the answer.
    pub async fn run(self, cx: Context, request: Request, next: Next) {
        let landing = Landing(Arc::clone(&self.flight));
        let worked = self.work(&cx, &request, next).await;
        self.set_bill(&cx);
        if let Some(flights) = &self.listed {
            flights.remove(self.flight_key, &self.flight);
        }
        self.flight.record(|log| match worked {
            Ok((head, end)) => {
                log.head = Some(head);
                log.end = Some(Ok(end));
            }
            Err(error) => log.end = Some(Err(error)),
        });
        drop(landing);
    }

    fn set_bill(&self, cx: &Context) {
        self.flight.set_bill(cx.receipt.read(|facts| Bill {
            model_answered: facts.model_answered.clone(),
            usage: facts.usage.clone(),
            cost: facts.total(),
        }));
    }

    async fn work(&self, cx: &Context, request: &Request, next: Next) -> Result<(Head, End)> {
        let response = next.run(cx, request.clone()).await?;
        let head = Head {
            status: response.status,
            headers: response.headers.clone(),
            streams: matches!(response.body, Body::Stream(_)),
            usage_added: response.usage_added || request.asks_usage(),
        };
        match response.body {
            // Head and end in one: nobody is woken for half an answer.
            Body::Full(body) => {
                // Before the flight leaves the list: whoever does not find the flight finds the answer.
                if !response.is_substitute {
                    self.keep(cx, request, &head, &body, response.is_whole);
                }
                Ok((head, End::Full(body)))
            }
            Body::Stream(mut events) => {
                self.flight.record(|log| log.head = Some(head.clone()));
                let mut settled = false;
                let mut settle = || {
                    let whole = response.whole.get();
                    if let Some(body) = whole.filter(|_| !std::mem::replace(&mut settled, true)) {
                        let is_whole = Glance::of(request.endpoint, body).is_some_and(|glance| glance.is_whole);
                        if !response.is_substitute {
                            self.keep(cx, request, &head, body, is_whole);
                        }
                        self.set_bill(cx);
                        // Whoever reads the last event may leave then; the work is done, not cancelled.
                        self.flight.set_answered();
                    }
                };
                loop {
                    let next = events.next();
                    let event = if self.flight.is_answered() {
                        // Only the end of the connection is missing, and it is good for nothing but to be used again.
                        tokio::time::timeout(LONGEST_GOODBYE, next).await.unwrap_or(None)
                    } else {
                        next.await
                    };
                    settle();
                    match event.transpose() {
                        Ok(Some(event)) => self.flight.record_event(event).await,
                        Err(error) if !self.flight.is_answered() => return Err(error),
                        Ok(None) | Err(_) => break,
                    }
                }
                Ok((head, End::Stream { assembled: response.whole.get().cloned() }))
            }
        }
    }

    fn keep(&self, cx: &Context, request: &Request, head: &Head, body: &Bytes, is_whole: bool) {
        if !self.flight.stores()
            || head.status != 200
            || !(is_whole || rules::is_good_answer(request.endpoint, body, rules::sets_limit(request)))
        {
            return;
        }
        let facts = cx.receipt.facts();
        let about = About {
            endpoint: request.endpoint,
            usage: facts.usage,
            model_answered: facts.model_answered,
            cost: facts.cost,
            tag: cx.tag.clone(),
            ttl: self.ttl,
            is_own_ttl: cx.ttl.is_some(),
            is_deterministic: rules::is_deterministic(request),
        };
        // A copy: the bytes came in a buffer of the connection's that is ten times as large.
        let entry = Entry::new(about, Bytes::copy_from_slice(body), &head.headers);
        if let Some(disk) = &self.disk {
            disk.put(self.key, &entry);
        }
        self.store.put(self.key, Arc::new(entry));
        self.counters.stored.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for a waiter's answer in the form it asked for. `outcome` is what the ledger gets when the answer is good.
pub async fn land(seat: Seat, cx: &Context, request: &Request, outcome: Outcome) -> Result<Response> {
    let wants_stream = request.is_stream();
    let _wanting = (!wants_stream).then(|| seat.wants_whole());
    let waited = seat
        .wait(|log| match (&log.head, &log.end) {
            (Some(head), _) if wants_stream && head.streams => Some(Ok((head.clone(), None))),
            // The stream broke; a plain call of its own would have been tried again.
            (Some(head), Some(Err(_))) if head.streams => Some(Err(Error::FlightLost)),
            // It was the budgets of another call that had no room: this one may fall under others.
            (_, Some(Err(Error::Budget(_)))) if outcome == Outcome::Joined => Some(Err(Error::FlightLost)),
            (_, Some(Err(error))) => Some(Err(error.clone())),
            (Some(head), Some(Ok(end))) => Some(Ok((head.clone(), Some(end.clone())))),
            _ => None,
        })
        .await?;
    let (head, end) = match waited {
        Waited::Ready(found) => found,
        Waited::GaveUp(head, body) => (head, Some(End::Full(body))),
    };
    let mut response = Response::new(head.status, head.headers, Body::Full(Bytes::new()));
    response.usage_added = head.usage_added;
    if wants_stream && head.streams {
        response.body = Body::Stream(Box::pin(read_events(seat, cx.clone(), request.clone(), outcome)));
        return Ok(response);
    }
    match end {
        Some(End::Full(body)) => {
            response.body = Body::Full(body);
            settle(&seat, cx, request, if response.is_success() { outcome } else { Outcome::Error });
            if wants_stream && response.status == 200 && outcome == Outcome::Joined && !is_event_stream(&response) {
                response = streamed(response, request);
            }
            Ok(response)
        }
        Some(End::Stream { assembled: Some(body) }) => {
            response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.body = Body::Full(body);
            settle(&seat, cx, request, outcome);
            Ok(response)
        }
        // A stream that came to no whole answer is nothing to a waiter who wants one: it makes its own call.
        _ => Err(Error::FlightLost),
    }
}

fn is_event_stream(response: &Response) -> bool {
    crate::upstream::http::is_event_stream(response.status, &response.headers)
}

/// Notes how the call came out. A joined call saved what the flight cost.
fn settle(seat: &Seat, cx: &Context, request: &Request, outcome: Outcome) {
    let bill = if outcome == Outcome::Joined { seat.flight.bill() } else { Bill::default() };
    cx.receipt.update(|facts| {
        facts.complete = true;
        facts.outcome = Some(outcome);
        if outcome == Outcome::Joined {
            facts.model_answered = bill.model_answered;
            facts.usage.clone_from(&bill.usage);
            facts.cost = Some(crate::ledger::Money::ZERO);
            facts.saved = bill.cost;
        }
    });
    note_call(cx, request.endpoint, outcome, bill.usage, bill.cost);
}

/// The flight's events from the first on, as far as they have come, then as they come.
fn read_events(
    seat: Seat,
    cx: Context,
    request: Request,
    outcome: Outcome,
) -> impl futures_util::Stream<Item = Result<Event>> + Send {
    let reader =
        Reader { seat, cx, request, outcome, at: 0, bytes: 0, ready: VecDeque::new(), over: false, settled: false };
    stream::unfold(reader, |mut reader| async move {
        if reader.over {
            return None;
        }
        if let Some(event) = reader.next() {
            return Some((Ok(event), reader));
        }
        let at = reader.at;
        // As many as there are: looking costs more than taking.
        let next = |log: &Log| match (log.events.get(at..).unwrap_or_default(), &log.end) {
            ([], Some(Err(error))) => Some(Err(error.clone())),
            ([], Some(Ok(_))) => Some(Ok(None)),
            ([], None) => None,
            (events, _) => Some(Ok(Some(events.iter().take(MOST_AT_ONCE).cloned().collect::<VecDeque<_>>()))),
        };
        match reader.seat.wait(next).await {
            Ok(Waited::Ready(Some(events))) => {
                reader.at += events.len();
                reader.ready = events;
                reader.next().map(|event| (Ok(event), reader))
            }
            Ok(Waited::Ready(None) | Waited::GaveUp(..)) => {
                reader.settle(reader.outcome);
                None
            }
            Err(error) => {
                reader.over = true;
                reader.settle(Outcome::Error);
                // The answer has begun: it cannot be made anew behind the reader's back.
                let error = match error {
                    Error::FlightLost => Error::connection("the shared stream broke off"),
                    other => other,
                };
                Some((Err(error), reader))
            }
        }
    })
}

/// One waiter's cursor on a streamed flight.
struct Reader {
    seat: Seat,
    cx: Context,
    request: Request,
    outcome: Outcome,
    /// Events taken out of the log.
    at: usize,
    /// Those of them that were not handed on yet, and the bytes of those that were.
    ready: VecDeque<Event>,
    bytes: u64,
    over: bool,
    settled: bool,
}

impl Reader {
    fn next(&mut self) -> Option<Event> {
        let event = self.ready.pop_front()?;
        self.bytes += event.raw.len() as u64;
        self.seat.flight.take(self.bytes);
        if Kind::of(self.request.endpoint).is_some_and(|kind| kind.is_end(&event)) {
            self.settle(self.outcome);
        }
        Some(event)
    }

    fn settle(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.settled, true) {
            settle(&self.seat, &self.cx, &self.request, outcome);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.settle(self.outcome);
    }
}
