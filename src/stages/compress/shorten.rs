//! One text, shortened by the methods of the policy, one after the other: what one leaves, the next one gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::NAME;
use super::account::Rest;
use super::recover::id;
use super::settings::{Method, Settings, Summarise};
use crate::compress::places::{Part, Place, Voice};
use crate::compress::worth::Summary;
use crate::compress::{extractive, structural, summary};
use crate::context::Context;
use crate::escalate::answer::Answer;
use crate::exchange::Endpoint;
use crate::ledger::PriceTable;
use crate::ledger::price::Rates;
use crate::pipeline::Next;
use crate::route::classify::thinks;
use crate::stages::counterfactual::now;
use crate::stages::heavy::heavy;
use crate::stages::resting::Resting;
use crate::stages::{aside, function};
use crate::tokens::Vocabulary;

/// Bytes of summaries that are kept.
const KEPT: u64 = 64 << 20;

/// How long a model or a function that failed several times in a row is not asked.
const REST: Duration = Duration::from_secs(60);
/// Texts that are asked about at a time.
const MOST_ASKED: u64 = 10_000;

/// One step from a text to a shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// By its place in the prompt.
    pub message: usize,
    pub part: Part,
    pub method: Method,
    /// Tokens.
    pub before: u64,
    pub after: u64,
}

/// A call and its surroundings.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub cx: &'a Context,
    pub next: &'a Next,
    /// The name that the call uses.
    pub model: &'a str,
    pub question: &'a str,
    pub vocabulary: Vocabulary,
    /// Prices of the model that reads the text.
    pub rates: Option<&'a Rates>,
    /// Nothing may be left out of tools' results: it could not be asked for, though it is to be.
    pub exact_results: bool,
    /// Until when functions and models may be asked.
    pub deadline: Instant,
    /// What does not pay, and is left alone for a while.
    pub rest: Option<Rest>,
    /// Tells apart what is remembered of conversations: whose they are, and with which model.
    pub scope: &'a [u8],
    /// Whose call it is: nobody gets what another's text was made into.
    pub tenant: &'a [u8],
}

