//! How long an upstream takes until its answer begins: the last calls, and a percentile of them, for hedging.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Calls that are remembered.
const RECENT: usize = 200;

/// One upstream's recent latencies.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<VecDeque<Duration>>);

impl Latencies {
    pub fn record(&self, latency: Duration) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(latency);
    }

    /// The latency below which `percentile` (0 to 100) of the recent calls stayed; None while fewer than `minimum` are
    /// known.
    pub fn percentile(&self, percentile: f64, minimum: usize) -> Option<Duration> {
        let mut recent: Vec<Duration> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if recent.is_empty() || recent.len() < minimum {
            return None;
        }
        let rank = (percentile / 100.0 * recent.len() as f64).ceil() as usize;
        let index = rank.clamp(1, recent.len()) - 1;
        Some(*recent.select_nth_unstable(index).1)
    }
}
