//! The same in fewer tokens, for the model that will read them.
//!
//! Which texts of a request may be shortened is found in `crate::compress`, how one is shortened is in
//! `compress/shorten.rs`. What was sent of a conversation before keeps its form (`compress/sent.rs`), since a provider
//! charges less for what it knows. What was left out can be asked for (`compress/recover.rs`). Where all this costs more
//! than it saves, it rests (`compress/account.rs`). Whatever fails here leaves the text as it is.

mod account;
mod recover;
mod sent;
mod settings;
mod shorten;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use serde_json::Value;
use serde_json::value::RawValue;

use self::account::Account;
use self::sent::{Form, Hash, Sent, chain};
use self::settings::Settings;
use self::shorten::{Job, Shortener, Step};
use super::at_end::at_end;
use super::counterfactual::now;
use super::escalate::buffered::Buffered;
use crate::compress::places::{Messages, Part, Place};
use crate::compress::{order, structural, worth};
use crate::config::CompressConfig;
use crate::context::Context;
use crate::error::Result;
use crate::escalate::answer::Answer;
use crate::exchange::{Request, Response};
use crate::ledger::price::Rates;
use crate::ledger::{Count, Draft, Money, PriceTable, Purpose, Saving};
use crate::pipeline::{Next, Stage};
use crate::receipt::{Compressed, Shortening};
use crate::route::affinity::scope;
use crate::tokens::{Vocabulary, chat_tokens};

const NAME: &str = "compress";
/// Paragraphs that are remembered, to tell what comes again.
const PARAGRAPHS: u64 = 200_000;
/// Tokens that the tool takes which brings back what was left out.
const TOOL_TOKENS: u64 = 90;

/// See the module.
pub struct CompressStage {
    settings: Settings,
    prices: Arc<PriceTable>,
    shortener: Shortener,
    sent: Arc<Sent>,
    account: Arc<Account>,
    paragraphs: Cache<order::Hash, ()>,
}

/// A request on its way to being shorter.
struct Shorter {
    request: Request,
    /// How each message was sent.
    forms: Vec<(Hash, Form)>,
    steps: Vec<Step>,
    /// Tokens less: of what is sent for the first time, and of what the provider knows.
    new: u64,
    known: u64,
    /// The whole messages that something was left out of, by the ids of their marks.
    whole: HashMap<String, usize>,
}

impl CompressStage {
    /// # Errors
    /// [`crate::error::Error::Config`]
    pub fn new(config: &CompressConfig, prices: Arc<PriceTable>) -> Result<Self> {
        Ok(Self {
            settings: Settings::new(config)?,
            prices,
            shortener: Shortener::default(),
            sent: Arc::default(),
            account: Arc::default(),
            paragraphs: Cache::new(PARAGRAPHS),
        })
    }

