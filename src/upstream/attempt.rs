//! One attempt, from the moment it leaves until it is known what it cost: the one place where an attempt is opened and
//! closed, on the receipt and in the books. Who sends it, and whether another follows, is not in here.

use std::sync::Arc;
use std::time::Instant;

use crate::budget::Reservation;
use crate::context::Context;
use crate::error::Error;
use crate::exchange::Request;
use crate::ledger::{Charge, Count, Money, Purpose, UPSTREAM, Usage};
use crate::receipt::{Attempt, Ending};

/// The name of the upstream that a client brings along.
pub const DEFAULT: &str = "default";

/// An attempt that is under way. Dropped, it was given up, and nobody knows whether it was billed.
pub struct Running {
    cx: Context,
    index: usize,
    started: Instant,
    open: bool,
    /// What it holds of its budgets. Dropped, it counts as spent: nobody knows whether it was billed.
    reservations: Vec<Reservation>,
}

impl Running {
    /// `upstream`: the name that the policy knows it by.
    pub fn start(cx: &Context, request: &Request, upstream: &Arc<str>, reservations: Vec<Reservation>) -> Self {
        let mut attempt = Attempt::new(Arc::clone(upstream), request.model().unwrap_or_default().into());
        if let Purpose::Own(stage) = cx.purpose {
            attempt.stage = Some(stage);
        }
        let mut index = 0;
        cx.receipt.update(|facts| {
            index = facts.attempts.len();
            facts.attempts.push(attempt);
        });
        Self { cx: cx.clone(), index, started: Instant::now(), open: true, reservations }
    }

    pub fn cx(&self) -> &Context {
        &self.cx
    }

    /// Whether the answer may be the application's: what is told of it stands on the receipt.
    pub fn is_for_caller(&self) -> bool {
        !matches!(self.cx.purpose, Purpose::Own(_))
    }

    /// The upstream answered with an error status, which nobody bills.
    pub fn refused(mut self, status: u16) {
        self.release();
        self.close(|attempt| {
            attempt.ending = Ending::Refused;
            attempt.status = Some(status);
            attempt.cost = Some(Money::ZERO);
        });
    }

    /// No answer came.
    pub fn failed(mut self, error: &Error) {
        let may_be_billed = error.may_be_billed();
        if may_be_billed {
            self.cx.books.count(Count::Unanswered);
        } else {
            self.release();
        }
        self.close(|attempt| {
            attempt.ending = Ending::Failed;
            attempt.error = Some(error.kind());
            attempt.cost = (!may_be_billed).then_some(Money::ZERO);
        });
    }

    /// The head of an answer is there.
    pub fn answers(&self, status: u16) {
        self.cx.receipt.update(|facts| {
            if let Some(attempt) = facts.attempts.get_mut(self.index) {
                attempt.status = Some(status);
            }
        });
    }

    /// What was used is known, or was estimated.
    pub fn charged(self, model: Arc<str>, usage: Usage, cost: Option<Money>) {
        if self.is_for_caller() {
            self.cx.receipt.update(|facts| {
                facts.usage = Some(usage.clone());
                facts.cost = cost;
            });
        }
        self.book(Ending::Answered, model, usage, cost);
    }

    /// An answer had begun, and another one was taken: it costs what was used until then, and is not the call's answer.
    pub fn abandoned(self, model: Arc<str>, usage: Usage, cost: Option<Money>) {
        self.book(Ending::Abandoned, model, usage, cost);
    }

    fn book(mut self, ending: Ending, model: Arc<str>, usage: Usage, cost: Option<Money>) {
        for reservation in self.reservations.drain(..) {
            reservation.settle(cost);
        }
        self.close(|attempt| {
            attempt.ending = ending;
            attempt.prompt_tokens = usage.prompt;
            attempt.completion_tokens = usage.completion;
            attempt.cost = cost;
        });
        let tag = self.cx.tag.clone();
        let charge = |stage| Charge { model, tag, stage, usage, cost };
        match &self.cx.purpose {
            Purpose::Answer => self.cx.books.record_charge(charge(UPSTREAM)),
            Purpose::Draft(draft) => draft.record(charge(UPSTREAM)),
            Purpose::Own(stage) => {
                self.cx.receipt.update(|facts| facts.spend(cost));
                self.cx.books.record_charge(charge(stage));
            }
        }
    }

    /// An answer that cannot have been billed: it has no usage, and nothing to estimate it from.
    pub fn unbilled(mut self) {
        self.release();
        self.close(|attempt| {
            attempt.ending = Ending::Answered;
            attempt.cost = Some(Money::ZERO);
        });
    }

    fn release(&mut self) {
        for reservation in self.reservations.drain(..) {
            reservation.release();
        }
    }

    fn close(&mut self, change: impl FnOnce(&mut Attempt)) {
        self.open = false;
        let time = self.started.elapsed();
        self.cx.receipt.update(|facts| {
            if let Some(attempt) = facts.attempts.get_mut(self.index) {
                attempt.time = time;
                change(attempt);
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.open {
            self.cx.books.count(Count::Unanswered);
            self.close(|attempt| attempt.ending = Ending::Abandoned);
        }
    }
}