impl Job<'_> {
    /// What is left of the time; None: nothing.
    fn left(&self) -> Option<Duration> {
        Some(self.deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    pub fn count(&self, text: &str) -> u64 {
        heavy(text.len(), || self.vocabulary.count(text).tokens)
    }
}

/// What became of a text.
pub struct Shortened {
    pub text: String,
    /// None of them: it is as it was.
    pub steps: Vec<Step>,
    /// Something was left out, and not just said shorter.
    pub is_lossy: bool,
    /// It points at what an earlier message says.
    pub refers: bool,
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
    /// Models and functions that failed.
    resting: Resting<(&'static str, Arc<str>)>,
}

impl Default for Shortener {
    fn default() -> Self {
        let weigh = |_: &[u8; 32], text: &Option<Arc<str>>| {
            u32::try_from(64 + text.as_ref().map_or(0, |text| text.len())).unwrap_or(u32::MAX)
        };
        Self {
            made: Cache::builder().max_capacity(KEPT).weigher(weigh).build(),
            asking: Cache::new(MOST_ASKED),
            resting: Resting::new(REST),
        }
    }
}

impl Shortener {
    pub async fn shorten(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        place: &Place,
        text: &str,
        seen: &structural::Seen,
    ) -> Shortened {
        let mut made =
            Shortened { text: text.to_owned(), steps: Vec::new(), is_lossy: false, refers: false, may_be_more: false };
        let is_result = place.voice == Voice::Tool;
        let whole = job.count(text);
        let mut tokens = whole;
        let mut take = |made: &mut Shortened, method: Method, shorter: String, is_lossy: bool| {
            let after = job.count(&shorter);
            if after < tokens {
                made.steps.push(Step { message: place.message, part: place.part, method, before: tokens, after });
                made.is_lossy |= is_lossy;
                (made.text, tokens) = (shorter, after);
            }
        };
        for method in &settings.methods {
            let shorter = match method {
                Method::Structural => {
                    let options = options(place.voice, is_result && job.exact_results, settings.tables);
                    heavy(made.text.len(), || structural::compress_with(&made.text, options)).ok_or(Not::Final)
                }
                _ if is_result && job.exact_results => Err(Not::Now),
                // What tells a model how to go about it is no passage among others.
                Method::Extractive if place.voice == Voice::System => Err(Not::Final),
                Method::Extractive => {
                    let budget = share(whole, settings.keep);
                    let count = |text: &str| job.count(text);
                    let extract =
                        heavy(made.text.len(), || extractive::extract(&made.text, job.question, budget, &count));
                    extract.map(|extract| extract.text).ok_or(Not::Final)
                }
                Method::Summarise => match &settings.summarise {
                    Some(how) => self.by_model(job, settings, prices, how, place, &made.text).await,
                    None => Err(Not::Final),
                },
                Method::Hook(number) => self.by_function(job, *number, place, &made.text).await,
            };
            match shorter {
                Ok(shorter) => {
                    let is_lossy = *method != Method::Structural || structural::shows_less(&made.text, &shorter);
                    take(&mut made, *method, shorter, is_lossy);
                }
                Err(why) => made.may_be_more |= matches!(why, Not::Now),
            }
        }
        // Last, or another method might keep the reference and leave out what it points to. Nobody points at what he has said
        // himself.
        if settings.methods.contains(&Method::Structural)
            && matches!(place.voice, Voice::User | Voice::Tool)
            && let Some(shorter) = heavy(made.text.len(), || seen.shorten(&made.text))
        {
            let steps = made.steps.len();
            take(&mut made, Method::Structural, shorter, false);
            made.refers = made.steps.len() > steps;
        }
        made
    }

    /// Whether somebody is not asked now. Where failures fail the call there is nobody to be spared: it may be mended.
    fn rests(&self, job: &Job<'_>, who: &(&'static str, Arc<str>)) -> bool {
        job.cx.fault.is_none() && self.resting.rests(who)
    }

    async fn by_model(
        &self,
        job: &Job<'_>,
        settings: &Settings,
        prices: &PriceTable,
        how: &Summarise,
        place: &Place,
        text: &str,
    ) -> Result<String, Not> {
        if matches!(job.rest, Some(Rest::Paid | Rest::New)) {
            return Err(Not::Now);
        }
        let before = job.count(text);
        let choices = job.cx.plan.as_ref().and_then(|plan| plan.choices.as_ref());
        let Some(helper) = choices.and_then(|choices| choices.helper(&how.model)) else {
            return not_now(job.cx, &format!("{} cannot be asked now", how.model));
        };
        let wished = Summary { before, after: share(before, how.keep), uses: how.uses };
        let writer = prices.rates(&helper.target.url, &[helper.model(), helper.name()], now());
        let key = key(job.tenant, &format!("{} {:?}", how.model, place.voice), text);
        // Who comes while somebody asks about the same text waits for that answer.
        let asking = self.asking.get_with(key, Arc::default);
        let Some(left) = job.left() else { return not_now(job.cx, &late(settings)) };
        job.cx.patience.pauses(left);
        let asking = tokio::time::timeout(left, asking.lock_owned()).await;
        job.cx.patience.touch();
        let Ok(_asking) = asking else { return not_now(job.cx, &late(settings)) };
        if let Some(known) = self.made.get(&key) {
            return known.map(|text| text.to_string()).ok_or(Not::Final);
        }
        if !wished.pays(job.rates, writer.as_ref()) {
            let (uses, least) = (how.uses, wished.break_even(job.rates, writer.as_ref()));
            let least = least.map_or_else(|| "never".to_owned(), |least| format!("from {least} calls on"));
            note(job.cx, &format!("a summary of {before} tokens would pay {least}, and {uses} are expected"));
            return Err(Not::Final);
        }
        let helping = (NAME, Arc::clone(helper.name()));
        if self.rests(job, &helping) {
            return not_now(job.cx, &format!("{} failed several times: it is not asked for a while", how.model));
        }
        let Some(left) = job.left() else { return not_now(job.cx, &late(settings)) };
        let mark = id(text);
        let fields = summary::fields(text, wished.after, &mark, thinks(helper.model()));
        let mut said = aside::ask_briefly(job.cx, job.next, helper, &fields, NAME, left).await;
        if let (Err(reason), Some(left)) = (&said, job.left())
            && aside::refuses(reason)
        {
            // Not every server takes a limit, or a temperature.
            let plain = json!({"messages": fields["messages"]});
            said = aside::ask(job.cx, job.next, helper, &plain, NAME, left).await;
        }
        self.resting.note(helping, said.is_ok());
        let body = match said {
            Ok(body) => body,
            Err(reason) => return not_now(job.cx, &reason),
        };
        let answer = Answer::read(Endpoint::Chat, &body);
        let read = match answer.as_ref().and_then(|answer| answer.choices.first()) {
            None => Err("the summary is no answer".to_owned()),
            Some(choice) if choice.refusal.is_some() => Err("the summary was refused".to_owned()),
            Some(choice) => {
                let all_negations = place.voice == Voice::System;
                let limits = summary::Limits { keep: how.keep, lost: how.max_lost, all_negations };
                summary::read(text, &choice.text, choice.finish.as_deref(), limits, &mark)
            }
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

    async fn by_function(&self, job: &Job<'_>, number: u64, place: &Place, text: &str) -> Result<String, Not> {
        let who = (NAME, number.to_string().into());
        if self.rests(job, &who) {
            return not_now(job.cx, "the function failed several times: it is not called for a while");
        }
        let Some(left) = job.left() else { return not_now(job.cx, "there was no time left for the function") };
        let argument = json!({
            "kind": "compress", "part": place.part.name(), "text": text, "question": job.question, "model": job.model,
        });
        let said = function::ask(job.cx, number, argument, left).await;
        self.resting.note(who, said.is_ok());
        match said {
            Err(why) => not_now(job.cx, &format!("the function failed: {why}")),
            Ok(Value::Null) => Err(Not::Final),
            Ok(Value::String(shorter)) if !shorter.trim().is_empty() => Ok(shorter),
            Ok(Value::String(_)) => not_now(job.cx, "the function returned no text"),
            Ok(_) => not_now(job.cx, "the function returned neither a text nor None"),
        }
    }
}

/// What may be done to a text: less where it tells a model what to do, or how to write.
fn options(voice: Voice, is_exact: bool, tables: bool) -> structural::Options {
    let all = structural::Options { tables, ..structural::Options::default() };
    match voice {
        Voice::System | Voice::Assistant => structural::Options::WORDS,
        Voice::Tool if !is_exact => all,
        Voice::User | Voice::Tool => structural::Options { pages: false, binary: false, ..all },
    }
}

fn late(settings: &Settings) -> String {
    format!("there was no time left of {} seconds", settings.timeout.as_secs_f64())
}

fn not_now<T>(cx: &Context, why: &str) -> Result<T, Not> {
    cx.fail(NAME, why);
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
