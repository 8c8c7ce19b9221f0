//! What is kept of drafts, so that `farthing calibrate` can learn from own traffic: labels of rejected drafts, and shadows
//! of accepted ones.
//!
//! A shadow asks the dearest model too, after the caller has been answered, and then which of the two answers is better.
//! It is paid for (its own line of the bill), and the caller never waits for it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::ladder::Ladder;
use super::scoring::{nonce, text};
use crate::context::Context;
use crate::escalate::answer::{Answer, CALLS};
use crate::escalate::{extract, judge};
use crate::exchange::{Endpoint, Request};
use crate::labels::{Kind, Label, Labels};
use crate::ledger::{Count, Money};
use crate::pipeline::Next;
use crate::question::Question;
use crate::route::look::look;
use crate::stages::aside;
use crate::stages::sample::is_drawn;
use crate::upstream::plan::{Choices, Tier};

/// The line of the bill for what shadows cost.
pub const SHADOW: &str = "shadow";
/// Characters that an answer comes to, if it can be compared word for word: longer ones are never quite the same.
const COMPARABLE: usize = 80;
/// What the dearest model may take for a shadow, which nobody waits for.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is kept of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    Features,
    /// The prompt's text too.
    Text,
}

impl Keep {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Nothing),
            "features" => Some(Self::Features),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A draft that was judged.
#[derive(Clone)]
pub struct Judged {
    pub model: Arc<str>,
    pub rung: Arc<str>,
    pub text: Arc<str>,
    /// As the scorers gave it, before any calibration.
    pub score: Option<f64>,
    pub scores: Vec<(Arc<str>, f64)>,
    pub cost: Option<Money>,
    pub overhead: Option<Money>,
}

impl Judged {
    fn label(&self, question: &Question, keep: Keep, kind: Kind) -> Label {
        let scores: BTreeMap<String, f64> =
            self.scores.iter().map(|(name, score)| (name.to_string(), *score)).collect();
        Label {
            at: milliseconds(),
            model: self.model.to_string(),
            rung: self.rung.to_string(),
            kind,
            prompt: hash(question),
            features: look(question).to_json(),
            text: (keep == Keep::Text).then(|| question.prompt.clone()),
            score: self.score,
            scores,
            good: None,
            cost: self.cost,
            dear_cost: None,
            overhead: self.overhead,
        }
    }
}

/// Keeps the label of a rejected draft. `answer`: what was answered in its place, whole; None = nobody knows. What is too
/// long to be compared word for word is judged for as large a sample as accepted drafts are.
pub fn keep_rejected(shadow: Shadow, answer: Option<(String, Option<Money>)>) {
    let good = answer.as_ref().and_then(|(text, _)| same(&shadow.draft.text, text));
    if good.is_none() && answer.is_some() && shadow.ladder.judge.is_some() && is_drawn(shadow.ladder.shadow) {
        Shadow { dear: answer, ..shadow }.start();
        return;
    }
    let mut label = shadow.draft.label(&shadow.question, shadow.keep, Kind::Escalation);
    label.good = good;
    label.dear_cost = answer.and_then(|(_, cost)| cost);
    shadow.labels.keep(label);
}

/// 1: the draft says what the answer says; 0: another thing; None: they are too long to be compared, even if they agree:
/// long answers that are known when they are good alone would teach that all are.
fn same(draft: &str, answer: &str) -> Option<f64> {
    let comes_to_little = |text: &str| extract::answer_of(text).chars().count() <= COMPARABLE;
    let is_comparable = |text: &str| text.starts_with(&format!("{{\"{CALLS}\"")) || comes_to_little(text);
    (is_comparable(draft) && is_comparable(answer)).then(|| f64::from(u8::from(extract::agree(draft, answer, None))))
}

/// A draft that is compared with a dearer model's answer. Cheap to clone but for what was asked.
#[derive(Clone)]
pub struct Shadow {
    pub cx: Context,
    pub next: Next,
    pub choices: Arc<Choices>,
    pub ladder: Arc<Ladder>,
    pub request: Request,
    pub question: Question,
    pub draft: Judged,
    pub labels: Arc<Labels>,
    pub keep: Keep,
    /// The dearer answer and what it cost, where the draft was rejected; None = it was accepted, and nobody was asked.
    pub dear: Option<(String, Option<Money>)>,
}

impl Shadow {
    /// Asks in the background; outside of a runtime there is none.
    pub fn start(self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // The caller's receipt, and what his call may cost, are his call's; each request is as patient as its model.
        let patience = Arc::clone(&self.cx.patience);
        let cx = aside::beside(&self.cx, self.cx.purpose.clone(), self.cx.limits, patience);
        let outer = self.cx.clone();
        outer.spawn(async move { Self { cx, ..self }.compare().await });
    }

    /// What the dearest model says, and what that cost.
    async fn ask_dearest(&self) -> Option<(String, Option<Money>)> {
        let dearest = self.choices.tier(&self.ladder.rungs.last()?.name)?;
        let request = aside::unstreamed(&self.request);
        let said = aside::answered(&self.cx, &self.next, dearest, request, SHADOW, PATIENCE).await;
        let text = text(self.request.endpoint, &said.ok()?)?;
        let costs: Option<Vec<Money>> =
            self.cx.receipt.read(|facts| facts.attempts.iter().map(|attempt| attempt.cost).collect());
        Some((text, costs.map(|costs| costs.into_iter().sum())))
    }

    async fn compare(self) {
        let is_rejected = self.dear.is_some();
        let dear = match self.dear.clone() {
            Some(dear) => Some(dear),
            None => self.ask_dearest().await,
        };
        let Some((dear, dear_cost)) = dear else { return };
        let helper = self.ladder.judge.as_ref().and_then(|settings| self.choices.helper(&settings.model));
        let good = match helper {
            None => same(&self.draft.text, &dear),
            // What is the same word for word needs no judge.
            Some(_) if extract::agree(&self.draft.text, &dear, None) => Some(1.0),
            Some(helper) => self.ask_judge(helper, &dear).await,
        };
        let Some(good) = good else { return };
        if !is_rejected {
            self.cx.books.count(Count::Shadow);
            if good >= 0.5 {
                self.cx.books.count(Count::ShadowGood);
            }
        }
        if self.keep != Keep::Nothing {
            let mut label = self.draft.label(&self.question, self.keep, Kind::Shadow);
            label.good = Some(good);
            label.dear_cost = dear_cost;
            self.labels.keep(label);
        }
    }

    /// 1: the draft is as good as the dear answer, or better.
    async fn ask_judge(&self, helper: &Arc<Tier>, dear: &str) -> Option<f64> {
        let draft = &*self.draft.text;
        let draft_first = is_drawn(0.5);
        let (one, other) = if draft_first { (draft, dear) } else { (dear, draft) };
        let messages = judge::preference_messages(&self.question, one, other, &nonce());
        let body = aside::ask_judge(&self.cx, &self.next, helper, &messages, SHADOW, self.ladder.timeout).await.ok()?;
        let preference = judge::preference(&Answer::read(Endpoint::Chat, &body)?)?;
        let of_draft = if draft_first { preference } else { preference.reverse() };
        Some(if of_draft == Ordering::Less { 0.0 } else { 1.0 })
    }
}

/// Of what was asked, so that a label can be told from another one without the text.
fn hash(question: &Question) -> [u8; 32] {
    let all = json!([question.system, question.messages]);
    Sha256::digest(all.to_string().as_bytes()).into()
}

fn milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    i64::try_from(since).unwrap_or(i64::MAX)
}
