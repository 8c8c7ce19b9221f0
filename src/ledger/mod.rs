//! What was spent and what was saved: one ledger for a client and its copies.
//!
//! Charges come from `upstream/`, one for each attempt that was billed; calls and savings come from the stage that
//! answered. Nothing here decides anything, and nothing here knows a network. `store/disk/` writes the sums down.

pub mod money;
pub mod price;
pub mod report;
pub mod usage;

use std::sync::atomic::{AtomicBool, Ordering};
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
pub struct Ledger {
    sums: Mutex<Sums>,
    /// A cache file writes the sums down as well.
    kept: AtomicBool,
}

#[derive(Debug, Default)]
struct Sums {
    report: Report,
    /// What there was before resets.
    before: Report,
    /// Rises with each record.
    changes: u64,
}

impl Ledger {
    pub fn record_call(&self, call: Call) {
        let mut sums = self.lock();
        sums.report.call(call);
        sums.changes += 1;
    }

    pub fn record_charge(&self, charge: Charge) {
        let mut sums = self.lock();
        sums.report.charge(charge);
        sums.changes += 1;
    }

    /// Notes a failure of farthing's own that calls go on without.
    pub fn record_fault(&self, kind: &'static str) {
        let mut sums = self.lock();
        sums.report.fault(kind);
        sums.changes += 1;
    }

    pub fn report(&self) -> Report {
        self.lock().report.clone()
    }

    /// Starts again from nothing; returns what there was.
    pub fn reset(&self) -> Report {
        let mut sums = self.lock();
        let report = std::mem::take(&mut sums.report);
        if self.is_kept() {
            sums.before.add(&report);
        }
        report
    }

    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Marks the ledger as one that a file keeps, and gives its sums and their number; None: one keeps it already.
    pub fn start_keeping(&self) -> Option<(Report, u64)> {
        if self.is_kept() {
            return None;
        }
        // Under the lock, so that whoever sees the mark records what the file has not got.
        let sums = self.lock();
        (!self.kept.swap(true, Ordering::Relaxed)).then(|| (sums.report.clone(), sums.changes))
    }

    /// The sums with those from before resets, and their number; None when the number is still `seen`.
    pub fn all_since(&self, seen: u64) -> Option<(Report, u64)> {
        let sums = self.lock();
        if sums.changes == seen {
            return None;
        }
        let mut all = sums.before.clone();
        all.add(&sums.report);
        Some((all, sums.changes))
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
