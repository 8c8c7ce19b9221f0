//! Servers and models that do not take what a stage adds to a request: they are not asked for it again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Beyond this many, all are asked again.
const MOST: usize = 1000;

/// A URL and a model.
pub type Place = (Arc<str>, Arc<str>);

/// See the module.
#[derive(Default)]
pub struct Lacking(Mutex<HashSet<Place>>);

impl Lacking {
    pub fn knows(&self, place: &Place) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(place)
    }

    /// Remembers a place; whether that is news.
    pub fn remember(&self, place: Place) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(place)
    }
}
