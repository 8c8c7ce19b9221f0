//! Servers and models that do not take what a stage adds to a request: they are not asked for it again for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Beyond this many, all are asked again.
const MOST: usize = 1000;
/// What refused it once may have had another reason, or learn it.
const WHILE: Duration = Duration::from_secs(3600);

/// A URL and a model.
pub type Place = (Arc<str>, Arc<str>);

/// See the module.
#[derive(Default)]
pub struct Lacking(Mutex<HashMap<Place, Instant>>);

impl Lacking {
    pub fn knows(&self, place: &Place) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(place).is_some_and(|since| since.elapsed() < WHILE)
    }

    /// Remembers a place; whether that is news.
    pub fn remember(&self, place: Place) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(place, Instant::now()).is_none_or(|since| since.elapsed() >= WHILE)
    }
}
