//! A draft's score: the weighted mean of what its scorers say. A scorer that fails makes it a poor draft; where the score is
//! calibrated, so does one that has nothing to go by.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::ladder::{Comparison, Ladder, Scorer, Weighted};
use crate::context::Context;
use crate::escalate::answer::Answer;
use crate::escalate::{extract, judge, logprob, similarity, structural};
use crate::exchange::{Endpoint, Request};
use crate::pipeline::Next;
use crate::question::Question;
use crate::stages::cache::rules::sets_limit;
use crate::stages::{aside, function};
use crate::upstream::plan::{Choices, Tier};

/// What is scored, and all that scorers may know.
pub struct Scoring<'a> {
    pub cx: &'a Context,
    pub next: &'a Next,
    pub choices: &'a Choices,
    pub ladder: &'a Ladder,
    /// As the caller wrote it.
    pub request: &'a Request,
    pub question: &'a Question,
    pub tier: &'a Arc<Tier>,
    pub answer: &'a Answer,
}

/// What came of it.
#[derive(Default)]
pub struct Judged {
    /// 0 to 1; None = a scorer failed, or a calibrated one had nothing to go by.
    pub score: Option<f64>,
    pub scores: Vec<(Arc<str>, f64)>,
    pub reasons: Vec<Cow<'static, str>>,
}

