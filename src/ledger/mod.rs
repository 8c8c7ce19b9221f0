//! What was spent and what was saved: one ledger for a client and its copies.
//!
//! Charges come from `upstream/`, one for each attempt that was billed; calls and savings come from the stage that
//! answered. Nothing here decides anything, and nothing here knows a network. `store/disk/` writes the sums down.

pub mod draft;
pub mod money;
pub mod price;
pub mod report;
pub mod usage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use draft::{Draft, Purpose, UPSTREAM};
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

/// What a stage saved by asking for less, or another model than the call names.
#[derive(Clone, Debug)]
pub struct Saving {
    pub stage: &'static str,
    /// That it is compared with.
    pub model: Arc<str>,
    /// That answered; None = nobody said which.
    pub answered: Option<Arc<str>>,
    pub tag: Option<Arc<str>>,
    /// Negative when the other one was dearer; None = a price is unknown.
    pub amount: Option<Money>,
    /// Of the prompt, that did not have to be sent.
    pub tokens: u64,
}

/// What is counted besides calls and charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The same request to the same upstream once more.
    Retry,
    /// The request went to another upstream, because one could not answer.
    Fallback,
    /// A second try beside one that was late.
    Hedge,
    /// An attempt that may have been billed, and nobody said how much.
    Unanswered,
    /// A draft was not good enough, and the next rung was asked.
    Escalation,
    /// An accepted answer of a cheap model was compared with the dear one's.
    Shadow,
    /// And was as good.
    ShadowGood,
    /// An answer came in a request that several calls shared.
    Packed,
    /// Such a question was asked alone as well.
    Checked,
    /// And the answers came to the same.
    CheckedSame,
    /// A token that another order of the prompt would have found in the provider's cache.
    Reordered,
}

/// The sums of a client family, or of what a process has not written into a cache file yet.
#[derive(Debug)]
pub struct Ledger {
    number: u64,
    report: Mutex<Report>,
}

impl Default for Ledger {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), report: Mutex::default() }
    }
}

impl Ledger {
    /// Tells it from all other ledgers of this process.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn record_call(&self, call: Call) {
        self.lock().call(call);
    }

    pub fn record_charge(&self, charge: Charge) {
        self.lock().charge(charge);
    }

    pub fn record_saving(&self, saving: &Saving) {
        self.lock().saving(saving);
    }

    pub fn count(&self, what: Count, times: u64) {
        self.lock().count(what, times);
    }

    /// Notes a failure of farthing's own that calls go on without.
    pub fn record_fault(&self, kind: &'static str) {
        self.lock().fault(kind);
    }

    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Starts again from nothing; returns what there was.
    pub fn take(&self) -> Report {
        std::mem::take(&mut *self.lock())
    }

    /// Adds what was taken and could not be kept.
    pub fn give_back(&self, report: &Report) {
        self.lock().add(report);
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a call is written down: in the ledger of its client, and in that of the cache file, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Books {
    client: Arc<Ledger>,
    file: Option<Arc<Ledger>>,
}

impl Books {
    pub fn new(client: Arc<Ledger>, file: Option<Arc<Ledger>>) -> Self {
        Self { client, file }
    }

    pub fn client(&self) -> &Ledger {
        &self.client
    }

    pub fn record_call(&self, call: Call) {
        if let Some(file) = &self.file {
            file.record_call(call.clone());
        }
        self.client.record_call(call);
    }

    pub fn record_charge(&self, charge: Charge) {
        if let Some(file) = &self.file {
            file.record_charge(charge.clone());
        }
        self.client.record_charge(charge);
    }

    pub fn record_saving(&self, saving: &Saving) {
        if let Some(file) = &self.file {
            file.record_saving(saving);
        }
        self.client.record_saving(saving);
    }

    pub fn count(&self, what: Count) {
        self.count_many(what, 1);
    }

    pub fn count_many(&self, what: Count, times: u64) {
        if let Some(file) = &self.file {
            file.count(what, times);
        }
        self.client.count(what, times);
    }
}
