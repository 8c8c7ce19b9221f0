//! What a call would have cost at the model that it is compared with: the saving of the stages that choose the model.
//!
//! An estimate, and marked as one: another model would have taken other tokens for the same answer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::at_end::at_end;
use crate::context::Context;
use crate::exchange::Response;
use crate::ledger::{PriceTable, Saving};
use crate::upstream::plan::{Choices, Tier};

/// Notes the saving when the answer has ended.
pub struct Counterfactual {
    stage: &'static str,
    cx: Context,
    prices: Arc<PriceTable>,
    /// The first of them that has a price counts.
    baselines: Vec<Arc<Tier>>,
}

impl Counterfactual {
    /// The model that the call names, if it is one that has a price; else the dearest one that may answer, `last`.
    pub fn new(stage: &'static str, cx: &Context, prices: &Arc<PriceTable>, choices: &Choices, last: &str) -> Self {
        let baselines = choices.asked.iter().chain(choices.tier(last)).map(Arc::clone).collect();
        Self { stage, cx: cx.clone(), prices: Arc::clone(prices), baselines }
    }

    /// The same answer; a stream notes the saving at its end.
    pub fn watch(self, response: Response) -> Response {
        at_end(response, move |_| self.note())
    }

    fn note(&self) {
        // The stage below has said it: of what it asked, it knows the last rung.
        if self
            .cx
            .receipt
            .read(|facts| self.stage == "route" && facts.decisions.as_ref().is_some_and(|all| !all.rungs.is_empty()))
        {
            return;
        }
        let (usage, cost, tag, answered) = self
            .cx
            .receipt
            .read(|facts| (facts.usage.clone(), facts.cost, facts.tag.clone(), facts.model_answered.clone()));
        // What the stage batch saved on the answer stands in its own line of the bill.
        let packed = self.cx.receipt.read(|facts| {
            let is_packed = facts.decisions.as_ref().is_some_and(|all| all.pack.is_some());
            facts.saved.filter(|_| is_packed).unwrap_or_default()
        });
        // Nothing was charged: there is no answer to compare.
        let Some(usage) = usage else { return };
        let now = now();
        let would_cost = self.baselines.iter().find_map(|tier| tier.cost(&self.prices, &usage, now));
        let amount = would_cost.zip(cost).map(|(would, did)| would - did - packed);
        let model = self.baselines.first().map_or_else(|| "".into(), |tier| tier.model().into());
        self.cx.receipt.update(|facts| facts.saved = amount.map(|amount| amount + packed));
        self.cx.books.record_saving(&Saving { stage: self.stage, model, answered, tag, amount, tokens: 0 });
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
