//! What happened to one call. Filled while the call runs, so that a stream's receipt is complete when the stream ends.
//! Sums over calls are the ledger's.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::ledger::{Money, Outcome, Usage};

/// The facts of one call.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// None while nothing is known yet.
    pub outcome: Option<Outcome>,
    pub model_asked: Arc<str>,
    pub model_answered: Option<Arc<str>>,
    pub tag: Option<Arc<str>>,
    pub usage: Option<Usage>,
    /// USD that this call was charged; None when a price is unknown.
    pub cost: Option<Money>,
    /// USD that it would have been charged without farthing.
    pub saved: Option<Money>,
    /// Requests that went to the upstream for this call, retries included.
    pub attempts: u32,
    /// Age of the stored answer, for a hit.
    pub age: Option<Duration>,
    /// Time in each stage with everything below it, outermost first.
    pub stages: Vec<(&'static str, Duration)>,
    /// False while a stream is still running.
    pub complete: bool,
}

/// Shared between the call and whoever looks at its receipt.
#[derive(Debug, Default)]
pub struct Receipt(Mutex<Facts>);

impl Receipt {
    pub fn new(facts: Facts) -> Self {
        Self(Mutex::new(facts))
    }

    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    pub fn read<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.lock())
    }

    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
