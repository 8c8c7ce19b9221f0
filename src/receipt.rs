//! What happened to one call. Filled while the call runs, so that a stream's receipt is complete when the stream ends.
//! Sums over calls are the ledger's.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::ledger::{Money, Outcome, Usage};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is under way.
    Open,
    /// With an answer.
    Answered,
    /// With an error status.
    Refused,
    /// Without an answer.
    Failed,
    /// Nobody waited for it any more.
    Abandoned,
}

impl Ending {
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Open => None,
            Self::Answered => Some("answered"),
            Self::Refused => Some("refused"),
            Self::Failed => Some("failed"),
            Self::Abandoned => Some("abandoned"),
        }
    }
}

/// One request that went to an upstream.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// By its name in the policy.
    pub upstream: Arc<str>,
    /// That was asked there.
    pub model: Arc<str>,
    pub ending: Ending,
    pub status: Option<u16>,
    /// What it failed with.
    pub error: Option<&'static str>,
    /// Until its answer was whole, or it ended otherwise.
    pub time: Duration,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// None = unknown: no price, or no answer that says what was used.
    pub cost: Option<Money>,
    /// The stage whose own question it was; None = it may be the answer.
    pub stage: Option<&'static str>,
}

impl Attempt {
    pub fn new(upstream: Arc<str>, model: Arc<str>) -> Self {
        Self {
            upstream,
            model,
            ending: Ending::Open,
            status: None,
            error: None,
            time: Duration::ZERO,
            prompt_tokens: 0,
            completion_tokens: 0,
            cost: None,
            stage: None,
        }
    }
}

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
    /// Requests that went to upstreams for this call, in the order in which they left.
    pub attempts: Vec<Attempt>,
    /// What farthing changed about this call, or could not do for it.
    pub notes: Vec<Cow<'static, str>>,
    /// Age of the stored answer, for a hit.
    pub age: Option<Duration>,
    /// Time in each stage with everything below it, outermost first.
    pub stages: Vec<(&'static str, Duration)>,
    /// What stages decided; None = there was nothing to decide.
    pub decisions: Option<Box<Decisions>>,
    /// False while a stream is still running.
    pub complete: bool,
}

/// Which model was asked, and why.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// None = the stage route had no say.
    pub route: Option<Routed>,
    /// In the order in which they were asked.
    pub rungs: Vec<Rung>,
    /// What farthing spent on the call beyond its answer: classifier, judge, rejected drafts.
    pub overhead: Money,
    /// A part of it has no known price.
    pub has_unknown: bool,
    /// None = it was asked alone.
    pub pack: Option<Packed>,
    /// None = its texts were left as they are.
    pub compress: Option<Compressed>,
}

/// A call that shared its request with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Questions in the request.
    pub items: usize,
    /// Its place among them, from 1.
    pub place: usize,
    /// Tokens that all of them together did not need to send, and those that the pack itself took.
    pub saved_tokens: u64,
    pub overhead_tokens: u64,
}

/// What the stage compress made of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compressed {
    /// What was shortened for this call; what was shortened for an earlier one is not here.
    pub steps: Vec<Shortening>,
    /// Tokens that the prompt is shorter by, in all.
    pub tokens: u64,
    /// USD that they would have cost; None = the price is unknown.
    pub saved: Option<Money>,
    /// Tokens that another order of the prompt would have found in the provider's cache.
    pub reordered: u64,
}

/// A text that was said in fewer tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortening {
    /// Of the prompt, as the policy names it.
    pub part: &'static str,
    pub method: &'static str,
    pub before: u64,
    pub after: u64,
}

/// What the stage route decided.
#[derive(Clone, Debug, Default)]
pub struct Routed {
    /// The tier's name in the policy.
    pub tier: Arc<str>,
    pub model: Arc<str>,
    /// What decided: "rules", "llm", "callable", "gate", "affinity", "default".
    pub by: &'static str,
    /// 0 to 1.
    pub confidence: Option<f64>,
    pub reasons: Vec<Cow<'static, str>>,
    /// What the request looks like, as JSON.
    pub features: Option<Arc<str>>,
}

/// One answer of the ladder.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    /// The model or alias, as the ladder has it.
    pub model: Arc<str>,
    /// 0 to 1; None = it was not judged.
    pub score: Option<f64>,
    /// By scorer.
    pub scores: Vec<(Arc<str>, f64)>,
    pub accepted: bool,
    pub reasons: Vec<Cow<'static, str>>,
    /// USD; None = unknown.
    pub cost: Option<Money>,
}

impl Facts {
    /// What stages decided, to be written to.
    pub fn decisions(&mut self) -> &mut Decisions {
        self.decisions.get_or_insert_with(Box::default)
    }

    /// Notes what a stage spent on its own work.
    pub fn spend(&mut self, cost: Option<Money>) {
        let decisions = self.decisions();
        match cost {
            Some(cost) => decisions.overhead += cost,
            None => decisions.has_unknown = true,
        }
    }

    /// USD that this call was charged, with what farthing spent on it; None = a price is unknown.
    pub fn total(&self) -> Option<Money> {
        match &self.decisions {
            None => self.cost,
            Some(decisions) if decisions.has_unknown => None,
            Some(decisions) => self.cost.map(|cost| cost + decisions.overhead),
        }
    }

    /// USD that the call cost less than without farthing, after what farthing spent on it; None = a price is unknown.
    pub fn net_saved(&self) -> Option<Money> {
        let Some(decisions) = &self.decisions else { return self.saved };
        let has_come_to_something =
            |compressed: &&Compressed| compressed.tokens > 0 || compressed.saved != Some(Money::ZERO);
        let shorter = decisions.compress.as_ref().filter(has_come_to_something);
        let saved = match shorter {
            None => self.saved?,
            Some(compressed) => self.saved.unwrap_or_default() + compressed.saved?,
        };
        (!decisions.has_unknown).then(|| saved - decisions.overhead)
    }

    /// Says something once.
    pub fn note(&mut self, note: impl Into<Cow<'static, str>>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
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