impl Scoring<'_> {
    pub async fn judge(&self) -> Judged {
        let mut judged = Judged::default();
        let (mut sum, mut weights) = (0.0, 0.0);
        let has_map = self.ladder.has_map(self.tier.name());
        for Weighted { name, weight, scorer } in &self.ladder.scorers {
            let score = match self.score(*scorer, &mut judged).await {
                Ok(Some(score)) => score.clamp(0.0, 1.0),
                // The mean of the others is another score than the one that the map was fitted to: the bound would not hold.
                Ok(None) if has_map => {
                    let why = format!("the calibration is of all scorers together, and {name} had nothing to go by");
                    judged.reasons.push(why.into());
                    return judged;
                }
                // It has nothing to go by, for this call.
                Ok(None) => continue,
                Err(reason) => {
                    let why = format!("{name} failed: {reason}");
                    self.cx.fail("escalate", &why);
                    judged.score = None;
                    judged.reasons.push(why.into());
                    return judged;
                }
            };
            judged.scores.push((Arc::clone(name), score));
            // What cannot be an answer need not be paid a judge for.
            if *scorer == Scorer::Structural && score <= 0.0 {
                judged.score = Some(0.0);
                return judged;
            }
            sum += weight * score;
            weights += weight;
        }
        if weights > 0.0 {
            judged.score = Some(sum / weights);
            return judged;
        }
        // Nobody had anything to go by: what can be seen for free counts.
        let score = self.structural(&mut judged);
        judged.scores.push(("structural".into(), score));
        judged.score = Some(score);
        judged
    }

    async fn score(&self, scorer: Scorer, judged: &mut Judged) -> Result<Option<f64>, String> {
        match scorer {
            Scorer::Structural => Ok(Some(self.structural(judged))),
            Scorer::Logprob => {
                let confidences = self.answer.choices.iter().filter_map(|choice| logprob::confidence(&choice.tokens));
                let least = confidences.min_by(|one, other| logprob::score(one).total_cmp(&logprob::score(other)));
                judged.reasons.push(match &least {
                    Some(least) => least.to_string().into(),
                    None => "no logprobs came".into(),
                });
                Ok(least.map(|least| logprob::score(&least)))
            }
            Scorer::Reference => {
                let reference = self.cx.wishes.as_ref().and_then(|wishes| wishes.reference.as_deref());
                let scores =
                    |reference| self.answer.each().map(move |one| similarity::similarity(&one.said(), reference));
                Ok(reference.and_then(|reference| scores(reference).min_by(f64::total_cmp)))
            }
            Scorer::Hook(number) => self.hook(number, judged).await,
            Scorer::Agreement => self.agreement(judged).await,
            Scorer::Judge => self.ask_judge().await.map(Some),
        }
    }

    fn structural(&self, judged: &mut Judged) -> f64 {
        let findings = structural::findings(self.question, self.answer, sets_limit(self.request));
        judged.reasons.extend(findings.iter().map(|finding| Cow::Borrowed(finding.what)));
        structural::score(&findings)
    }

    async fn hook(&self, number: u64, judged: &Judged) -> Result<Option<f64>, String> {
        let choice = self.answer.choices.first();
        let calls = choice.map(|choice| choice.tool_calls.as_slice()).unwrap_or_default();
        let argument = json!({
            "kind": "score",
            "model": self.tier.model(),
            "rung": &**self.tier.name(),
            "ladder": self.ladder.rungs.iter().map(|rung| &*rung.name).collect::<Vec<_>>(),
            "prompt": self.question.prompt,
            "messages": self.question.messages,
            "answer": self.answer.text(),
            "tool_calls": calls.iter().map(|call| json!({"name": call.name, "arguments": call.arguments})).collect::<Vec<_>>(),
            "response": self.answer.body,
            "request": serde_json::from_slice::<Value>(self.request.body()).unwrap_or_default(),
            "reference": self.cx.wishes.as_ref().and_then(|wishes| wishes.reference.as_deref()),
            "scores": judged.scores.iter().map(|(name, score)| (name.to_string(), json!(score))).collect::<serde_json::Map<_, _>>(),
        });
        let said = function::ask(self.cx, number, argument, self.ladder.timeout).await?;
        match said {
            Value::Null => Ok(None),
            Value::Bool(good) => Ok(Some(f64::from(u8::from(good)))),
            Value::Number(number) => match number.as_f64() {
                Some(score) if (0.0..=1.0).contains(&score) => Ok(Some(score)),
                _ => Err(format!("it returned {number}, which is not from 0 to 1")),
            },
            _ => Err("it returned neither a number, True, False nor None".to_owned()),
        }
    }

    /// The share of the other answers that agree with this one.
    async fn agreement(&self, judged: &mut Judged) -> Result<Option<f64>, String> {
        let others = self.ladder.others.iter().filter(|name| ***name != **self.tier.name());
        let tiers: Vec<&Arc<Tier>> = others.filter_map(|name| self.choices.tier(name)).collect();
        // One answer of each is enough, however many were asked for.
        let request = aside::unstreamed(self.request);
        let request = if self.question.answers > 1 { request.with_field("n", "1") } else { request };
        let again = std::iter::repeat_n(self.tier, self.ladder.samples);
        let asked = tiers
            .into_iter()
            .chain(again)
            .map(|tier| aside::answered(self.cx, self.next, tier, request.clone(), "escalate", self.ladder.timeout));
        let bodies = join_all(asked).await;
        let texts: Vec<Result<String, String>> = bodies
            .into_iter()
            .map(|body| body.and_then(|body| text(self.request.endpoint, &body).ok_or_else(|| "no answer".to_owned())))
            .collect();
        let count = texts.len();
        let mut heard = Vec::new();
        for other in texts {
            match other {
                Ok(other) => heard.push(other),
                Err(reason) => judged.reasons.push(reason.into()),
            }
        }
        match (count, heard.len()) {
            // Without a second opinion there is none to agree with, and form alone is not what was asked for.
            (0, _) => return Err("nobody else was asked".to_owned()),
            (_, 0) => return Err("no other answer came".to_owned()),
            _ => {}
        }
        let mut least = 1.0_f64;
        for one in self.answer.each() {
            let mut agreeing = 0.0;
            for other in &heard {
                agreeing += f64::from(u8::from(self.agrees(&one.said(), other).await?));
            }
            least = least.min(agreeing / heard.len() as f64);
        }
        Ok(Some(least))
    }

    async fn agrees(&self, one: &str, other: &str) -> Result<bool, String> {
        match &self.ladder.compare {
            Comparison::Texts(how) => Ok(extract::agree(one, other, *how)),
            Comparison::Hook(number) => {
                let argument = json!({"kind": "compare", "one": one, "other": other});
                Ok(function::ask(self.cx, *number, argument, self.ladder.timeout).await? == Value::Bool(true))
            }
        }
    }

    async fn ask_judge(&self) -> Result<f64, String> {
        let settings = self.ladder.judge.as_ref().ok_or("there is no judge")?;
        let helper = self.choices.helper(&settings.model).ok_or("the judge cannot be asked now")?;
        let mut least = 1.0_f64;
        for one in self.answer.each() {
            let messages = judge::messages(self.question, &one, settings.rubric.as_deref(), &nonce());
            let body = aside::ask_judge(self.cx, self.next, helper, &messages, "escalate", self.ladder.timeout).await?;
            let answer = Answer::read(Endpoint::Chat, &body).ok_or("the judge gave no answer")?;
            let score = judge::score(&answer).ok_or("the judge gave no score")?;
            least = least.min(score);
        }
        Ok(least)
    }
}

/// What an answer comes to.
pub fn text(endpoint: Endpoint, body: &Bytes) -> Option<String> {
    Answer::read(endpoint, body).map(|answer| answer.said())
}

/// What nobody who wrote a prompt can know.
pub fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(0_u8))
}
