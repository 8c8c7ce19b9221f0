//! What the stage has come to lately, for each model: what costs more than it saves rests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::Money;

/// Calls that are looked back on.
const WINDOW: usize = 50;
/// Fewer say nothing: a summary is paid for by the first of them.
const LEAST: usize = 20;
const REST: Duration = Duration::from_secs(3600);
/// Beyond this many models, all are tried again.
const MOST: usize = 1000;

/// What is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// What has to be paid for: shorter texts save something, though less than that.
    Paid,
    /// Texts that were not sent before: shorter ones are dearer.
    New,
}

#[derive(Default)]
struct Model {
    /// Saved, and spent on it.
    calls: VecDeque<(Money, Money)>,
    rests: Option<(Instant, Rest, Money)>,
}

/// See the module.
#[derive(Default)]
pub struct Account(Mutex<HashMap<Arc<str>, Model>>);

impl Account {
    /// What is left alone of calls to a model, and what they lost by it, in USD.
    pub fn rests(&self, model: &str) -> Option<(Rest, Money)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, rest, lost) = all.get(model)?.rests?;
        (since.elapsed() < REST).then_some((rest, lost))
    }

    /// Notes what a call has saved, and what that cost. True: from now on something rests.
    pub fn note(&self, model: &Arc<str>, saved: Money, spent: Money) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        let model = all.entry(Arc::clone(model)).or_default();
        model.calls.push_back((saved, spent));
        if model.calls.len() > WINDOW {
            model.calls.pop_front();
        }
        let sum = model.calls.iter().fold((Money::ZERO, Money::ZERO), |sum, call| (sum.0 + call.0, sum.1 + call.1));
        let net = sum.0 - sum.1;
        if model.calls.len() < LEAST || net >= Money::ZERO {
            return false;
        }
        let rest = if sum.0 < Money::ZERO { Rest::New } else { Rest::Paid };
        model.rests = Some((Instant::now(), rest, Money::ZERO - net));
        model.calls.clear();
        true
    }
}
