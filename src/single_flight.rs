//! Equal requests in flight make one upstream call.
//!
//! The work is a task of its own. What it receives goes into a log; every waiter reads the log from the beginning, at its
//! own pace and with its own patience. The last waiter who leaves cancels the work. Which requests may share, and what is
//! stored, is decided in `stages/cache.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::key::{Key, KeyHasher};
use crate::ledger::{Money, Usage};
use crate::patience::{Failure, Limits, Patience, WaiterId};
use crate::stream::sse::Event;

/// Status and headers of the answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
    /// Events follow.
    pub streams: bool,
    /// Somebody asked for a usage chunk: waiters who did not ask must not see it.
    pub usage_added: bool,
}

/// How the work ended.
#[derive(Clone, Debug)]
pub enum End {
    /// A plain answer, whatever its status.
    Full(Bytes),
    /// A stream that ended; `assembled` is the plain body that it amounts to, if it ended well.
    Stream { assembled: Option<Bytes> },
}

/// What has come in so far.
#[derive(Default)]
pub struct Log {
    pub head: Option<Head>,
    pub events: Vec<Event>,
    pub end: Option<Result<End>>,
}

/// What the work came to.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    pub model_answered: Option<Arc<str>>,
    pub usage: Option<Usage>,
    pub cost: Option<Money>,
}

/// One piece of work that several callers may wait for.
pub struct Flight {
    pub patience: Arc<Patience>,
    log: Mutex<Log>,
    bill: Mutex<Bill>,
    task: Mutex<Option<AbortHandle>>,
    /// The event loop that it needs to get on: whoever waits elsewhere may be holding that loop up.
    needs: Option<u64>,
    answered: AtomicBool,
    /// Somebody who waits wants the answer stored.
    stores: AtomicBool,
    /// Bytes of events that came in, and that the foremost reader has taken.
    received: AtomicU64,
    taken: AtomicU64,
    /// Waiters for the whole answer: they read nothing until it is there.
    wanting_whole: AtomicU64,
}

/// More than this lies unread by everybody: the work waits, and so does the upstream.
const MOST_UNREAD: u64 = 1 << 20;

impl Flight {
    /// Notes an event, and waits while nobody reads and nobody needs the rest to come.
    pub async fn record_event(&self, event: Event) {
        let received = self.received.fetch_add(event.raw.len() as u64, Ordering::AcqRel) + event.raw.len() as u64;
        let mut changed = self.patience.subscribe();
        self.record(|log| log.events.push(event));
        let unread = || received.saturating_sub(self.taken.load(Ordering::Acquire));
        while unread() > MOST_UNREAD && !self.is_answered() && self.wanting_whole.load(Ordering::Acquire) == 0 {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes that a reader has read so many bytes of events.
    pub fn take(&self, bytes: u64) {
        let before = self.taken.fetch_max(bytes, Ordering::AcqRel);
        let received = self.received.load(Ordering::Acquire);
        if received.saturating_sub(before) > MOST_UNREAD && received.saturating_sub(bytes) <= MOST_UNREAD {
            self.patience.notify();
        }
    }

    /// Changes the log and wakes the waiters. After the end nothing changes any more.
    pub fn record(&self, change: impl FnOnce(&mut Log)) {
        {
            let mut log = lock(&self.log);
            if log.end.is_some() {
                return;
            }
            change(&mut log);
        }
        self.patience.notify();
    }

    pub fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&lock(&self.log))
    }

    /// Notes what the work used and cost; read by those who did not pay for it.
    pub fn set_bill(&self, bill: Bill) {
        *lock(&self.bill) = bill;
    }

    pub fn bill(&self) -> Bill {
        lock(&self.bill).clone()
    }

    /// Notes that the answer is complete and stored, although its connection is still open.
    pub fn set_answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Notes that somebody wants the answer stored.
    pub fn set_stores(&self) {
        self.stores.store(true, Ordering::Release);
    }

    pub fn stores(&self) -> bool {
        self.stores.load(Ordering::Acquire)
    }

    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.read(|log| log.end.is_some())
    }
}

/// Ends the flight as lost when the work goes away without an end: its task was aborted, it panicked.
pub struct Landing(pub Arc<Flight>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.record(|log| log.end = Some(Err(Error::FlightLost)));
    }
}

/// A caller, as far as it matters to a flight.
#[derive(Clone, Debug)]
pub struct Passenger {
    pub limits: Limits,
    /// The event loop that it waits on.
    pub event_loop: Option<u64>,
    /// Its own sender gets on only while that loop runs.
    pub needs_event_loop: bool,
    /// Set when it waits no more, which is before its seat is dropped.
    pub left: Option<Arc<AtomicBool>>,
}

/// The flights that may be joined.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<Key, Arc<Flight>, KeyHasher>>);

/// What [`Flights::board`] found.
pub enum Boarding<T> {
    /// Somebody else's work, still running.
    Joined(Seat),
    /// New work: the caller starts it.
    Leads(Seat),
    /// `settled` had the answer by now.
    Settled(T),
}

