//! Is the answer good enough? If not, the next rung of the ladder is asked.
//!
//! A draft is buffered, judged (`escalate/scoring.rs`), and handed on as it came (`escalate/buffered.rs`); the last rung
//! streams live. What a rejected draft cost is this stage's overhead. A scorer that fails escalates. What drafts teach is
//! kept by `escalate/learning.rs`.

mod buffered;
pub mod ladder;
pub mod learning;
pub mod scoring;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use self::buffered::Buffered;
use self::ladder::{Ladder, Scorer};
use self::scoring::{Judged, Scoring};
use super::at_end::at_end;
use super::counterfactual::{Counterfactual, now};
use crate::budget::bound::bound;
use crate::context::Context;
use crate::effects::has_effects;
use crate::error::{Error, Result};
use crate::escalate::answer::Answer;
use crate::exchange::{Endpoint, Request, Response};
use crate::labels::Labels;
use crate::ledger::{Count, Draft, Money, PriceTable, Purpose};
use crate::pipeline::{Next, Stage};
use crate::question::Question;
use crate::receipt::Rung as Asked;
use crate::route::gates::{Needs, rules_out};
use crate::upstream::plan::{Choices, Tier};

const NAME: &str = "escalate";
/// Servers beyond this many that have no logprobs: they are asked again.
const MOST_WITHOUT: usize = 1000;

/// See the module.
pub struct EscalateStage {
    ladder: Arc<Ladder>,
    prices: Arc<PriceTable>,
    labels: Arc<Labels>,
    /// URLs and models that gave no logprobs.
    without_logprobs: Mutex<HashSet<(Arc<str>, Arc<str>)>>,
}

/// A judged draft that may still become the answer.
struct Candidate {
    draft: Arc<Draft>,
    answer: Buffered,
    /// As it is compared with thresholds; below 0 = it was not judged.
    score: f64,
    /// Its place among the rungs on the receipt.
    place: usize,
    strips: bool,
    judged: learning::Judged,
}

/// One call on its way up.
struct Climb<'a> {
    stage: &'a EscalateStage,
    cx: &'a Context,
    request: &'a Request,
    next: &'a Next,
    choices: &'a Arc<Choices>,
    question: Question,
    needs: Needs,
    until: Option<Instant>,
    max_cost: Option<Money>,
    best: Option<Candidate>,
    /// What is kept of the drafts that were not good enough.
    rejected: Vec<learning::Judged>,
}

impl EscalateStage {
    pub fn new(ladder: Ladder, prices: Arc<PriceTable>, labels: Arc<Labels>) -> Self {
        Self { ladder: Arc::new(ladder), prices, labels, without_logprobs: Mutex::default() }
    }

    /// Where a call enters the ladder; None = it is not for it.
    fn start(&self, cx: &Context, request: &Request) -> Option<usize> {
        let last = self.ladder.rungs.len() - 1;
        let chosen = match &cx.tier {
            None => None,
            // What the stage route chose and is no rung has no rungs above it.
            Some(tier) => Some(self.ladder.rungs.iter().position(|rung| rung.name == *tier.name())?),
        };
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
        if !matches!(request.endpoint, Endpoint::Chat | Endpoint::Responses) {
            let last = self.ladder.rungs.last().and_then(|rung| choices.tier(&rung.name));
            let tier = cx.tier.clone().or_else(|| last.map(Arc::clone));
            return next.run(&Context { tier, ..cx.clone() }, request).await;
        }
        let Some(start) = self.start(cx, &request) else { return next.run(cx, request).await };
        let wishes = cx.wishes.as_ref();
        let counts = self.ladder.rungs.iter().any(|rung| rung.capabilities.context.is_some());
        let question = Question::read(&request);
        let needs = Needs::of(&request, &question, counts);
        let deadline = wishes.and_then(|wishes| wishes.deadline).or(self.ladder.deadline);
        let climb = Climb {
            stage: self,
            cx,
            request: &request,
            next: &next,
            choices,
            question,
            needs,
            until: deadline.map(|deadline| Instant::now() + deadline),
            max_cost: wishes.and_then(|wishes| wishes.max_cost).or(self.ladder.max_cost),
            best: None,
            rejected: Vec::new(),
        };
        let last = self.ladder.rungs.last().map(|rung| Arc::clone(&rung.name)).unwrap_or_default();
        let response = climb.run(start).await?;
        Ok(Counterfactual::new(NAME, cx, &self.prices, choices, &last).watch(response))
    }
}

