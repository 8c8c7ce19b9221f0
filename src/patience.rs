//! How long callers wait and how often they try, when several of them share one piece of work.
//!
//! Timeouts and retries are not part of the cache key, so equal requests with different ones meet in one flight. The work
//! goes on as long as its most patient waiter wants it to; a less patient one leaves earlier, with what it would have
//! seen alone. The rules of the retries themselves are in `upstream/retry.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::watch;

use crate::error::{Error, Phase};

/// One caller's limits. A time of None means: as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connect: Option<Duration>,
    /// The longest silence of the upstream while it is read, also before its first byte.
    pub read: Option<Duration>,
    pub write: Option<Duration>,
    /// Attempts beyond the first.
    pub max_retries: u32,
}

/// An attempt that failed and was (or could have been) retried.
#[derive(Clone, Debug)]
pub enum Failure {
    Status { status: u16, headers: HeaderMap, body: Bytes },
    Error(Error),
}

/// A waiter's membership; see [`Patience::join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterId(u64);

struct Waiter {
    id: WaiterId,
    limits: Limits,
    /// Attempts of this waiter that are used up: failures since it joined, and stalls that only it had no patience for.
    used: u32,
    since: Instant,
    /// The caller waits no more, and its place is about to be given up. None = it would do so at once.
    left: Option<Arc<AtomicBool>>,
}

struct State {
    waiters: Vec<Waiter>,
    next_id: u64,
    last_failure: Option<Failure>,
    progress: Instant,
    /// A request goes out: silence is the upstream not taking it.
    writes: bool,
    /// Limits of the upstream that is asked now, in place of the waiters' own.
    upstream: Option<Limits>,
    /// Other upstreams are asked when this one has failed: who waits gets what that comes to in the end.
    walks: bool,
}

impl State {
    fn longest(&self, time: impl Fn(&Limits) -> Option<Duration>) -> Option<Duration> {
        match &self.upstream {
            Some(limits) if !self.waiters.is_empty() => time(limits),
            _ => longest(&self.waiters, time),
        }
    }

    fn max_retries(&self, waiter: &Waiter) -> u32 {
        self.upstream.as_ref().map_or(waiter.limits.max_retries, |limits| limits.max_retries)
    }
}

/// Shared by the work and by those who wait for it.
pub struct Patience {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        let state = State {
            waiters: Vec::new(),
            next_id: 0,
            last_failure: None,
            progress: Instant::now(),
            writes: false,
            upstream: None,
            walks: false,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }
}

impl Patience {
    /// For one who waits alone, to the end.
    pub fn alone(limits: Limits) -> Self {
        let patience = Self::default();
        patience.join(limits);
        patience
    }

    /// There is more than one upstream to ask.
    pub fn walks(&self) {
        self.lock().walks = true;
    }

    /// The turn of another upstream begins, with limits of its own (None: the waiters'), and all its retries.
    pub fn turns_to(&self, limits: Option<Limits>) {
        let mut state = self.lock();
        state.upstream = limits;
        for waiter in &mut state.waiters {
            waiter.used = 0;
        }
    }

    /// The limits of the most patient waiter, each by itself; None when nobody waits.
    pub fn limits(&self) -> Option<Limits> {
        let state = self.lock();
        let max_retries = state.waiters.iter().map(|waiter| state.max_retries(waiter)).max()?;
        Some(Limits {
            connect: state.longest(|limits| limits.connect),
            read: state.longest(|limits| limits.read),
            write: state.longest(|limits| limits.write),
            max_retries,
        })
    }

    pub fn join(&self, limits: Limits) -> WaiterId {
        self.join_until(limits, None)
    }

    /// The same for a waiter who may be gone some time before it leaves.
    pub fn join_until(&self, limits: Limits, left: Option<Arc<AtomicBool>>) -> WaiterId {
        let mut state = self.lock();
        let id = WaiterId(state.next_id);
        state.next_id += 1;
        state.waiters.push(Waiter { id, limits, used: 0, since: Instant::now(), left });
        drop(state);
        self.notify();
        id
    }

    /// Returns how many waiters are left.
    pub fn leave(&self, id: WaiterId) -> usize {
        let mut state = self.lock();
        state.waiters.retain(|waiter| waiter.id != id);
        state.waiters.len()
    }