    async fn shorter(&self, job: &Job<'_>, request: &Request, messages: &Messages) -> Option<Shorter> {
        let places = messages.places(&self.settings.parts, self.settings.turns);
        let tools = request.raw("tools").unwrap_or_default();
        let hashes = chain(&[job.scope, tools].concat(), messages.raw());
        let earlier: Vec<Option<Form>> = hashes.iter().map(|hash| self.sent.find(hash)).collect();
        let known = earlier.iter().take_while(|form| form.as_ref().is_some_and(Form::is_fresh)).count();
        let count = |(form, message): (&Option<Form>, &Value)| {
            form.as_ref().map_or_else(|| chat_tokens(job.model, message, None).tokens, |form| form.tokens)
        };
        let before: Vec<u64> = earlier.iter().zip(messages.values()).map(count).collect();
        let prefix = before.iter().take(known).sum::<u64>() + job.count(&String::from_utf8_lossy(tools));
        let is_discounted = worth::discounted(job.rates).is_some() && prefix >= worth::LEAST_CACHED;
        let mut seen = Seen::default();
        let mut forms: Vec<(Hash, Form)> = Vec::with_capacity(hashes.len());
        let (mut steps, mut new, mut cached, mut whole) = (Vec::new(), 0, 0, HashMap::new());
        for (at, (hash, earlier)) in hashes.into_iter().zip(earlier).enumerate() {
            let own: Vec<&Place> = places.iter().filter(|place| place.message == at).collect();
            let is_known = at < known && is_discounted;
            let form = match earlier {
                Some(form) if is_known || form.is_settled(!own.is_empty()) => form.again(),
                _ => {
                    if !own.is_empty() {
                        seen.up_to(at, messages, &forms);
                    }
                    let (form, made) = self.message(job, messages, at, &own, &seen.paragraphs, before[at]).await;
                    steps.extend(made);
                    form
                }
            };
            *(if is_known { &mut cached } else { &mut new }) += form.saved;
            for place in own.iter().filter(|_| form.recoverable) {
                whole.insert(recover::id(messages.part(place).unwrap_or_default()), at);
            }
            forms.push((hash, form));
        }
        self.keep_prefix(job, messages, &before, &mut forms, &mut steps, &mut new);
        let is_offered = forms.iter().take(known).any(|(_, form)| form.recoverable);
        let prefix = if is_discounted { prefix } else { 0 };
        if !whole.is_empty() && !is_offered && !worth::tool_pays(new, prefix, TOOL_TOKENS, job.rates) {
            for (_, form) in forms.iter_mut().filter(|(_, form)| form.recoverable) {
                new = new.saturating_sub(form.saved);
                *form = Form { tried: true, ..Form::whole(form.tokens) };
            }
            steps.retain(|step| step.part != Part::Tools);
            whole.clear();
        }
        let changed: Vec<Option<Arc<RawValue>>> = forms.iter().map(|(_, form)| form.message.clone()).collect();
        let request = messages.put(request, &changed)?;
        Some(Shorter { request, forms, steps, new, known: cached, whole })
    }

    /// A beginning that is too short for the provider's cache once it is shortened stays as it is, if that is cheaper.
    fn keep_prefix(
        &self,
        job: &Job<'_>,
        messages: &Messages,
        before: &[u64],
        forms: &mut [(Hash, Form)],
        steps: &mut Vec<Step>,
        new: &mut u64,
    ) {
        let is_system =
            |message: &Value| matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer"));
        let count = messages.values().iter().take_while(|message| is_system(message)).count();
        let whole: u64 = before.iter().take(count).sum();
        let saved: u64 = forms.iter().take(count).map(|(_, form)| form.saved).sum();
        // What follows makes it long enough again.
        let rest: u64 = before.iter().sum::<u64>() - whole;
        if saved == 0
            || rest + whole - saved >= worth::LEAST_CACHED
            || worth::prefix_pays(whole, whole - saved, job.rates)
        {
            return;
        }
        for (_, form) in forms.iter_mut().take(count) {
            *new = new.saturating_sub(form.saved);
            *form = Form { tried: true, ..Form::whole(form.tokens) };
        }
        steps.retain(|step| step.part != Part::System);
        job.cx.receipt.update(|facts| {
            facts.note(
                "compress: the system prompt was left as it is: shorter, the provider would not cache it".to_owned(),
            );
        });
    }

    /// One message that was not sent before. `tokens`: of all of it.
    async fn message(
        &self,
        job: &Job<'_>,
        messages: &Messages,
        at: usize,
        places: &[&Place],
        seen: &structural::Seen,
        tokens: u64,
    ) -> (Form, Vec<Step>) {
        let mut form = Form { tried: !places.is_empty(), ..Form::whole(tokens) };
        let (mut texts, mut steps) = (Vec::new(), Vec::new());
        for place in places {
            let Some(text) = messages.part(place) else { continue };
            if text.chars().take(self.settings.min_chars).count() < self.settings.min_chars {
                continue;
            }
            let made = self.shortener.shorten(job, &self.settings, &self.prices, place.part, text, seen).await;
            form.tried &= !made.may_be_more;
            if made.steps.is_empty() {
                continue;
            }
            let mut shorter = made.text;
            if made.is_lossy && place.part == Part::Tools && self.settings.recoverable {
                shorter.push_str(&recover::mark(&recover::id(text)));
                form.recoverable = true;
            }
            form.saved += job.count(text).saturating_sub(job.count(&shorter));
            steps.extend(made.steps);
            texts.push((*place, shorter));
        }
        let borrowed: Vec<(&Place, &str)> = texts.iter().map(|(place, text)| (*place, text.as_str())).collect();
        let raw = if borrowed.is_empty() { None } else { messages.rewritten(at, &borrowed) };
        match raw {
            Some(raw) => (Form { message: Some(raw.into()), ..form }, steps),
            None => (Form { tried: form.tried, ..Form::whole(tokens) }, Vec::new()),
        }
    }

