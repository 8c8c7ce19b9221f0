//! The same in fewer tokens, for the model that will read them.
//!
//! Which texts of a request may be shortened is found in `crate::compress`, how one is shortened is in
//! `compress/shorten.rs`. What was sent of a conversation before keeps its form (`compress/sent.rs`), since a provider
//! charges less for what it knows. What was left out can be asked for (`compress/recover.rs`). Where all this costs more
//! than it saves, it rests (`compress/account.rs`). Whatever fails here leaves the text as it is.

mod account;
mod prompt;
mod recover;
mod sent;
mod settings;
mod shorten;
mod tab;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use moka::sync::Cache;

use self::account::{Account, Rest};
use self::prompt::{Prompt, Tools};
use self::sent::Sent;
use self::settings::Settings;
use self::shorten::{Job, Shortener};
use self::tab::Tab;
use super::at_end::at_end;
use super::counterfactual::now;
use super::escalate::buffered::Buffered;
use crate::compress::order;
use crate::compress::places::Messages;
use crate::config::CompressConfig;
use crate::context::Context;
use crate::error::Result;
use crate::escalate::answer::Answer;
use crate::escalate::strip::Added;
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::ledger::price::Rates;
use crate::ledger::{Count, Draft, Money, PriceTable, Purpose, Saving};
use crate::pipeline::{Next, Stage};
use crate::receipt::{Compressed, Ending, Shortening};
use crate::route::affinity::scope;
use crate::tokens::Vocabulary;

const NAME: &str = "compress";
/// Paragraphs that are remembered, to tell what comes again.
const PARAGRAPHS: u64 = 200_000;
/// How long a server that refused the tool is not offered it.
const REFUSED: Duration = Duration::from_secs(3600);
/// Servers that are remembered for that, by model and key.
const MOST_REFUSED: u64 = 1000;

/// See the module.
pub struct CompressStage {
    settings: Settings,
    prices: Arc<PriceTable>,
    shortener: Shortener,
    sent: Sent,
    account: Arc<Account>,
    paragraphs: Cache<order::Hash, ()>,
    /// Who takes no tools.
    refused: Cache<[u8; 32], ()>,
}

/// The model that reads the prompt.
struct Reader {
    /// As the call names it, as the policy does, as its server does.
    asked: Arc<str>,
    name: Arc<str>,
    model: String,
    url: Arc<str>,
    rates: Option<Rates>,
}

impl Reader {
    fn of(cx: &Context, request: &Request, asked: Arc<str>, prices: &PriceTable) -> Self {
        let tier = cx.tier.as_ref();
        let model = tier.map_or_else(|| request.model().unwrap_or_default(), |tier| tier.model().to_owned());
        let url = Arc::clone(tier.map_or(&request.url, |tier| &tier.target.url));
        let name = Arc::clone(tier.map_or(&asked, |tier| tier.name()));
        let rates = prices.rates(&url, &[&model, &name], now());
        Self { asked, name, model, url, rates }
    }

    /// Prices of the model that answered in the end; None: unknown.
    fn answered(&self, cx: &Context, prices: &PriceTable) -> Option<Rates> {
        let is_answer = |ending| matches!(ending, Ending::Answered | Ending::Open);
        let model = cx.receipt.read(|facts| {
            let mut own = facts.attempts.iter().rev().filter(|attempt| attempt.stage.is_none());
            own.find(|attempt| is_answer(attempt.ending)).map(|attempt| Arc::clone(&attempt.model))
        });
        let Some(model) = model.filter(|model| **model != *self.model && **model != *self.name) else {
            return self.rates;
        };
        let plan = cx.tier.as_ref().map(|tier| &tier.plan).or(cx.plan.as_ref())?;
        let others = plan.fallbacks.iter().chain(&plan.substitutes);
        let is_it = |name: &str| *name == *model;
        let target = others
            .into_iter()
            .find(|target| is_it(&target.name) || target.adaptation.model.as_deref().is_some_and(is_it))?;
        prices.rates(&target.url, &[&model, &target.name], now())
    }
}

