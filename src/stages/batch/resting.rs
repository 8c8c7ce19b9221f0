//! Where packs come to little, what is asked again costs more than they save: a model that cannot do it is not asked for a
//! while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stages::lacking::Place;

/// A place, and a hash of what all questions of a pack have in common: what a model cannot do with one prompt it may do with
/// another.
pub type Task = (Place, u64);

/// Packs in a row that came to little.
pub const MOST_IN_VAIN: u32 = 3;
const REST: Duration = Duration::from_secs(600);
/// Beyond this many, all are tried again.
const MOST: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct Resting(Mutex<HashMap<Task, (u32, Instant)>>);

impl Resting {
    /// Whether no pack is sent there now. After a rest, one such pack is enough for another.
    pub fn rests(&self, task: &Task) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(task).is_some_and(|(count, last)| *count >= MOST_IN_VAIN && last.elapsed() < REST)
    }

    /// How a pack ended there.
    pub fn note(&self, task: Task, has_paid: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if has_paid {
            all.remove(&task);
            return;
        }
        if all.len() >= MOST {
            all.clear();
        }
        let (count, last) = all.entry(task).or_insert((0, Instant::now()));
        *count = count.saturating_add(1);
        *last = Instant::now();
    }
}