    /// What another order of the prompt would gain.
    fn reordered(&self, job: &Job<'_>, messages: &Messages) -> u64 {
        let blocks = order::blocks(messages.values(), job.scope);
        let gain = order::gain(&blocks, |hash| self.paragraphs.contains_key(hash), |text| job.count(text));
        for block in blocks {
            self.paragraphs.insert(block.own, ());
            self.paragraphs.insert(block.chain, ());
        }
        gain
    }

    /// Asks with the tool that brings back what was left out, until the model does not call it any more.
    async fn recoverably(
        &self,
        cx: &Context,
        messages: &Messages,
        original: &Request,
        shorter: &mut Shorter,
        next: &Next,
    ) -> Result<Option<Response>> {
        let limit = shorter.whole.len();
        for _ in 0..=limit {
            if shorter.whole.is_empty() {
                return Ok(None);
            }
            let Some(offered) = recover::offered(&shorter.request) else { return Ok(None) };
            let draft = Arc::new(Draft::new(cx.books.clone(), NAME));
            let inner = Context { purpose: Purpose::Draft(Arc::clone(&draft)), ..cx.clone() };
            let response = next.clone().run(&inner, offered).await?;
            if matches!(response.status, 400 | 404 | 422) {
                // Not every server has tools. What was left out cannot be asked for, so it is not left out.
                draft.settle(false);
                cx.receipt.update(|facts| {
                    facts.note(format!(
                        "compress: status {} with the tool that restores: asked without",
                        response.status
                    ));
                });
                let all: Vec<usize> = shorter.whole.drain().map(|(_, at)| at).collect();
                restore(messages, original, shorter, &all);
                return Ok(None);
            }
            let endpoint = original.endpoint;
            let buffered = Buffered::read(&inner, response).await?;
            let wanted = Answer::read(endpoint, &buffered.body).and_then(|answer| recover::asked(&answer));
            let Some(ids) = wanted else {
                draft.settle(true);
                return Ok(Some(buffered.into_response(cx, endpoint, false)));
            };
            let cost = draft.settle(false);
            let known: Vec<String> = ids.into_iter().filter(|id| shorter.whole.contains_key(id)).collect();
            let all = known.is_empty();
            let wanted: Vec<usize> =
                shorter.whole.extract_if(|id, _| all || known.contains(id)).map(|(_, at)| at).collect();
            cx.receipt.update(|facts| {
                facts.spend(cost);
                facts.note(format!("compress: the model asked for {} whole results", wanted.len()));
            });
            restore(messages, original, shorter, &wanted);
        }
        Ok(None)
    }

    fn settle(
        &self,
        cx: &Context,
        rates: Option<&Rates>,
        shorter: Shorter,
        reordered: u64,
        before: Money,
        response: Response,
    ) -> Response {
        let (sent, account) = (Arc::clone(&self.sent), Arc::clone(&self.account));
        let cx = cx.clone();
        let saved = worth::saved(shorter.new, shorter.known, rates);
        let model = cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
        let Shorter { forms, steps, new, known, .. } = shorter;
        let shortenings = steps.iter().map(|step| Shortening {
            part: step.part.name(),
            method: step.method.name(),
            before: step.before,
            after: step.after,
        });
        if !response.is_success() {
            return response;
        }
        if reordered > 0 {
            cx.books.count_many(Count::Reordered, reordered);
        }
        let compressed = Compressed { steps: shortenings.collect(), tokens: new + known, saved, reordered };
        cx.receipt.update(|facts| facts.decisions().compress = Some(compressed));
        at_end(response, move |whole| {
            if whole.is_none() {
                return;
            }
            for (hash, form) in forms {
                sent.remember(hash, form);
            }
            let overhead = overhead(&cx) - before;
            if new + known > 0 {
                let tag = cx.receipt.read(|facts| facts.tag.clone());
                let saving = Saving { stage: NAME, model: Arc::clone(&model), tag, amount: saved, tokens: new + known };
                match &cx.purpose {
                    Purpose::Draft(draft) => draft.hold(saving),
                    _ => cx.books.record_saving(&saving),
                }
            }
            if new + known == 0 && overhead == Money::ZERO {
                return;
            }
            if let Some(saved) = saved
                && account.note(&model, saved - overhead)
            {
                cx.books.client().record_fault("compress does not pay");
            }
        })
    }
}

