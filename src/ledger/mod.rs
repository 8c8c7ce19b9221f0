//! What was spent and what was saved: one ledger for a client and its copies.
//!
//! Charges come from `upstream/`, one for each attempt that was billed; calls and savings come from the stage that
//! answered. Nothing here decides anything, and nothing here knows a network.

pub mod money;
pub mod price;
pub mod report;
pub mod usage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use money::Money;
pub use price::{ModelPrice, PriceTable};
pub use report::{Line, Report};
pub use usage::Usage;

use crate::exchange::Endpoint;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered from the cache.
    Hit,
    /// Answered by an equal call in flight.
    Joined,
    /// Asked and paid.
    Miss,
    /// Asked and paid, without looking at the cache.
    Bypass,
    /// No answer, or an answer with an error status.
    Error,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }

    /// The stage that answered instead of the upstream.
    fn saving_stage(self) -> Option<&'static str> {
        match self {
            Self::Hit => Some("cache"),
            Self::Joined => Some("single_flight"),
            Self::Miss | Self::Bypass | Self::Error => None,
        }
    }
}

/// One call of the application, when it has ended.
#[derive(Clone, Debug)]
pub struct Call {
    pub endpoint: Endpoint,
    pub model_asked: Arc<str>,
    pub model_answered: Option<Arc<str>>,
    pub tag: Option<Arc<str>>,
    pub outcome: Outcome,
    /// What was not paid for; None when nothing was saved.
    pub usage: Option<Usage>,
    /// What that would have cost; None = nothing was saved, or the price is unknown.
    pub saved: Option<Money>,
}

/// One attempt that an upstream billed.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The model that answered.
    pub model: Arc<str>,
    pub tag: Option<Arc<str>>,
    /// "upstream", or the stage whose own work this was (overhead).
    pub stage: &'static str,
    pub usage: Usage,
    /// None = the price is unknown.
    pub cost: Option<Money>,
}

/// The sums of a client family.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Report>);

impl Ledger {
    pub fn record_call(&self, call: Call) {
        self.lock().call(call);
    }

    pub fn record_charge(&self, charge: Charge) {
        self.lock().charge(charge);
    }

    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Starts again from nothing; returns what there was.
    pub fn reset(&self) -> Report {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
