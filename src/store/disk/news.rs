//! What went wrong, for whoever is to be told: once for each kind, or as long as it goes on when the policy
//! is strict.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fault::Fault;

#[derive(Default)]
pub struct News {
    kinds: Mutex<Kinds>,
    /// Something is there to be told: looked at on each call, so it costs no lock.
    untold: AtomicBool,
    /// Something is going on.
    going_on: AtomicBool,
    /// Somebody read something that cannot be: the writer is to look at the file.
    suspect: AtomicBool,
}

#[derive(Default)]
struct Kinds {
    /// Kinds that came up, and whether one is still going on.
    known: BTreeMap<&'static str, bool>,
    untold: Vec<Fault>,
    latest: Option<Fault>,
}

impl News {
    /// True when it is news: the first of its kind, or the first since it went well again.
    pub fn note(&self, fault: &Fault) -> bool {
        let mut kinds = self.lock();
        kinds.latest = Some(fault.clone());
        let was = kinds.known.insert(fault.kind(), true);
        if was.is_none() {
            kinds.untold.push(fault.clone());
            self.untold.store(true, Ordering::Release);
        }
        self.going_on.store(true, Ordering::Release);
        was != Some(true)
    }

    /// It went well.
    pub fn clear(&self) {
        if self.going_on.load(Ordering::Acquire) {
            let mut kinds = self.lock();
            for going_on in kinds.known.values_mut() {
                *going_on = false;
            }
            self.going_on.store(false, Ordering::Release);
        }
    }

    /// What nobody was told of yet; to the strict, what is going on.
    pub fn take(&self, strict: bool) -> Option<Fault> {
        let goes_on = strict && self.going_on.load(Ordering::Acquire);
        if !goes_on && !self.untold.load(Ordering::Acquire) {
            return None;
        }
        let mut kinds = self.lock();
        if kinds.untold.is_empty() {
            return kinds.latest.clone().filter(|_| goes_on);
        }
        let first = kinds.untold.remove(0);
        self.untold.store(!kinds.untold.is_empty(), Ordering::Release);
        Some(first)
    }

    pub fn set_suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    pub fn take_suspect(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
