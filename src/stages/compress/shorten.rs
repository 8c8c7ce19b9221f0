//! One text, shortened by the methods of the policy, one after the other: what one leaves, the next one gets.

use std::sync::Arc;

use moka::sync::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::NAME;
use super::recover::id;
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

/// Texts that are asked about at a time.
const MOST_ASKED: u64 = 10_000;

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

/// What became of a text.
pub struct Shortened {
    pub text: String,
    /// None of them: it is as it was.
    pub steps: Vec<Step>,
    /// Something was left out, and not just said shorter.
    pub is_lossy: bool,
    /// Somebody had no answer who may have one another time.
    pub may_be_more: bool,
}

/// Why a text is not made shorter.
enum Not {
    /// So it is.
    Final,
    /// Another time it may be.
    Now,
}

/// Shortens texts; keeps what others made of them.
pub struct Shortener {
    /// None = not to be shortened: why, is only said the first time.
    made: Cache<[u8; 32], Option<Arc<str>>>,
    asking: Cache<[u8; 32], Arc<Mutex<()>>>,
}

impl Default for Shortener {
    fn default() -> Self {
        let weigh = |_: &[u8; 32], text: &Option<Arc<str>>| {
            u32::try_from(64 + text.as_ref().map_or(0, |text| text.len())).unwrap_or(u32::MAX)
        };
        Self { made: Cache::builder().max_capacity(KEPT).weigher(weigh).build(), asking: Cache::new(MOST_ASKED) }
    }
}

impl Shortener {
    pub async fn shorten(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        part: Part,
        text: &str,
        seen: &structural::Seen,
    ) -> Shortened {
        let mut made = Shortened { text: text.to_owned(), steps: Vec::new(), is_lossy: false, may_be_more: false };
        let whole = job.count(text);
        let mut tokens = whole;
        for method in &settings.methods {
            let shorter = match method {
                Method::Structural => {
                    let shorter = structural::compress(&made.text);
                    let said = shorter.as_deref().unwrap_or(&made.text);
                    seen.shorten(said).or(shorter).ok_or(Not::Final)
                }
                _ if part == Part::Tools && job.keeps_results => Err(Not::Now),
                // What tells a model how to go about it is no passage among others.
                Method::Extractive if part == Part::System => Err(Not::Final),
                Method::Extractive => {
                    let budget = share(whole, settings.keep);
                    let extract = extractive::extract(&made.text, job.question, budget, &|text| job.count(text));
                    extract.map(|extract| extract.text).ok_or(Not::Final)
                }
                Method::Summarise => match &settings.summarise {
                    Some(how) => self.by_model(job, settings, prices, how, &made.text, tokens).await,
                    None => Err(Not::Final),
                },
                Method::Hook(number) => by_function(job, settings, *number, part, &made.text).await,
            };
            let shorter = match shorter {
                Ok(shorter) => shorter,
                Err(why) => {
                    made.may_be_more |= matches!(why, Not::Now);
                    continue;
                }
            };
            let after = job.count(&shorter);
            if after >= tokens {
                continue;
            }
            made.steps.push(Step { part, method: *method, before: tokens, after });
            made.is_lossy |= *method != Method::Structural;
            (made.text, tokens) = (shorter, after);
        }
        made
    }

    async fn by_model(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        how: &Summarise,
        text: &str,
        before: u64,
    ) -> Result<String, Not> {
        let choices = job.cx.plan.as_ref().and_then(|plan| plan.choices.as_ref());
        let Some(helper) = choices.and_then(|choices| choices.helper(&how.model)) else {
            return not_now(job.cx, &format!("{} cannot be asked now", how.model));
        };
        let wished = Summary { before, after: share(before, how.keep), uses: how.uses };
        let writer = prices.rates(&helper.target.url, &[helper.model(), helper.name()], now());
        let key = key(job.scope, &how.model, text);
        // Who comes while somebody asks about the same text waits for that answer.
        let asking = self.asking.get_with(key, Arc::default);
        job.cx.patience.pauses(settings.timeout);
        let _asking = asking.lock().await;
        job.cx.patience.touch();
        if let Some(known) = self.made.get(&key) {
            return known.map(|text| text.to_string()).ok_or(Not::Final);
        }
        if !wished.pays(job.rates, writer.as_ref()) {
            let uses = how.uses;
            note(job.cx, &format!("a summary of {before} tokens would cost more than {uses} calls save by it"));
            return Err(Not::Final);
        }
        let mark = id(text);
        let fields = summary::fields(text, wished.after, &mark);
        let said = aside::ask_briefly(job.cx, job.next, helper, &fields, NAME, settings.timeout).await;
        let body = match said {
            Ok(body) => body,
            Err(reason) => return not_now(job.cx, &reason),
        };
        let answer = Answer::read(Endpoint::Chat, &body);
        let read = match answer.as_ref().and_then(|answer| answer.choices.first()) {
            None => Err("the summary is no answer".to_owned()),
            Some(choice) if choice.refusal.is_some() => Err("the summary was refused".to_owned()),
            Some(choice) => summary::read(text, &choice.text, choice.finish.as_deref(), how.max_lost, &mark),
        };
        match read {
            Ok(shorter) => {
                self.made.insert(key, Some(shorter.as_str().into()));
                Ok(shorter)
            }
            Err(why) => {
                note(job.cx, &format!("the original was used: {why}"));
                self.made.insert(key, None);
                Err(Not::Final)
            }
        }
    }
}

async fn by_function(job: &Job<'_>, settings: &Settings, number: u64, part: Part, text: &str) -> Result<String, Not> {
    let Some(hooks) = &job.cx.hooks else {
        return not_now(job.cx, "the function cannot be called from here");
    };
    let argument = json!({
        "kind": "compress", "part": part.name(), "text": text, "question": job.question, "model": job.model,
    });
    job.cx.patience.pauses(settings.timeout);
    let said = tokio::time::timeout(settings.timeout, hooks.call(number, argument)).await;
    job.cx.patience.touch();
    match said {
        Err(_) => {
            let seconds = settings.timeout.as_secs_f64();
            not_now(job.cx, &format!("the function gave no answer within {seconds} seconds"))
        }
        Ok(Err(error)) => not_now(job.cx, &format!("the function failed: {error}")),
        Ok(Ok(Value::Null)) => Err(Not::Final),
        Ok(Ok(Value::String(shorter))) if !shorter.trim().is_empty() => Ok(shorter),
        Ok(Ok(Value::String(_))) => not_now(job.cx, "the function returned no text"),
        Ok(Ok(_)) => not_now(job.cx, "the function returned neither a text nor None"),
    }
}

fn not_now<T>(cx: &Context, why: &str) -> Result<T, Not> {
    note(cx, why);
    Err(Not::Now)
}

fn note(cx: &Context, why: &str) {
    cx.receipt.update(|facts| facts.note(format!("compress: {why}")));
}

/// Tokens that are a share of others.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn share(tokens: u64, share: f64) -> u64 {
    (tokens as f64 * share) as u64
}

fn key(scope: &[u8], model: &str, text: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in [scope, model.as_bytes(), text.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
