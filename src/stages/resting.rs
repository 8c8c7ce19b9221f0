//! What failed several times in a row is not tried for a while: it would only cost time and money again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row.
pub const MOST_IN_VAIN: u32 = 3;
/// Beyond this many, all are tried again.
const MOST: usize = 1000;

/// See the module.
pub struct Resting<T> {
    failed: Mutex<HashMap<T, (u32, Instant)>>,
    rest: Duration,
}

impl<T: Eq + Hash> Resting<T> {
    /// `rest`: how long.
    pub fn new(rest: Duration) -> Self {
        Self { failed: Mutex::default(), rest }
    }

    /// Whether it is not tried now. After a rest, one failure is enough for another.
    pub fn rests(&self, what: &T) -> bool {
        let all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(what).is_some_and(|(count, last)| *count >= MOST_IN_VAIN && last.elapsed() < self.rest)
    }

    /// How it went.
    pub fn note(&self, what: T, went_well: bool) {
        let mut all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if went_well {
            all.remove(&what);
            return;
        }
        if all.len() >= MOST {
            all.clear();
        }
        let (count, last) = all.entry(what).or_insert((0, Instant::now()));
        *count = count.saturating_add(1);
        *last = Instant::now();
    }
}
