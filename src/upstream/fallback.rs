//! From one upstream to the next: when, in which order, and what the caller gets when none of them answers.
//!
//! Retries at one upstream come first (`mod.rs`, by the SDK's rules), then the next. A fallback is for what another
//! upstream can cure, never for what is wrong with the request. What was promised to the caller stays: one deadline, the
//! failure of the first upstream if all fail, no second beginning of a stream.

use std::sync::Arc;
use std::time::Instant;

use crate::context::Context;
use crate::effects::{has_effects, is_tied};
use crate::error::{Error, Phase, Result};
use crate::exchange::{Request, Response};
use crate::ledger::Count;
use crate::patience::{Limits, Patience};
use crate::upstream::plan::Plan;
use crate::upstream::states::State;
use crate::upstream::{Upstream, Way};

/// How the attempts at one upstream ended.
pub(super) struct Ended {
    pub result: Result<Response>,
    /// Another upstream may do better.
    pub curable: bool,
}

impl Ended {
    pub fn failed(error: Error) -> Self {
        Self { curable: error.is_retryable(), result: Err(error) }
    }

    fn is_good(&self) -> bool {
        !self.curable && self.result.as_ref().is_ok_and(Response::is_success)
    }
}

/// Whether an answer with this status is one that another upstream can cure.
pub fn is_curable(status: u16) -> bool {
    matches!(status, 408 | 429) || status >= 500
}

/// One call's walk along its plan.
struct Walk<'a> {
    upstream: &'a Upstream,
    cx: &'a Context,
    request: &'a Request,
    plan: &'a Plan,
    states: Vec<Arc<State>>,
    deadline: Option<Instant>,
}

/// A turn that a breaker allowed. If it is a probe, and ends without a word on how it went (the caller left, a limit was
/// not reached in time), another caller may be the next.
struct Admitted {
    state: Arc<State>,
    at: Instant,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.state.breaker.forget(self.at);
    }
}

impl Upstream {
    /// Asks the upstreams of a plan in their order.
    pub(super) async fn walk(&self, cx: &Context, request: &Request, plan: &Plan) -> Result<Response> {
        // What one server holds, another does not know.
        let alone;
        let plan = if !plan.fallbacks.is_empty() && is_tied(request) {
            alone = Plan { fallbacks: Vec::new(), ..plan.clone() };
            &alone
        } else {
            plan
        };
        let mut states = vec![self.states.get(plan.upstream.as_deref(), &request.url, &request.headers)];
        states.extend(
            plan.fallbacks
                .iter()
                .map(|target| self.states.get(target.upstream.as_deref(), &target.url, &target.headers)),
        );
        let deadline = self.states.deadline.filter(|_| !plan.fallbacks.is_empty()).map(|span| Instant::now() + span);
        let walk = Walk { upstream: self, cx, request, plan, states, deadline };
        walk.run().await
    }
}