impl Climb<'_> {
    async fn run(mut self, start: usize) -> Result<Response> {
        let rungs = &self.stage.ladder.rungs;
        let last = rungs.len() - 1;
        if start < last {
            // Who waits gets what the last rung says, not the failure of the first.
            self.cx.patience.walks();
        }
        let mut failed = false;
        for (index, rung) in rungs.iter().enumerate().skip(start) {
            let is_last = index == last;
            let Some(tier) = self.choices.tier(&rung.name) else {
                self.note(format!("{} cannot be asked now", rung.name));
                continue;
            };
            if let Some(why) = rules_out(&self.needs, &rung.capabilities, is_last)
                && !is_last
            {
                self.passed_over(tier, why);
                continue;
            }
            if self.best.is_some()
                && let Some(why) = self.forbids(tier)
                && let Some(best) = self.best.take()
            {
                self.note(why);
                return Ok(self.take_for_want(best));
            }
            if self.best.is_some() || failed {
                self.cx.books.count(Count::Escalation);
            }
            if is_last {
                return self.live(tier).await;
            }
            match self.draft(index, tier).await {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => failed = true,
                Err(error @ Error::Budget(_)) => return self.settle_for_best(error),
                Err(_) => failed = true,
            }
        }
        // The last rung cannot be asked: its key did not come.
        self.settle_for_best(Error::Config("no rung of the ladder can be asked".to_owned()))
    }

    fn settle_for_best(mut self, error: Error) -> Result<Response> {
        match self.best.take() {
            Some(best) => {
                self.note(format!("no further rung could be asked: {error}"));
                Ok(self.take_for_want(best))
            }
            None => Err(error),
        }
    }

    /// Why the next rung is not asked, though the draft at hand is poor.
    fn forbids(&self, tier: &Arc<Tier>) -> Option<String> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Some(format!("the deadline was over before {} was asked", tier.name()));
        }
        let most = self.max_cost?;
        let asked = tier.target.request(self.cx, self.request);
        let may_cost = bound(&self.stage.prices, &asked, tier.name(), now()).cost;
        let spent: Money = self.cx.receipt.read(|facts| facts.attempts.iter().filter_map(|attempt| attempt.cost).sum());
        match may_cost {
            Ok(cost) if spent + cost <= most => None,
            Ok(cost) => {
                Some(format!("{} may cost {cost} USD: beyond max_cost = {most}, {spent} is spent", tier.name()))
            }
            Err(_) => Some(format!("nobody can say what {} may cost, and max_cost = {most}", tier.name())),
        }
    }

    /// The last rung: its answer is the call's, as it comes.
    async fn live(mut self, tier: &Arc<Tier>) -> Result<Response> {
        let inner = Context { tier: Some(Arc::clone(tier)), ..self.cx.clone() };
        let call = self.next.clone().run(&inner, self.request.clone());
        let result = match self.until.filter(|_| self.best.is_some()) {
            None => call.await,
            Some(until) => tokio::time::timeout_at(until.into(), call)
                .await
                .unwrap_or_else(|_| Err(Error::timeout(crate::error::Phase::Read))),
        };
        let reason = match &result {
            Ok(response) if response.is_success() => None,
            Ok(response) => Some(format!("{} answered with status {}", tier.name(), response.status)),
            Err(error) => Some(format!("{}: {error}", tier.name())),
        };
        match (self.best.take(), reason) {
            (best, None) => {
                if let Some(best) = best {
                    self.reject(best);
                }
                self.asked(tier, &Judged::default(), true);
                result.map(|response| self.learn(response))
            }
            (Some(best), Some(reason)) => {
                self.note(reason);
                Ok(self.take_for_want(best))
            }
            (None, Some(_)) => result,
        }
    }

    /// A rung whose answer is judged: the response if it is good enough.
    async fn draft(&mut self, index: usize, tier: &Arc<Tier>) -> Result<Option<Response>> {
        let rung = &self.stage.ladder.rungs[index];
        let (draft, answer, strips) = match self.ask(tier).await {
            Ok(asked) => asked,
            Err(error) => {
                self.failed(tier, error.to_string());
                return Err(error);
            }
        };
        if !(200..300).contains(&answer.status) {
            self.failed(tier, format!("status {}", answer.status));
            return Ok(None);
        }
        let Some(read) = Answer::read(self.request.endpoint, &answer.body) else {
            self.failed(tier, "it is no answer".to_owned());
            return Ok(None);
        };
        let scoring = Scoring {
            cx: self.cx,
            next: self.next,
            choices: self.choices,
            ladder: &self.stage.ladder,
            request: self.request,
            question: &self.question,
            tier,
            answer: &read,
        };
        let before = self.overhead();
        let mut judged = scoring.judge().await;
        let kept = learning::Judged {
            model: tier.model().into(),
            rung: Arc::clone(tier.name()),
            text: read.text().into(),
            score: judged.score,
            scores: judged.scores.clone(),
            cost: answer.cost(),
            overhead: self.overhead().zip(before).map(|(after, before)| after - before),
        };
        let calibrated = judged.score.map(|score| rung.calibrated(score));
        if let (Some(score), Some(calibrated)) = (judged.score, calibrated)
            && rung.map.is_some()
        {
            judged.reasons.push(format!("score {score:.3}").into());
            judged.score = Some(calibrated);
        }
        let accepted = calibrated.is_some_and(|score| score >= rung.threshold);
        let place = self.asked(tier, &judged, accepted);
        self.cx.receipt.update(|facts| {
            if let Some(asked) = facts.decisions().rungs.get_mut(place) {
                asked.cost = answer.cost();
            }
        });
        let candidate = Candidate { draft, answer, score: calibrated.unwrap_or(-1.0), place, strips, judged: kept };
        if accepted {
            if let Some(best) = self.best.take() {
                self.reject(best);
            }
            self.compare(&candidate);
            let response = self.take(candidate);
            return Ok(Some(self.learn(response)));
        }
        match self.best.take() {
            Some(best) if best.score > candidate.score => {
                self.reject(candidate);
                self.best = Some(best);
            }
            worse => {
                if let Some(worse) = worse {
                    self.reject(worse);
                }
                self.best = Some(candidate);
            }
        }
        Ok(None)
    }

    /// Asks a rung, with logprobs if a scorer wants them; the flag says whether they are to be taken out again.
    async fn ask(&self, tier: &Arc<Tier>) -> Result<(Arc<Draft>, Buffered, bool)> {
        let place = (Arc::clone(&tier.target.url), Arc::<str>::from(tier.model()));
        let mut strips = self.stage.ladder.uses(Scorer::Logprob)
            && !self.question.wants_logprobs
            && !self.stage.known_without().contains(&place);
        loop {
            let request = if strips { with_logprobs(self.request) } else { self.request.clone() };
            let draft = Arc::new(Draft::new(self.cx.books.clone(), NAME));
            let purpose = Purpose::Draft(Arc::clone(&draft));
            let inner = Context { tier: Some(Arc::clone(tier)), purpose, ..self.cx.clone() };
            let call = async { Buffered::read(&inner, self.next.clone().run(&inner, request).await?).await };
            let answer = match self.until.filter(|_| self.best.is_some()) {
                None => call.await?,
                Some(until) => tokio::time::timeout_at(until.into(), call)
                    .await
                    .map_err(|_| Error::timeout(crate::error::Phase::Read))??,
            };
            // What it refuses may be what we added.
            if strips && matches!(answer.status, 400 | 404 | 422) {
                strips = false;
                let told = self.stage.lacks_logprobs(place.clone());
                if told {
                    self.note(format!("{} refuses logprobs: the other scorers judge it", tier.name()));
                }
                continue;
            }
            return Ok((draft, answer, strips));
        }
    }

    /// Notes a rung on the receipt; returns its place.
    fn asked(&self, tier: &Arc<Tier>, judged: &Judged, accepted: bool) -> usize {
        let asked = Asked {
            model: Arc::clone(tier.name()),
            score: judged.score,
            scores: judged.scores.clone(),
            accepted,
            reasons: judged.reasons.clone(),
            cost: None,
        };
        let mut place = 0;
        self.cx.receipt.update(|facts| {
            let rungs = &mut facts.decisions().rungs;
            place = rungs.len();
            rungs.push(asked);
        });
        place
    }

    fn failed(&self, tier: &Arc<Tier>, reason: String) {
        let judged = Judged { reasons: vec![Cow::Owned(reason)], ..Judged::default() };
        self.asked(tier, &judged, false);
    }

    fn passed_over(&self, tier: &Arc<Tier>, why: String) {
        self.failed(tier, format!("not asked: {why}"));
    }

    /// What the draft cost was in vain.
    fn reject(&mut self, candidate: Candidate) {
        let cost = candidate.draft.settle(false);
        self.cx.receipt.update(|facts| facts.spend(cost));
        self.rejected.push(candidate.judged);
    }

    /// The draft is the answer because there is no better one: it was not good enough to be stored for others.
    fn take_for_want(&self, candidate: Candidate) -> Response {
        let mut response = self.take(candidate);
        response.is_substitute = true;
        response
    }

    /// USD that farthing spent on the call so far; None = unknown.
    fn overhead(&self) -> Option<Money> {
        self.cx.receipt.read(|facts| match &facts.decisions {
            None => Some(Money::ZERO),
            Some(decisions) => (!decisions.has_unknown).then_some(decisions.overhead),
        })
    }

    /// Keeps what the rejected drafts teach, once the answer that came in their place is known.
    fn learn(&mut self, response: Response) -> Response {
        let drafts = std::mem::take(&mut self.rejected);
        if drafts.is_empty() || self.stage.ladder.keep == learning::Keep::Nothing {
            return response;
        }
        let shadows: Vec<_> = drafts.into_iter().map(|draft| self.shadow(draft)).collect();
        let (endpoint, receipt) = (self.request.endpoint, Arc::clone(&self.cx.receipt));
        at_end(response, move |whole| {
            let answer = learning::text_of(endpoint, whole).map(|text| (text, receipt.read(|facts| facts.cost)));
            for shadow in shadows {
                learning::keep_rejected(shadow, answer.clone());
            }
        })
    }

    /// Compares an accepted draft with the dearest model's answer, for a sample of them.
    fn compare(&self, candidate: &Candidate) {
        if learning::is_drawn(self.stage.ladder.shadow) && self.question.answers <= 1 && !has_effects(self.request) {
            self.shadow(candidate.judged.clone()).start();
        }
    }

    fn shadow(&self, draft: learning::Judged) -> learning::Shadow {
        learning::Shadow {
            cx: self.cx.clone(),
            next: self.next.clone(),
            choices: Arc::clone(self.choices),
            ladder: Arc::clone(&self.stage.ladder),
            request: self.request.clone(),
            question: self.question.clone(),
            draft,
            labels: Arc::clone(&self.stage.labels),
            keep: self.stage.ladder.keep,
            dear: None,
        }
    }

    /// The draft is the call's answer.
    fn take(&self, candidate: Candidate) -> Response {
        candidate.draft.settle(true);
        self.cx.receipt.update(|facts| {
            if let Some(asked) = facts.decisions().rungs.get_mut(candidate.place) {
                asked.accepted = true;
            }
        });
        candidate.answer.into_response(self.cx, self.request.endpoint, candidate.strips)
    }

    fn note(&self, note: String) {
        self.cx.receipt.update(|facts| facts.note(note));
    }
}

impl EscalateStage {
    fn known_without(&self) -> std::sync::MutexGuard<'_, HashSet<(Arc<str>, Arc<str>)>> {
        self.without_logprobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a server without logprobs; whether that is news.
    fn lacks_logprobs(&self, place: (Arc<str>, Arc<str>)) -> bool {
        let mut known = self.known_without();
        if known.len() >= MOST_WITHOUT {
            known.clear();
        }
        known.insert(place)
    }
}

fn with_logprobs(request: &Request) -> Request {
    match request.endpoint {
        Endpoint::Responses => {
            let mut include = request.get::<Vec<String>>("include").unwrap_or_default();
            include.push("message.output_text.logprobs".to_owned());
            let include = serde_json::Value::from(include).to_string();
            request.with_field("include", &include).with_field("top_logprobs", "2")
        }
        _ => request.with_field("logprobs", "true").with_field("top_logprobs", "2"),
    }
}
