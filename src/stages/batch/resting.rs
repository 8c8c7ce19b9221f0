//! Where packs come to little, what is asked again costs more than they save: a model that cannot do it is not asked for a
//! while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stages::lacking::Place;

/// Packs in a row that came to little.
pub const MOST_IN_VAIN: u32 = 3;
const REST: Duration = Duration::from_secs(600);
/// Beyond this many places, all are tried again.
const MOST: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct Resting(Mutex<HashMap<Place, (u32, Instant)>>);

impl Resting {
    /// Whether no pack is sent there now. After a rest, one such pack is enough for another.
    pub fn rests(&self, place: &Place) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(place).is_some_and(|(count, last)| *count >= MOST_IN_VAIN && last.elapsed() < REST)
    }

    /// How a pack ended there.
    pub fn note(&self, place: Place, has_paid: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if has_paid {
            all.remove(&place);
            return;
        }
        if all.len() >= MOST {
            all.clear();
        }
        let (count, last) = all.entry(place).or_insert((0, Instant::now()));
        *count = count.saturating_add(1);
        *last = Instant::now();
    }
}
