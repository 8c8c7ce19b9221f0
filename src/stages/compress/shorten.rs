//! One text, shortened by the methods of the policy, one after the other: what one leaves, the next one gets.

use std::sync::Arc;

use moka::sync::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::settings::{Method, Settings, Summarise};
use crate::compress::places::Part;
use crate::compress::worth::Summary;
use crate::compress::{extractive, structural, summary};
use crate::context::Context;
use crate::escalate::answer::Answer;
use crate::exchange::Endpoint;
use crate::ledger::PriceTable;
use crate::ledger::price::Rates;
use crate::pipeline::Next;
use crate::stages::aside;
use crate::stages::counterfactual::now;
use crate::tokens::Vocabulary;

/// Bytes of summaries, and of what functions returned, that are kept.
const KEPT: u64 = 64 << 20;

/// One step from a text to a shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub part: Part,
    pub method: Method,
    /// Tokens.
    pub before: u64,
    pub after: u64,
}

/// A call and its surroundings.
pub struct Job<'a> {
    pub cx: &'a Context,
    pub next: &'a Next,
    /// The name that the call uses.
    pub model: &'a str,
    pub question: &'a str,
    pub vocabulary: Vocabulary,
    /// Prices of the model that reads the text.
    pub rates: Option<&'a Rates>,
    /// What is left out of a tool's result cannot be asked for, though it should be.
    pub keeps_results: bool,
    /// Whose call it is: nobody gets what another's text was made into.
    pub scope: &'a [u8],
}

impl Job<'_> {
    pub fn count(&self, text: &str) -> u64 {
        self.vocabulary.count(text).tokens
    }
}

/// A shortened text.
pub struct Shortened {
    pub text: String,
    pub steps: Vec<Step>,
    /// Something was left out, and not just said shorter.
    pub is_lossy: bool,
}

/// Shortens texts; keeps what others made of them.
pub struct Shortener {
    /// None = not to be shortened: why, is only said the first time.
    made: Cache<[u8; 32], Option<Arc<str>>>,
}

impl Default for Shortener {
    fn default() -> Self {
        let weigh = |_: &[u8; 32], text: &Option<Arc<str>>| {
            u32::try_from(64 + text.as_ref().map_or(0, |text| text.len())).unwrap_or(u32::MAX)
        };
        Self { made: Cache::builder().max_capacity(KEPT).weigher(weigh).build() }
    }
}

impl Shortener {
    /// None: it is not made shorter.
    pub async fn shorten(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        part: Part,
        text: &str,
        seen: &structural::Seen,
    ) -> Option<Shortened> {
        let mut made = Shortened { text: text.to_owned(), steps: Vec::new(), is_lossy: false };
        let whole = job.count(text);
        let mut tokens = whole;
        for method in &settings.methods {
            let shorter = match method {
                Method::Structural => structural::compress(&made.text)
                    .map(|text| seen.shorten(&text).unwrap_or(text))
                    .or_else(|| seen.shorten(&made.text)),
                _ if part == Part::Tools && job.keeps_results => None,
                // What tells a model how to go about it is no passage among others.
                Method::Extractive if part == Part::System => None,
                Method::Extractive => {
                    let count = |text: &str| job.count(text);
                    let budget = share(whole, settings.keep);
                    extractive::extract(&made.text, job.question, budget, &count).map(|extract| extract.text)
                }
                Method::Summarise => match &settings.summarise {
                    Some(how) => self.by_model(job, settings, prices, how, &made.text, tokens).await,
                    None => None,
                },
                Method::Hook(number) => self.by_function(job, settings, *number, part, &made.text).await,
            };
            let Some(shorter) = shorter else { continue };
            let after = job.count(&shorter);
            if after >= tokens {
                continue;
            }
            made.steps.push(Step { part, method: *method, before: tokens, after });
            made.is_lossy |= *method != Method::Structural;
            (made.text, tokens) = (shorter, after);
        }
        (!made.steps.is_empty()).then_some(made)
    }

    async fn by_model(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        how: &Summarise,
        text: &str,
        before: u64,
    ) -> Option<String> {
        let key = key(job.scope, &["summarise", &how.model], text);
        if let Some(known) = self.made.get(&key) {
            return known.map(|text| text.to_string());
        }
        let choices = job.cx.plan.as_ref().and_then(|plan| plan.choices.as_ref());
        let Some(helper) = choices.and_then(|choices| choices.helper(&how.model)) else {
            note(job.cx, format!("{} cannot be asked now", how.model));
            return None;
        };
        let wished = Summary { before, after: share(before, how.keep), uses: how.uses };
        let writer = prices.rates(&helper.target.url, &[helper.model(), helper.name()], now());
        if !wished.pays(job.rates, writer.as_ref()) {
            note(job.cx, format!("a summary of {before} tokens would cost more than {} calls save by it", how.uses));
            return None;
        }
        let mark: String = crate::stages::compress::recover::id(text);
        let fields = summary::fields(text, wished.after, &mark);
        let said = aside::ask_briefly(job.cx, job.next, helper, &fields, super::NAME, settings.timeout).await;
        let body = match said {
            Ok(body) => body,
            // Another time it may answer.
            Err(reason) => {
                note(job.cx, reason);
                return None;
            }
        };
        let answer = Answer::read(Endpoint::Chat, &body);
        let choice = answer.as_ref().and_then(|answer| answer.choices.first());
        let read = match choice {
            None => Err("the summary is no answer".to_owned()),
            Some(choice) if choice.refusal.is_some() => Err("the summary was refused".to_owned()),
            Some(choice) => summary::read(text, &choice.text, choice.finish.as_deref(), how.max_lost, &mark),
        };
        match read {
            Ok(shorter) => {
                self.made.insert(key, Some(shorter.as_str().into()));
                Some(shorter)
            }
            Err(why) => {
                note(job.cx, format!("the original was used: {why}"));
                self.made.insert(key, None);
                None
            }
        }
    }

    async fn by_function(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        number: u64,
        part: Part,
        text: &str,
    ) -> Option<String> {
        let Some(hooks) = &job.cx.hooks else {
            note(job.cx, "the function cannot be called from here".to_owned());
            return None;
        };
        let argument = json!({
            "kind": "compress", "part": part.name(), "text": text, "question": job.question, "model": job.model,
        });
        job.cx.patience.pauses(settings.timeout);
        let said = tokio::time::timeout(settings.timeout, hooks.call(number, argument)).await;
        job.cx.patience.touch();
        let why = match said {
            Err(_) => format!("the function gave no answer within {} seconds", settings.timeout.as_secs_f64()),
            Ok(Err(error)) => format!("the function failed: {error}"),
            Ok(Ok(Value::Null)) => return None,
            Ok(Ok(Value::String(shorter))) if shorter.trim().is_empty() => "the function returned no text".to_owned(),
            Ok(Ok(Value::String(shorter))) => return Some(shorter),
            Ok(Ok(_)) => "the function returned neither a text nor None".to_owned(),
        };
        note(job.cx, why);
        None
    }
}

fn note(cx: &Context, why: String) {
    cx.receipt.update(|facts| facts.note(format!("compress: {why}")));
}

/// Tokens that are a share of others.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn share(tokens: u64, share: f64) -> u64 {
    (tokens as f64 * share) as u64
}

fn key(scope: &[u8], names: &[&str], text: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in [scope].into_iter().chain(names.iter().map(|name| name.as_bytes())).chain([text.as_bytes()]) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
