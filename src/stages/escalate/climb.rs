//! One call's way up the ladder: rung after rung, until a draft is good enough or there is nobody left to ask.

use std::borrow::Cow;
use std::sync::Arc;

use super::buffered::{BrokenOff, Buffered};
use super::confidence::with_logprobs;
use super::deadline::Deadline;
use super::ladder::Scorer;
use super::learning;
use super::scoring::{Judged, Scoring, text};
use super::{EscalateStage, NAME};
use crate::context::Context;
use crate::effects::has_effects;
use crate::error::{Error, Result};
use crate::escalate::answer::Answer;
use crate::escalate::strip::Added;
use crate::exchange::{Request, Response};
use crate::ledger::{Count, Draft, Money, Purpose};
use crate::pipeline::Next;
use crate::question::Question;
use crate::receipt::Rung as Asked;
use crate::route::gates::{Needs, rules_out};
use crate::stages::at_end::at_end;
use crate::stages::sample::is_drawn;
use crate::upstream::plan::{Choices, Tier};

/// A judged draft that may still become the answer.
pub struct Candidate {
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
pub struct Climb<'a> {
    pub stage: &'a EscalateStage,
    pub cx: &'a Context,
    pub request: &'a Request,
    pub next: &'a Next,
    pub choices: &'a Arc<Choices>,
    pub question: Question,
    pub needs: Needs,
    pub deadline: Deadline,
    pub best: Option<Candidate>,
    /// What is kept of the drafts that were not good enough.
    pub rejected: Vec<learning::Judged>,
}
impl Climb<'_> {
    /// Asks from the rung `start` on.
    pub async fn run(mut self, start: usize) -> Result<Response> {
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
            if self.deadline.is_over() {
                let why = format!("the deadline was over before {} was asked", tier.name());
                return self.settle_for_best(why, Deadline::error());
            }
            if is_last {
                return self.live(tier, failed).await;
            }
            match self.draft(index, tier, failed).await {
                Ok(Some(response)) => return Ok(response),
                // Dearer ones have no room either.
                Err(error @ Error::Budget(_)) => {
                    return self.settle_for_best(format!("{} was not asked: {error}", tier.name()), error);
                }
                Ok(None) | Err(_) => failed = true,
            }
        }
        // The last rung cannot be asked: its key did not come.
        let why = "no rung of the ladder can be asked";
        self.settle_for_best(why.to_owned(), Error::Config(why.to_owned()))
    }

    fn settle_for_best(mut self, why: String, error: Error) -> Result<Response> {
        match self.best.take() {
            Some(best) => {
                self.note(why);
                Ok(self.take_for_want(best))
            }
            None => Err(error),
        }
    }

    /// The last rung: its answer is the call's, as it comes.
    async fn live(mut self, tier: &Arc<Tier>, climbed: bool) -> Result<Response> {
        let inner = Context { tier: Some(Arc::clone(tier)), ..self.cx.clone() };
        let call = self.next.clone().run(&inner, self.request.clone());
        let result = self.deadline.answer(self.request.endpoint, call).await;
        self.count(climbed, result.as_ref().err());
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

    /// Counts a rung that was asked after another one. What has no room in a budget was not asked.
    fn count(&self, climbed: bool, error: Option<&Error>) {
        if climbed && !matches!(error, Some(Error::Budget(_))) {
            self.cx.books.count(Count::Escalation);
        }
    }

    /// A rung whose answer is judged: the response if it is good enough.
    async fn draft(&mut self, index: usize, tier: &Arc<Tier>, climbed: bool) -> Result<Option<Response>> {
        let rung = &self.stage.ladder.rungs[index];
        let asked = self.ask(tier).await;
        self.count(climbed, asked.as_ref().err());
        let (draft, answer, strips) = match asked {
            Ok(asked) => asked,
            // It was not asked.
            Err(error @ Error::Budget(_)) => return Err(error),
            Err(error) => {
                self.failed(tier, error.to_string());
                return Err(error);
            }
        };
        if !(200..300).contains(&answer.status) {
            self.discard(&draft);
            self.failed(tier, format!("status {}", answer.status));
            return Ok(None);
        }
        let Some(read) = Answer::read(self.request.endpoint, &answer.body) else {
            self.discard(&draft);
            self.failed(tier, "it is no answer".to_owned());
            return Ok(None);
        };
        // Calls of tools have none anywhere.
        if strips && !read.text().is_empty() && read.choices.iter().all(|choice| choice.tokens.is_empty()) {
            self.lacks_logprobs(tier, "has no logprobs");
        }
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
        let mut judged = self.in_time(scoring.judge()).await;
        let kept = learning::Judged {
            model: tier.model().into(),
            rung: Arc::clone(tier.name()),
            text: read.said().into(),
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

    /// What scorers say before the deadline: a draft that is not judged by then is as good as what there is.
    async fn in_time(&self, judging: impl Future<Output = Judged>) -> Judged {
        self.deadline.hold(judging).await.unwrap_or_else(|_| {
            self.cx.patience.touch();
            Judged { reasons: vec!["the deadline was over before it was judged".into()], ..Judged::default() }
        })
    }

    /// Asks a rung, with logprobs if a scorer wants them; the flag says whether they are to be taken out again.
    async fn ask(&self, tier: &Arc<Tier>) -> Result<(Arc<Draft>, Buffered, bool)> {
        let place = (Arc::clone(&tier.target.url), Arc::<str>::from(tier.model()));
        let mut strips = self.stage.ladder.uses(Scorer::Logprob)
            && !self.question.wants_logprobs
            && !self.stage.without_logprobs.knows(&place);
        let mut refused = false;
        loop {
            let request = if strips { with_logprobs(self.request) } else { self.request.clone() };
            let draft = Arc::new(Draft::new(self.cx.books.clone(), NAME));
            let purpose = Purpose::Draft(Arc::clone(&draft));
            let inner = Context { tier: Some(Arc::clone(tier)), purpose, ..self.cx.clone() };
            let call = async {
                let response = self.next.clone().run(&inner, request).await?;
                Buffered::read(&inner, response).await.map_err(BrokenOff::into_error)
            };
            let answer = self.deadline.hold(call).await.and_then(|answer| answer);
            let answer = answer.inspect_err(|_| self.discard(&draft))?;
            // What it refuses may be what we added.
            if strips && matches!(answer.status, 400 | 404 | 422) {
                (strips, refused) = (false, true);
                continue;
            }
            if refused && (200..300).contains(&answer.status) {
                self.lacks_logprobs(tier, "refuses logprobs");
            }
            return Ok((draft, answer, strips));
        }
    }

    /// Remembers a server without logprobs, and says so once.
    fn lacks_logprobs(&self, tier: &Tier, what: &str) {
        let place = (Arc::clone(&tier.target.url), Arc::<str>::from(tier.model()));
        if self.stage.without_logprobs.remember(place) {
            self.note(format!("{} {what}: it is judged without them", tier.name()));
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
        self.discard(&candidate.draft);
        self.rejected.push(candidate.judged);
    }

    fn discard(&self, draft: &Draft) {
        let cost = draft.settle(false);
        self.cx.receipt.update(|facts| facts.spend(cost));
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
            let answer =
                whole.and_then(|body| text(endpoint, body)).map(|text| (text, receipt.read(|facts| facts.cost)));
            for shadow in shadows {
                learning::keep_rejected(shadow, answer.clone());
            }
        })
    }

    /// Compares an accepted draft with the dearest model's answer, for a sample of them.
    fn compare(&self, candidate: &Candidate) {
        if is_drawn(self.stage.ladder.shadow) && self.question.answers <= 1 && !has_effects(self.request) {
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
        candidate.answer.into_response(self.cx, self.request.endpoint, candidate.strips.then_some(Added::Logprobs))
    }

    fn note(&self, note: String) {
        self.cx.receipt.update(|facts| facts.note(note));
    }
}