impl Walk<'_> {
    async fn run(self) -> Result<Response> {
        let last = self.plan.fallbacks.len();
        if last > 0 {
            self.cx.patience.walks();
        }
        let mut first: Option<Result<Response>> = None;
        let mut index = 0;
        while index <= last {
            let asked = index;
            index += 1;
            // An upstream that is resting is skipped, unless there is no other.
            let admitted = (last > 0).then(|| self.admits(asked));
            if matches!(admitted, Some(None)) {
                continue;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let ended = if first.is_none() { self.hedged(asked, &mut index).await } else { self.turn(asked).await };
            if !ended.curable && (first.is_none() || ended.is_good()) {
                return ended.result;
            }
            let ends = !ended.curable;
            first.get_or_insert(ended.result);
            if ends {
                break;
            }
        }
        match first {
            Some(result) => result,
            // All of them are resting.
            None => self.attempts(self.cx, 0, self.request, false).await.result,
        }
    }

    fn admits(&self, index: usize) -> Option<Admitted> {
        let at = Instant::now();
        let state = &self.states[index];
        state.breaker.admits(at).then(|| Admitted { state: Arc::clone(state), at })
    }

    /// All attempts at one upstream.
    async fn turn(&self, index: usize) -> Ended {
        if let Some(target) = index.checked_sub(1).and_then(|fallback| self.plan.fallbacks.get(fallback)) {
            self.cx.patience.turns_to(target.limits);
        }
        self.ask(self.cx, index, index < self.plan.fallbacks.len()).await
    }

    /// Asks one upstream, in its own words.
    async fn ask(&self, cx: &Context, index: usize, watches: bool) -> Ended {
        if index == 0 {
            return self.attempts(cx, 0, self.request, watches).await;
        }
        let target = &self.plan.fallbacks[index - 1];
        cx.books.count(Count::Fallback);
        let request = target.request(cx, self.request);
        self.attempts(cx, index, &request, watches).await
    }

    async fn attempts(&self, cx: &Context, index: usize, request: &Request, watches: bool) -> Ended {
        let target = index.checked_sub(1).and_then(|fallback| self.plan.fallbacks.get(fallback));
        let way = Way {
            state: Some(&self.states[index]),
            alias: target.map(|target| &target.name).or(self.plan.alias.as_ref()).map(Arc::clone),
            before: self.before(),
            origin: Some(self.request),
            is_substitute: target.is_some(),
            // The deadline is over when the first token is there.
            watches: watches || self.deadline.is_some(),
            deadline: self.deadline,
            diverted: Vec::new(),
        };
        let began = Instant::now();
        let attempts = self.upstream.attempts(cx, request, &way);
        let Some(deadline) = self.deadline else { return attempts.await };
        tokio::time::timeout_at(deadline.into(), attempts).await.unwrap_or_else(|_| {
            self.states[index].record(began, true);
            Ended::failed(Error::timeout(Phase::Read))
        })
    }

    /// A call whose model a stage chose: the budgets of the name that it was asked by hold too.
    fn before(&self) -> Vec<Arc<str>> {
        let asked = self.cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
        if self.plan.alias.as_ref().is_some_and(|alias| *alias != asked) { vec![asked] } else { Vec::new() }
    }

    /// The first turn, with a second try beside it once the answer is late. `next` is moved on when that was a fallback.
    async fn hedged(&self, index: usize, next: &mut usize) -> Ended {
        let hedge = self.upstream.states.hedge.filter(|_| !has_effects(self.request));
        let after = hedge.and_then(|hedge| self.states[index].latencies.percentile(hedge.percentile, hedge.minimum));
        let (Some(after), Some(limits)) = (after, self.cx.patience.limits()) else { return self.turn(index).await };
        let mut turn = std::pin::pin!(self.turn(index));
        tokio::select! {
            biased;
            ended = &mut turn => return ended,
            () = tokio::time::sleep(after) => {}
        }
        let admitted = (index + 1..self.states.len()).find_map(|other| Some((other, self.admits(other)?)));
        let other = admitted.as_ref().map(|(other, _)| *other);
        let beside = other.unwrap_or(index);
        self.cx.books.count(Count::Hedge);
        // The second try is one try, and waits by itself.
        let own = beside.checked_sub(1).and_then(|fallback| self.plan.fallbacks[fallback].limits).unwrap_or(limits);
        let patience = Arc::new(Patience::alone(Limits { max_retries: 0, ..own }));
        let cx = Context { patience, ..self.cx.clone() };
        let mut second = std::pin::pin!(self.ask(&cx, beside, true));
        tokio::select! {
            biased;
            ended = &mut turn => {
                if !ended.curable {
                    return ended;
                }
                let second = second.await;
                if let Some(other) = other {
                    *next = other + 1;
                }
                if second.is_good() { second } else { ended }
            }
            ended = &mut second => {
                if ended.is_good() {
                    return ended;
                }
                if let Some(other) = other {
                    *next = other + 1;
                }
                turn.await
            }
        }
    }
}
