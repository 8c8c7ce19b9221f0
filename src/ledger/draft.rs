//! Charges that nobody can put in the right line yet: of an answer that is still to be judged.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Books, Charge, Money, Saving};

/// The line of the bill for what answered the application.
pub const UPSTREAM: &str = "upstream";

/// What an attempt is for.
#[derive(Clone, Debug, Default)]
pub enum Purpose {
    /// The answer that the application gets.
    #[default]
    Answer,
    /// An answer that may be rejected.
    Draft(std::sync::Arc<Draft>),
    /// A stage's own work, by its name: overhead.
    Own(&'static str),
}

/// The charges of one draft, held back until it is judged. One that is never judged was in vain.
#[derive(Debug)]
pub struct Draft {
    books: Books,
    /// Where it stands when it is rejected.
    stage: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Vec<Charge>, Vec<Saving>),
    Settled(&'static str),
}

impl Draft {
    /// `stage`: who asked for it.
    pub fn new(books: Books, stage: &'static str) -> Self {
        Self { books, stage, state: Mutex::new(State::Open(Vec::new(), Vec::new())) }
    }

    pub fn record(&self, charge: Charge) {
        let stage = match &mut *self.lock() {
            State::Open(charges, _) => {
                charges.push(charge);
                return;
            }
            State::Settled(stage) => *stage,
        };
        self.books.record_charge(Charge { stage, ..charge });
    }

    /// What a stage below saved on the draft: it counts if the draft is taken.
    pub fn hold(&self, saving: Saving) {
        if let State::Open(_, savings) = &mut *self.lock() {
            savings.push(saving);
        }
    }

    /// Hands the charges over to who writes them down: the draft is several answers, and each has a part of them. What
    /// comes later is overhead.
    pub fn take(&self) -> Vec<Charge> {
        match std::mem::replace(&mut *self.lock(), State::Settled(self.stage)) {
            State::Open(charges, _) => charges,
            State::Settled(_) => Vec::new(),
        }
    }

    /// Writes the charges down; returns what they come to, None where a price is unknown.
    pub fn settle(&self, accepted: bool) -> Option<Money> {
        let stage = if accepted { UPSTREAM } else { self.stage };
        let before = std::mem::replace(&mut *self.lock(), State::Settled(stage));
        let State::Open(charges, savings) = before else { return Some(Money::ZERO) };
        for saving in savings.iter().filter(|_| accepted) {
            self.books.record_saving(saving);
        }
        let mut sum = Some(Money::ZERO);
        for charge in charges {
            sum = sum.zip(charge.cost).map(|(sum, cost)| sum + cost);
            self.books.record_charge(Charge { stage, ..charge });
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.settle(false);
    }
}
