//! What one call spends on being shorter, and what comes of it: written down when it ends, however it does.

use std::sync::Arc;

use super::account::{Account, Sum};
use crate::context::Context;
use crate::ledger::Money;

/// Open until it is closed or dropped: a call that failed, or that nobody waits for any more, has spent it all the same.
pub struct Tab {
    account: Arc<Account>,
    cx: Context,
    asked: Arc<str>,
    /// What farthing had spent on the call before.
    before: Money,
    restored: Money,
    is_open: bool,
}

impl Tab {
    /// `asked`: the model, as the call names it.
    pub fn open(account: &Arc<Account>, cx: &Context, asked: &Arc<str>) -> Self {
        Self {
            account: Arc::clone(account),
            cx: cx.clone(),
            asked: Arc::clone(asked),
            before: overhead(cx),
            restored: Money::ZERO,
            is_open: true,
        }
    }

    /// An answer that asked for what was left out has cost so much.
    pub fn restored(&mut self, cost: Option<Money>) {
        self.restored += cost.unwrap_or_default();
    }

    /// The call was answered. None: a price is unknown, and it says nothing.
    pub fn close(mut self, saved: Option<Money>) {
        self.is_open = false;
        if let Some(saved) = saved {
            self.note(saved);
        }
    }

    fn note(&self, saved: Money) {
        let paid = overhead(&self.cx) - self.before - self.restored;
        if self.account.note(&self.asked, Sum { saved, paid, restored: self.restored }) {
            self.cx.books.client().record_fault("compress does not pay");
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if self.is_open {
            self.note(Money::ZERO);
        }
    }
}

/// What farthing has spent on the call so far.
fn overhead(cx: &Context) -> Money {
    cx.receipt.read(|facts| facts.decisions.as_ref().map(|all| all.overhead)).unwrap_or_default()
}
