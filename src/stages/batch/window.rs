//! Where calls wait for others that may share a request with them: for a while, or, where they belong to one `map`, until
//! all of its workers wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::group::{Group, Item};
use crate::context::Context;
use crate::exchange::{Request, Response};

/// What a call gets that waited.
pub enum Verdict {
    Answer(Box<Response>),
    /// It has to be asked by itself: why.
    Alone(String),
}

/// A call that waits for its part of an answer.
pub struct Seat {
    pub item: Item,
    pub cx: Context,
    pub request: Request,
    answer: oneshot::Sender<Verdict>,
    parked: Option<Arc<Parked>>,
    is_late: Arc<AtomicBool>,
}

impl Seat {
    /// Resolves when its caller has gone.
    pub async fn left(&mut self) {
        self.answer.closed().await;
    }

    pub fn has_left(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whether its caller left because the pack took too long.
    pub fn was_late(&self) -> bool {
        self.is_late.load(Ordering::Acquire)
    }

    pub fn answer(self, verdict: Verdict) {
        // A caller that has left wants none.
        let _ = self.answer.send(verdict);
    }

    /// Its worker may come again: before any of the pack is answered, or the first to wake would seem the only one.
    pub fn wakes(&self) {
        if let Some(parked) = &self.parked {
            parked.wake();
        }
    }
}

/// The caller's side of a [`Seat`].
pub struct Waiting {
    pub answer: oneshot::Receiver<Verdict>,
    /// To be said before it is dropped.
    pub is_late: Arc<AtomicBool>,
    /// Gone with the call: a cancelled one does not count as waiting.
    _parked: Option<Unpark>,
}

/// What is to be done with those who wait.
pub enum Then {
    /// Others may come.
    Waits,
    /// It is the first: somebody has to come back for it, with this number.
    Opened(u64),
    /// They leave now.
    Full(Vec<Vec<Seat>>),
}

#[derive(Default)]
struct Open {
    number: u64,
    seats: Vec<Seat>,
}

/// Groups of calls that wait, each for its own time.
#[derive(Default)]
pub struct Windows {
    open: Mutex<HashMap<Group, Open>>,
}

impl Windows {
    /// None: an equal question is there already. Two answers to it are to be independent of each other, or it would not be
    /// asked twice.
    pub fn join(
        &self,
        group: Group,
        item: Item,
        cx: &Context,
        request: &Request,
        most: usize,
    ) -> Option<(Waiting, Then)> {
        let mut all = lock(&self.open);
        if has(&all, group, &item) {
            return None;
        }
        let (seat, waiting) = seat(item, cx, request, None);
        Some((waiting, enter(&mut all, group, seat, most)))
    }

    /// Those who came while a window was open.
    pub fn close(&self, group: Group, number: u64) -> Vec<Seat> {
        leave(&mut lock(&self.open), group, number)
    }
}

/// The calls of one `map`.
pub struct Packing {
    number: u64,
    /// Questions in one request, where the call says it; None = as the policy says.
    pub most: Option<usize>,
    /// For each request under way: a worker that asks alone is as much as a pack.
    turns: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Workers that may come with a question at any time.
    active: usize,
    /// Those that wait for an answer, in a window or on its way.
    parked: usize,
    /// No more questions will be begun.
    drained: bool,
    open: HashMap<Group, Open>,
    /// Starts the work for those who waited when the last worker stopped.
    start: Option<Arc<dyn Fn(Vec<Seat>) + Send + Sync>>,
}

impl Packing {
    /// `workers`: how many will ask questions, one after the other; `requests`: under way at a time.
    pub fn new(workers: usize, requests: usize, most: Option<usize>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let state = State { active: workers, parked: 0, drained: false, open: HashMap::new(), start: None };
        let turns = Semaphore::new(requests.clamp(1, Semaphore::MAX_PERMITS));
        Arc::new(Self { number: NEXT.fetch_add(1, Ordering::Relaxed), most, turns, state: Mutex::new(state) })
    }

    /// Tells it from all others of this process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A worker has no question left.
    pub fn leave(&self) {
        let mut state = lock(&self.state);
        state.active = state.active.saturating_sub(1);
        self.settle(state);
    }

    /// No more questions will be begun: those who wait need not wait for workers that are under way.
    pub fn drained(&self) {
        let mut state = lock(&self.state);
        state.drained = true;
        self.settle(state);
    }

