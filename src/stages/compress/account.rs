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
    /// What is left out of tools' results: the models ask for it, and are asked twice.
    LeftOut,
    /// Texts that were not sent before: shorter ones are dearer.
    New,
}

/// What a call has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub saved: Money,
    /// On those who say things shorter.
    pub paid: Money,
    /// On answers that asked for what was left out.
    pub restored: Money,
}

impl Sum {
    fn and(self, other: &Self) -> Self {
        Self { saved: self.saved + other.saved, paid: self.paid + other.paid, restored: self.restored + other.restored }
    }
}

#[derive(Default)]
struct Model {
    calls: VecDeque<Sum>,
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

    /// Notes what a call has come to. True: from now on something rests.
    pub fn note(&self, model: &Arc<str>, call: Sum) -> bool {
        if call == Sum::default() {
            return false;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        let model = all.entry(Arc::clone(model)).or_default();
        model.calls.push_back(call);
        if model.calls.len() > WINDOW {
            model.calls.pop_front();
        }
        let sum = model.calls.iter().fold(Sum::default(), Sum::and);
        let net = sum.saved - sum.paid - sum.restored;
        if model.calls.len() < LEAST || net >= Money::ZERO {
            return false;
        }
        let rest = match model.rests {
            // To let one thing alone was not enough.
            Some((since, rest, _)) if since.elapsed() < REST && rest != Rest::New => Rest::New,
            _ if sum.restored > sum.paid => Rest::LeftOut,
            _ if sum.saved < Money::ZERO => Rest::New,
            _ => Rest::Paid,
        };
        model.rests = Some((Instant::now(), rest, Money::ZERO - net));
        model.calls.clear();
        true
    }
}
