//! What the stage has come to lately, for each model: where it costs more than it saves, it rests.

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

#[derive(Default)]
struct Model {
    nets: VecDeque<Money>,
    rests: Option<(Instant, Money)>,
}

/// See the module.
#[derive(Default)]
pub struct Account(Mutex<HashMap<Arc<str>, Model>>);

impl Account {
    /// What the last calls to a model lost, in USD, if it rests for that.
    pub fn rests(&self, model: &str) -> Option<Money> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, lost) = all.get(model)?.rests?;
        (since.elapsed() < REST).then_some(lost)
    }

    /// Notes what a call came to: what it saved, less what that cost. True: from now on the model rests.
    pub fn note(&self, model: &Arc<str>, net: Money) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        let model = all.entry(Arc::clone(model)).or_default();
        model.nets.push_back(net);
        if model.nets.len() > WINDOW {
            model.nets.pop_front();
        }
        let sum = model.nets.iter().fold(Money::ZERO, |sum, net| sum + *net);
        if model.nets.len() < LEAST || sum >= Money::ZERO {
            return false;
        }
        model.rests = Some((Instant::now(), Money::ZERO - sum));
        model.nets.clear();
        true
    }
}