    /// A worker waits for something that others of the session do.
    pub fn park(self: &Arc<Self>) -> Unpark {
        let parked = Arc::new(Parked { packing: Arc::clone(self), waits: AtomicBool::new(true) });
        let mut state = lock(&self.state);
        state.park();
        self.settle(state);
        Unpark(parked)
    }

    /// `start`: starts the work for those who waited, if everybody waits later on.
    pub fn join(
        self: &Arc<Self>,
        group: Group,
        item: Item,
        cx: &Context,
        request: &Request,
        most: usize,
        start: Arc<dyn Fn(Vec<Seat>) + Send + Sync>,
    ) -> Option<(Waiting, Then)> {
        let mut state = lock(&self.state);
        if has(&state.open, group, &item) {
            return None;
        }
        let parked = Arc::new(Parked { packing: Arc::clone(self), waits: AtomicBool::new(true) });
        let (seat, waiting) = seat(item, cx, request, Some(parked));
        state.start = Some(start);
        state.park();
        let then = enter(&mut state.open, group, seat, most);
        let rest = state.take();
        if rest.is_empty() {
            return Some((waiting, then));
        }
        let mut full = match then {
            Then::Full(full) => full,
            Then::Waits | Then::Opened(_) => Vec::new(),
        };
        full.extend(rest);
        Some((waiting, Then::Full(full)))
    }

    pub fn close(&self, group: Group, number: u64) -> Vec<Seat> {
        leave(&mut lock(&self.state).open, group, number)
    }

    /// Sends those away who have nobody to wait for any more.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        let all = state.take();
        let Some(start) = state.start.clone().filter(|_| !all.is_empty()) else { return };
        drop(state);
        all.into_iter().for_each(|seats| start(seats));
    }

    fn wake(&self) {
        let mut state = lock(&self.state);
        state.parked = state.parked.saturating_sub(1);
        state.active += 1;
    }
}

impl State {
    fn park(&mut self) {
        self.active = self.active.saturating_sub(1);
        self.parked += 1;
    }

    /// All who wait, if nobody else can come, or could only come later with what is not asked yet.
    fn take(&mut self) -> Vec<Vec<Seat>> {
        let waiting: usize = self.open.values().map(|open| open.seats.len()).sum();
        if self.active > 0 || !self.drained && self.parked > waiting {
            return Vec::new();
        }
        self.open.drain().map(|(_, open)| open.seats).collect()
    }
}

/// The turn of a call that may be sent now, by itself or for a pack. None: it is of no session.
pub async fn turn(cx: &Context) -> Option<SemaphorePermit<'_>> {
    // Nobody closes it.
    cx.packing.as_ref()?.turns.acquire().await.ok()
}

/// A worker that waits.
struct Parked {
    packing: Arc<Packing>,
    waits: AtomicBool,
}

impl Parked {
    fn wake(&self) {
        if self.waits.swap(false, Ordering::AcqRel) {
            self.packing.wake();
        }
    }
}

/// Wakes the worker when it is dropped.
pub struct Unpark(Arc<Parked>);

impl Drop for Unpark {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn seat(item: Item, cx: &Context, request: &Request, parked: Option<Arc<Parked>>) -> (Seat, Waiting) {
    let (sender, receiver) = oneshot::channel();
    let unpark = parked.as_ref().map(|parked| Unpark(Arc::clone(parked)));
    let is_late = Arc::default();
    let waiting = Waiting { answer: receiver, is_late: Arc::clone(&is_late), _parked: unpark };
    (Seat { item, cx: cx.clone(), request: request.clone(), answer: sender, parked, is_late }, waiting)
}

fn has(all: &HashMap<Group, Open>, group: Group, item: &Item) -> bool {
    all.get(&group).is_some_and(|open| open.seats.iter().any(|seat| seat.item.question == item.question))
}

fn enter(all: &mut HashMap<Group, Open>, group: Group, seat: Seat, most: usize) -> Then {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let open = all.entry(group).or_default();
    open.seats.retain(|seat| !seat.has_left());
    open.seats.push(seat);
    if open.seats.len() >= most {
        let full = all.remove(&group).map(|open| open.seats).unwrap_or_default();
        return Then::Full(vec![full]);
    }
    if open.number != 0 {
        return Then::Waits;
    }
    open.number = NEXT.fetch_add(1, Ordering::Relaxed);
    Then::Opened(open.number)
}

fn leave(all: &mut HashMap<Group, Open>, group: Group, number: u64) -> Vec<Seat> {
    if all.get(&group).is_some_and(|open| open.number == number) {
        return all.remove(&group).map(|open| open.seats).unwrap_or_default();
    }
    Vec::new()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
