//! Is the answer good enough? If not, the next rung of the ladder is asked.
//!
//! A draft is buffered, judged (`escalate/scoring.rs`), and handed on as it came (`escalate/buffered.rs`); the last rung
//! streams live. What a rejected draft cost is this stage's overhead. A scorer that fails escalates. What drafts teach is
//! kept by `escalate/learning.rs`.

pub mod buffered;
mod climb;
mod confidence;
mod deadline;
pub mod ladder;
pub mod learning;
pub mod scoring;

use std::sync::Arc;

use async_trait::async_trait;

use self::climb::Climb;
use self::deadline::Deadline;
use self::ladder::Ladder;
use super::counterfactual::Counterfactual;
use super::lacking::Lacking;
use crate::budget::Budgets;
use crate::context::Context;
use crate::effects::has_effects;
use crate::error::Result;
use crate::exchange::{Endpoint, Request, Response};
use crate::labels::Labels;
use crate::ledger::{Money, PriceTable, Purpose};
use crate::pipeline::{Next, Stage};
use crate::question::Question;
use crate::route::gates::Needs;

const NAME: &str = "escalate";

/// See the module.
pub struct EscalateStage {
    ladder: Arc<Ladder>,
    prices: Arc<PriceTable>,
    labels: Arc<Labels>,
    without_logprobs: Lacking,
}

impl EscalateStage {
    pub fn new(ladder: Ladder, prices: Arc<PriceTable>, labels: Arc<Labels>) -> Self {
        Self { ladder: Arc::new(ladder), prices, labels, without_logprobs: Lacking::default() }
    }

    /// The same call, with no more to spend than this; what a classifier of the stage before cost is part of it.
    fn limited(&self, cx: &Context, most: Money) -> Context {
        let spent = cx.receipt.read(|facts| facts.attempts.iter().filter_map(|attempt| attempt.cost).sum());
        let limit = Budgets::of_call(most, spent, Arc::clone(&self.prices));
        Context { max_cost: Some(Arc::new(limit)), ..cx.clone() }
    }

    /// Where a call enters the ladder; None = it is not for it.
    fn start(&self, cx: &Context, request: &Request) -> Option<usize> {
        let last = self.ladder.rungs.len() - 1;
        let chosen = match &cx.tier {
            None => None,
            // What the stage route chose and is no rung has no rungs above it.
            Some(tier) => Some(self.ladder.rungs.iter().position(|rung| rung.name == *tier.name())?),
        };
        // A call from inside a scorer cannot be scored by it: its draft would be paid for in vain.
        if cx.inside && self.ladder.calls_functions() {
            return Some(last);
        }
        match chosen {
            // What changes something on a server is asked once.
            Some(_) if has_effects(request) => None,
            None if has_effects(request) => Some(last),
            chosen => Some(chosen.unwrap_or(0)),
        }
    }
}

#[async_trait]
impl Stage for EscalateStage {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response> {
        let choices = cx.plan.as_ref().and_then(|plan| plan.choices.as_ref()).filter(|choices| choices.escalates);
        let Some(choices) = choices.filter(|_| matches!(cx.purpose, Purpose::Answer)) else {
            return next.run(cx, request).await;
        };
        let wishes = cx.wishes.as_ref();
        let deadline = Deadline::of(cx.began, wishes.and_then(|wishes| wishes.deadline).or(self.ladder.deadline));
        let limited;
        let cx = match wishes.and_then(|wishes| wishes.max_cost).or(self.ladder.max_cost) {
            None => cx,
            Some(most) => {
                limited = self.limited(cx, most);
                &limited
            }
        };
        if !matches!(request.endpoint, Endpoint::Chat | Endpoint::Responses) {
            let last = self.ladder.rungs.last().and_then(|rung| choices.tier(&rung.name));
            let tier = cx.tier.clone().or_else(|| last.map(Arc::clone));
            let cx = Context { tier, ..cx.clone() };
            return deadline.answer(request.endpoint, next.run(&cx, request)).await;
        }
        let Some(start) = self.start(cx, &request) else {
            return deadline.answer(request.endpoint, next.run(cx, request)).await;
        };
        let counts = self.ladder.rungs.iter().any(|rung| rung.capabilities.context.is_some());
        let question = Question::read(&request);
        let needs = Needs::of(&request, &question, counts);
        let climb = Climb {
            stage: self,
            cx,
            request: &request,
            next: &next,
            choices,
            question,
            needs,
            deadline,
            best: None,
            rejected: Vec::new(),
        };
        let last = self.ladder.rungs.last().map(|rung| Arc::clone(&rung.name)).unwrap_or_default();
        let response = climb.run(start).await?;
        Ok(Counterfactual::new(NAME, cx, &self.prices, choices, &last).watch(response))
    }
}