impl CompressStage {
    /// # Errors
    /// [`crate::error::Error::Config`]
    pub fn new(config: &CompressConfig, prices: Arc<PriceTable>) -> Result<Self> {
        Ok(Self {
            settings: Settings::new(config)?,
            prices,
            shortener: Shortener::default(),
            sent: Sent::default(),
            account: Arc::default(),
            paragraphs: Cache::new(PARAGRAPHS),
            refused: Cache::builder().max_capacity(MOST_REFUSED).time_to_live(REFUSED).build(),
        })
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

    /// Asks with the tool that brings back what was left out, until the model does not call it any more. None: it is to be
    /// asked without.
    async fn recoverably(
        &self,
        cx: &Context,
        messages: &Messages,
        request: &Request,
        prompt: &mut Prompt,
        tab: &mut Tab,
        next: &Next,
    ) -> Result<Option<Response>> {
        while prompt.offers_tool() {
            let Some(offered) = recover::offered(&prompt.request) else { return Ok(None) };
            let draft = Arc::new(Draft::new(cx.books.clone(), NAME));
            let inner = Context { purpose: Purpose::Draft(Arc::clone(&draft)), ..cx.clone() };
            let response = next.clone().run(&inner, offered).await?;
            if !response.is_success() {
                draft.settle(true);
                if !refuses_tools(&response) {
                    return Ok(Some(response));
                }
                // What was left out cannot be asked for, so it is not left out.
                prompt.forgo_tool(request, messages);
                let status = response.status;
                cx.receipt.update(|facts| {
                    facts.note(format!("compress: status {status} with the tool that restores: asked without"));
                });
                return Ok(None);
            }
            prompt.knows_tool = true;
            let buffered = match Buffered::read(&inner, response).await {
                Ok(buffered) => buffered,
                // What came of it is the caller's, as without the tool.
                Err(broken) => {
                    draft.settle(true);
                    return Ok(Some(broken.into_response()));
                }
            };
            let answer = Answer::read(request.endpoint, &buffered.body);
            let Some(ids) = answer.and_then(|answer| recover::asked(&answer)) else {
                draft.settle(true);
                return Ok(Some(buffered.into_response(cx, request.endpoint, Some(Added::Tool(recover::TOOL)))));
            };
            let cost = draft.settle(false);
            tab.restored(cost);
            let count = prompt.restore(Some(&ids), request, messages);
            if count == 0 {
                // It has all of it, and would ask for ever.
                cx.receipt.update(|facts| facts.spend(cost));
                return Ok(None);
            }
            cx.receipt.update(|facts| {
                facts.spend(cost);
                facts.note(format!("compress: the model asked for {count} whole results"));
            });
        }
        Ok(None)
    }

    /// Writes down what became of the call.
    fn settle(
        &self,
        cx: &Context,
        reader: Reader,
        prompt: &Prompt,
        reordered: u64,
        tab: Tab,
        response: Response,
    ) -> Response {
        if !response.is_success() {
            return response;
        }
        prompt.remember(&self.sent);
        let steps = prompt.steps.iter().map(|step| Shortening {
            part: step.part.name(),
            method: step.method.name(),
            before: step.before,
            after: step.after,
        });
        let compressed = Compressed { steps: steps.collect(), tokens: 0, saved: Some(Money::ZERO), reordered };
        let is_news = cx.receipt.read(|facts| {
            facts.decisions.as_ref().and_then(|all| all.compress.as_ref()).is_none_or(|known| known.reordered == 0)
        });
        cx.receipt.update(|facts| facts.decisions().compress = Some(compressed));
        if reordered > 0 && is_news {
            cx.books.count_many(Count::Reordered, reordered);
        }
        let sent = prompt.saved();
        let (cx, prices) = (cx.clone(), Arc::clone(&self.prices));
        at_end(response, move |whole| {
            if whole.is_none() {
                return;
            }
            let rates = reader.answered(&cx, &prices);
            // A part of a pack says nothing of where in the prompt the provider's cache ended.
            let usage = cx.receipt.read(|facts| {
                let is_part = facts.decisions.as_ref().is_some_and(|all| all.pack.is_some());
                facts.usage.clone().filter(|_| !is_part)
            });
            let less = sent.billed(usage.as_ref());
            let writes = usage.is_some_and(|usage| usage.cache_write > 0);
            let saved = less.worth(writes, rates.as_ref());
            if less.tokens() > 0 || less.added > 0 {
                cx.receipt.update(|facts| {
                    if let Some(compressed) = &mut facts.decisions().compress {
                        compressed.tokens = less.tokens();
                        compressed.saved = saved;
                    }
                });
                let (tag, answered) = cx.receipt.read(|facts| (facts.tag.clone(), facts.model_answered.clone()));
                let model = Arc::clone(&reader.asked);
                let saving = Saving { stage: NAME, model, answered, tag, amount: saved, tokens: less.tokens() };
                match &cx.purpose {
                    Purpose::Draft(draft) => draft.hold(saving),
                    _ => cx.books.record_saving(&saving),
                }
            }
            tab.close(saved);
        })
    }
}

/// Whether an error may be about the tool that was added, and not about the request.
fn refuses_tools(response: &Response) -> bool {
    let says_so = |body: &[u8]| {
        let text = String::from_utf8_lossy(body).to_lowercase();
        text.contains("tool") || text.contains("function")
    };
    matches!(response.status, 400 | 404 | 422) && matches!(&response.body, Body::Full(body) if says_so(body))
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
        let rest = self.account.rests(&asked);
        if let Some((rest, lost)) = rest {
            let what = match rest {
                Rest::Paid => "nobody is asked for summaries",
                Rest::LeftOut => "nothing is left out of new tool results",
                Rest::New => "nothing new is shortened",
            };
            let why = format!("over its last calls to {asked} it cost {lost} USD more than it saved");
            cx.receipt.update(|facts| facts.note(format!("compress: {what} for an hour: {why}")));
        }
        let reader = Reader::of(cx, &request, asked, &self.prices);
        let key = request.headers.get(AUTHORIZATION).or_else(|| request.headers.get("api-key"));
        let key = key.map(|key| key.as_bytes()).unwrap_or_default();
        let question = messages.question();
        let read = cx.patience.limits().and_then(|limits| limits.read);
        // A draft of the ladder may be rejected, and cannot be asked twice.
        // What a server keeps, the next call may continue without a word of it.
        let is_kept = request.endpoint == Endpoint::Responses && request.raw("store") != Some(b"false");
        let scope_of_server = scope(&format!("{} {}", reader.url, reader.model), key);
        let is_offered = matches!(cx.purpose, Purpose::Answer)
            && !is_kept
            && !self.refused.contains_key(&scope_of_server)
            && recover::offered(&request).is_some();
        let exact_results = self.settings.recoverable && !is_offered;
        let job = Job {
            cx,
            next: &next,
            model: &reader.asked,
            question: &question,
            vocabulary: Vocabulary::of_model(&reader.model).unwrap_or(Vocabulary::O200k),
            rates: reader.rates.as_ref(),
            scope: &scope_of_server,
            tenant: &scope("", key),
            deadline: Instant::now() + read.map_or(self.settings.timeout, |read| read.min(self.settings.timeout)),
            rest: rest.map(|(rest, _)| rest),
            exact_results,
        };
        let mut tab = Tab::open(&self.account, cx, &reader.asked);
        let reordered = self.reordered(&job, &messages);
        let tools =
            Tools { settings: &self.settings, prices: &self.prices, shortener: &self.shortener, sent: &self.sent };
        let Some(mut prompt) = Prompt::make(&tools, &job, &request, &messages).await else {
            return next.run(cx, request).await;
        };
        let recovered = match self.settings.recoverable && !exact_results && prompt.offers_tool() {
            true => self.recoverably(cx, &messages, &request, &mut prompt, &mut tab, &next).await?,
            false => None,
        };
        let response = match recovered {
            Some(response) => response,
            None => next.run(cx, prompt.request.clone()).await?,
        };
        if prompt.is_refused && response.is_success() {
            self.refused.insert(scope_of_server, ());
        }
        Ok(self.settle(cx, reader, &prompt, reordered, tab, response))
    }
}
