//! A circuit breaker: an upstream that fails too often is left alone for a while.
//!
//! Closed, open, half-open: after its rest one probe at a time goes out; a good answer closes the breaker, a bad one
//! opens it again. What counts as a failure is said in `mod.rs`; time is given, not asked for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When to open, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of failures within the window at which it opens, > 0 and <= 1.
    pub failures: f64,
    pub window: Duration,
    /// Calls within the window below which a share says nothing.
    pub minimum: usize,
    pub rest: Duration,
}

/// What is kept of a window: beyond this many calls the oldest go early.
const MOST_CALLS: usize = 4096;

#[derive(Debug, Default)]
struct State {
    /// When each call ended, and whether it failed.
    calls: VecDeque<(Instant, bool)>,
    failed: usize,
    /// When it may be tried again; None = closed.
    open_until: Option<Instant>,
    /// When the probe left that is under way.
    probe: Option<Instant>,
}

/// One upstream's breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: Mutex<State>,
}

impl Breaker {
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    /// Whether a call may go out now. A yes after the rest is the one probe; the next caller gets a no until its end is
    /// recorded, or until a probe of which nothing was heard is as old as the rest.
    pub fn admits(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(until) = state.open_until else { return true };
        if now < until || state.probe.is_some_and(|left| now < left + self.settings.rest) {
            return false;
        }
        state.probe = Some(now);
        true
    }

    /// Whether calls are turned away at the moment; takes no probe.
    pub fn is_open(&self) -> bool {
        self.lock().open_until.is_some()
    }

    /// Notes how a call ended that began at `began`.
    pub fn record(&self, began: Instant, now: Instant, failed: bool) {
        let mut state = self.lock();
        if let Some(until) = state.open_until {
            // What left before it opened says nothing about now.
            let opened = until.checked_sub(self.settings.rest);
            if opened.is_some_and(|opened| began < opened) {
                return;
            }
            *state = State::default();
            if failed {
                state.open_until = Some(now + self.settings.rest);
            }
            return;
        }
        state.calls.push_back((now, failed));
        state.failed += usize::from(failed);
        while state.calls.len() > MOST_CALLS
            || state.calls.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.settings.window)
        {
            if let Some((_, true)) = state.calls.pop_front() {
                state.failed -= 1;
            }
        }
        let count = state.calls.len();
        if failed && count >= self.settings.minimum && state.failed as f64 >= self.settings.failures * count as f64 {
            *state = State { open_until: Some(now + self.settings.rest), ..State::default() };
        }
    }

    /// A probe that left at `left` was given up before it ended: the next caller may try.
    pub fn forget(&self, left: Instant) {
        let mut state = self.lock();
        if state.probe == Some(left) {
            state.probe = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