/// Puts messages back as the caller sent them.
fn restore(messages: &Messages, original: &Request, shorter: &mut Shorter, wanted: &[usize]) {
    for at in wanted {
        if let Some((_, form)) = shorter.forms.get_mut(*at) {
            shorter.new = shorter.new.saturating_sub(form.saved);
            *form = Form { restored: true, ..Form::whole(form.tokens) };
        }
    }
    let changed: Vec<Option<Arc<RawValue>>> = shorter.forms.iter().map(|(_, form)| form.message.clone()).collect();
    if let Some(request) = messages.put(original, &changed) {
        shorter.request = request;
    }
}

/// What the messages say that a text may point to, as they were sent.
#[derive(Default)]
struct Seen {
    paragraphs: structural::Seen,
    /// Messages that are in it.
    count: usize,
}

impl Seen {
    fn up_to(&mut self, end: usize, messages: &Messages, forms: &[(Hash, Form)]) {
        for (at, (_, form)) in forms.iter().enumerate().take(end).skip(self.count) {
            let sent: Option<Value> = form.message.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok());
            let Some(message) = sent.as_ref().or_else(|| messages.values().get(at)) else { continue };
            for text in order::texts(message) {
                self.paragraphs.learn(text);
            }
        }
        self.count = end;
    }
}

/// What farthing has spent on the call so far.
fn overhead(cx: &Context) -> Money {
    cx.receipt.read(|facts| facts.decisions.as_ref().map(|all| all.overhead).unwrap_or_default())
}

#[async_trait]
impl Stage for CompressStage {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response> {
        let asked = cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
        if !self.settings.has(&asked) || matches!(cx.purpose, Purpose::Own(_)) {
            return next.run(cx, request).await;
        }
        let Some(messages) = Messages::read(&request).filter(|messages| !messages.is_empty()) else {
            return next.run(cx, request).await;
        };
        if let Some(lost) = self.account.rests(&asked) {
            cx.receipt.update(|facts| {
                facts.note(format!(
                    "compress: off for an hour: over its last calls to {asked} it cost {lost} USD more than it saved"
                ));
            });
            return next.run(cx, request).await;
        }
        let model =
            cx.tier.as_ref().map_or_else(|| request.model().unwrap_or_default(), |tier| tier.model().to_owned());
        let url = cx.tier.as_ref().map_or(&request.url, |tier| &tier.target.url);
        let name = cx.tier.as_ref().map_or(&asked, |tier| tier.name());
        let rates = self.prices.rates(url, &[&model, name], now());
        let key = request.headers.get(AUTHORIZATION).or_else(|| request.headers.get("api-key"));
        let scope = scope(&format!("{url} {model}"), key.map(|key| key.as_bytes()).unwrap_or_default());
        let question = messages.question();
        let before = overhead(cx);
        let job = Job {
            cx,
            next: &next,
            model: &asked,
            question: &question,
            vocabulary: Vocabulary::of_model(&model).unwrap_or(Vocabulary::O200k),
            rates: rates.as_ref(),
            keeps_results: self.settings.recoverable
                && !(matches!(cx.purpose, Purpose::Answer) && recover::offered(&request).is_some()),
            scope: &scope,
        };
        let reordered = self.reordered(&job, &messages);
        let Some(mut shorter) = self.shorter(&job, &request, &messages).await else {
            return next.run(cx, request).await;
        };
        let recovered = match job.keeps_results || shorter.whole.is_empty() {
            true => None,
            false => self.recoverably(cx, &messages, &request, &mut shorter, &next).await?,
        };
        let response = match recovered {
            Some(response) => response,
            None => next.run(cx, shorter.request.clone()).await?,
        };
        Ok(self.settle(cx, rates.as_ref(), shorter, reordered, before, response))
    }
}