    /// Whether all who have joined are gone.
    pub fn is_deserted(&self) -> bool {
        let is_gone = |waiter: &Waiter| waiter.left.as_ref().is_some_and(|left| left.load(Ordering::Acquire));
        self.lock().waiters.iter().all(is_gone)
    }

    pub fn waiters(&self) -> usize {
        self.lock().waiters.len()
    }

    /// Wakes everybody who waits on [`Self::subscribe`].
    pub fn notify(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Something moved: bytes went out or came in, or an attempt began.
    pub fn touch(&self) {
        self.lock().progress = Instant::now();
    }

    /// From here on a large request goes out, or (false) it is out.
    pub fn writes(&self, writes: bool) {
        let mut state = self.lock();
        state.writes = writes;
        state.progress = Instant::now();
    }

    /// Nothing will move for `pause`, by intent; it does not count as silence.
    pub fn pauses(&self, pause: Duration) {
        self.lock().progress = Instant::now() + pause;
    }

    /// The longest that any waiter waits for an answer to begin, all phases together, with a second to spare.
    pub fn longest(&self) -> Option<Duration> {
        let state = self.lock();
        let all = [state.longest(|limits| limits.connect), state.longest(|limits| limits.write)];
        let read = state.longest(|limits| limits.read)?;
        Some(all.into_iter().try_fold(read, |sum, time| Some(sum + time?))? + Duration::from_secs(1))
    }

    /// The longest of all waiters' times for connecting.
    pub fn connect(&self) -> Option<Duration> {
        self.lock().longest(|limits| limits.connect)
    }

    /// When the upstream has been silent for longer than every waiter allows, and in which phase; None means never.
    pub fn stalls_at(&self) -> Option<(Instant, Phase)> {
        let state = self.lock();
        let (phase, time) = if state.writes {
            (Phase::Write, state.longest(|limits| limits.write)?)
        } else {
            (Phase::Read, state.longest(|limits| limits.read)?)
        };
        Some((state.progress + time, phase))
    }

    /// Notes a failed attempt, and says whether anybody wants another.
    pub fn failed(&self, failure: Failure) -> bool {
        let mut state = self.lock();
        for waiter in &mut state.waiters {
            waiter.used += 1;
        }
        let retry = state.waiters.iter().any(|waiter| waiter.used <= state.max_retries(waiter));
        state.last_failure = Some(failure);
        drop(state);
        self.notify();
        retry
    }

    /// The failure with which this waiter gives up, if it has no retries left.
    pub fn gives_up(&self, id: WaiterId) -> Option<Failure> {
        let state = self.lock();
        let waiter = state.waiters.iter().find(|waiter| waiter.id == id).filter(|_| !state.walks)?;
        (waiter.used > state.max_retries(waiter)).then(|| state.last_failure.clone()).flatten()
    }

    /// When this waiter's own read timeout runs out, if others are more patient than it is; the work itself times out
    /// for the most patient one.
    pub fn own_stall(&self, id: WaiterId) -> Option<Instant> {
        let state = self.lock();
        let waiter = state.waiters.iter().find(|waiter| waiter.id == id)?;
        let own = waiter.limits.read?;
        if state.upstream.is_some() || longest(&state.waiters, |limits| limits.read) == Some(own) {
            return None;
        }
        Some(state.progress.max(waiter.since) + own)
    }

    /// Uses up an attempt of this waiter for a stall that only it had no patience for; false when none is left.
    pub fn stalled(&self, id: WaiterId) -> bool {
        let mut state = self.lock();
        let Some(waiter) = state.waiters.iter_mut().find(|waiter| waiter.id == id) else { return false };
        waiter.used += 1;
        waiter.since = Instant::now();
        waiter.used <= waiter.limits.max_retries
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn longest(waiters: &[Waiter], time: impl Fn(&Limits) -> Option<Duration>) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for waiter in waiters {
        longest = longest.max(time(&waiter.limits)?);
    }
    // Nobody waits: the work is about to be cancelled, and must not time out before that.
    if waiters.is_empty() { None } else { Some(longest) }
}