impl Flights {
    /// Joins the flight for `key`, or opens one. `settled` is asked in between, under the lock: an equal flight may have
    /// landed and stored its answer since the caller looked.
    pub fn board<T>(
        self: &Arc<Self>,
        key: Key,
        passenger: Passenger,
        settled: impl FnOnce() -> Option<T>,
    ) -> Boarding<T> {
        let mut flights = lock(&self.0);
        // Whoever has read the last event may ask again before the connection has ended: that is another call, and what was
        // not stored is not for it.
        // And whoever has given up on an answer does not want to wait for it again.
        let is_joined =
            |flight: &&Arc<Flight>| !flight.is_over() && !flight.is_answered() && !flight.patience.is_deserted();
        let flight = flights.get(&key).filter(is_joined);
        if let Some(flight) = flight
            && (flight.needs.is_none() || flight.needs == passenger.event_loop)
        {
            let id = flight.patience.join_until(passenger.limits, passenger.left);
            return Boarding::Joined(Seat { flight: Arc::clone(flight), flights: Some((Arc::clone(self), key)), id });
        }
        let is_listed = flight.is_some();
        if let Some(found) = settled() {
            return Boarding::Settled(found);
        }
        let mut seat = Seat::alone(passenger);
        if is_listed {
            return Boarding::Leads(seat);
        }
        flights.insert(key, Arc::clone(&seat.flight));
        seat.flights = Some((Arc::clone(self), key));
        Boarding::Leads(seat)
    }

    /// Takes a flight off the list: it has landed, and its answer is stored if it ever will be.
    pub fn remove(&self, key: Key, flight: &Arc<Flight>) {
        let mut flights = lock(&self.0);
        if flights.get(&key).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            flights.remove(&key);
        }
    }

    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A waiter's place in a flight. Dropping it leaves; the last one out cancels the work.
pub struct Seat {
    pub flight: Arc<Flight>,
    flights: Option<(Arc<Flights>, Key)>,
    id: WaiterId,
}

impl Seat {
    /// A seat in a flight that nobody can join.
    pub fn alone(passenger: Passenger) -> Self {
        let patience = Arc::new(Patience::default());
        let id = patience.join_until(passenger.limits, passenger.left);
        let flight = Flight {
            patience,
            log: Mutex::default(),
            bill: Mutex::default(),
            task: Mutex::default(),
            needs: passenger.event_loop.filter(|_| passenger.needs_event_loop),
            answered: AtomicBool::new(false),
            stores: AtomicBool::new(false),
            received: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            wanting_whole: AtomicU64::new(0),
        };
        Self { flight: Arc::new(flight), flights: None, id }
    }

    /// For a waiter who can do nothing with a part of the answer, as long as the result lives.
    pub fn wants_whole(&self) -> impl Drop + use<> {
        struct Wanting(Arc<Flight>);
        impl Drop for Wanting {
            fn drop(&mut self) {
                self.0.wanting_whole.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.flight.wanting_whole.fetch_add(1, Ordering::AcqRel);
        self.flight.patience.notify();
        Wanting(Arc::clone(&self.flight))
    }

    /// Tells the flight which task to cancel.
    pub fn works(&self, task: AbortHandle) {
        *lock(&self.flight.task) = Some(task);
    }

    /// Waits until `ready` finds something in the log, at most as long as this waiter has patience.
    ///
    /// # Errors
    /// The flight's own error, or [`Error::Timeout`] for a waiter with less patience than the flight.
    pub async fn wait<T>(&self, ready: impl Fn(&Log) -> Option<Result<T>>) -> Result<Waited<T>> {
        let mut changed = self.flight.patience.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.flight.read(&ready) {
                return found.map(Waited::Ready);
            }
            if let Some(failure) = self.flight.patience.gives_up(self.id) {
                return match failure {
                    Failure::Error(error) => Err(error),
                    Failure::Status { status, headers, body } => {
                        Ok(Waited::GaveUp(Head { status, headers, streams: false, usage_added: false }, body))
                    }
                };
            }
            let stall = self.flight.patience.own_stall(self.id);
            let stalled = async {
                match stall {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = stalled => {
                    // Bytes may have come in while we slept: only a stall that still stands counts.
                    let now = std::time::Instant::now();
                    let stands = self.flight.patience.own_stall(self.id).is_some_and(|at| at <= now);
                    if stands && !self.flight.patience.stalled(self.id) {
                        return Err(Error::timeout(crate::error::Phase::Read));
                    }
                }
            }
        }
    }
}

/// What a waiter got.
pub enum Waited<T> {
    Ready(T),
    /// The flight goes on for others; this waiter has no retries left, and this was the last failed attempt.
    GaveUp(Head, Bytes),
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Under the lock of the list, so that nobody joins a flight that is being cancelled.
        let guard = self.flights.as_ref().map(|(flights, key)| (lock(&flights.0), *key));
        if self.flight.patience.leave(self.id) > 0 {
            return;
        }
        if let Some((mut listed, key)) = guard
            && listed.get(&key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            listed.remove(&key);
        }
        if !self.flight.is_over()
            && !self.flight.is_answered()
            && let Some(task) = lock(&self.flight.task).take()
        {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
