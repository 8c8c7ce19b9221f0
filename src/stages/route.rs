//! Which model a call goes to, before anything is asked.
//!
//! First the models that cannot serve the request are ruled out (`route/gates.rs`), then a conversation keeps its model
//! (`route/affinity.rs`), then the routers of the policy are asked in their order (`route/routers.rs`). Whatever fails here
//! leaves the call to the default tier.

mod routers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use serde_json::Value;

use self::routers::{Asked, Routers, Verdict};
use super::at_end::at_end;
use super::counterfactual::{Counterfactual, now};
use crate::config::RouteConfig;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exchange::{Endpoint, Request, Response};
use crate::ledger::{PriceTable, Purpose};
use crate::pipeline::{Next, Stage};
use crate::question::Question;
use crate::receipt::Routed;
use crate::route::affinity::{Affinity, Mode, Prices, scope, settle, stay_is_cheaper};
use crate::route::gates::{Capabilities, Needs, rules_out};
use crate::route::look::{Look, look};
use crate::tokens::prompt::chat_tokens;
use crate::upstream::plan::{Choices, Tier};

const NAME: &str = "route";
/// Calls that are remembered for their conversations.
const CONVERSATIONS: u64 = 100_000;
/// Tokens of an answer of which nobody says how long it may be, when two models are compared for a conversation.
const TYPICAL_OUTPUT: u64 = 300;

/// A model of the policy's list.
pub struct Known {
    pub name: Arc<str>,
    /// Model or alias.
    pub model: String,
    pub capabilities: Capabilities,
}

/// See the module.
pub struct RouteStage {
    /// From cheap to dear.
    tiers: Vec<Known>,
    default: usize,
    routers: Routers,
    mode: Mode,
    affinity: Arc<Affinity>,
    prices: Arc<PriceTable>,
}

/// What was decided for one call.
struct Decided {
    tier: usize,
    by: &'static str,
    confidence: Option<f64>,
    reasons: Vec<String>,
}

impl Decided {
    fn by(by: &'static str, tier: usize, reason: &str) -> Self {
        Self { tier, by, confidence: None, reasons: vec![reason.to_owned()] }
    }
}

impl From<Verdict> for Decided {
    fn from(verdict: Verdict) -> Self {
        let Verdict { tier, by, confidence, reasons } = verdict;
        Self { tier, by, confidence: Some(confidence), reasons }
    }
}

/// Where a conversation is remembered.
struct Thread {
    scope: [u8; 32],
    previous: Option<String>,
}

impl RouteStage {
    /// # Errors
    /// [`Error::Config`]: what `Policy.to_core()` does not write, or rules that do not fit the tiers.
    pub fn new(
        config: &RouteConfig,
        capabilities: impl Fn(&str) -> Capabilities,
        prices: Arc<PriceTable>,
    ) -> Result<Self> {
        let known = |(name, model): &(String, String)| Known {
            name: name.as_str().into(),
            model: model.clone(),
            capabilities: capabilities(model),
        };
        let tiers: Vec<Known> = config.tiers.iter().map(known).collect();
        let default = tiers.iter().position(|tier| *tier.name == *config.default);
        let default = default.ok_or_else(|| Error::Config(format!("route.default is no tier: {}", config.default)))?;
        for tier in &tiers {
            tier.capabilities.check().map_err(|error| Error::Config(format!("models.{}: {error}", tier.model)))?;
        }
        let ttl = Duration::try_from_secs_f64(config.affinity_ttl).unwrap_or(Duration::MAX);
        Ok(Self {
            routers: Routers::new(config)?,
            tiers,
            default,
            mode: config.affinity,
            // Longer than this, the cache below does not take.
            affinity: Arc::new(Affinity::new(CONVERSATIONS, ttl.min(Duration::from_secs(86_400 * 365)))),
            prices,
        })
    }

    /// Why each tier cannot serve; None = it can.
    fn ruled_out(&self, choices: &Choices, needs: &Needs) -> Vec<Option<String>> {
        let check = |(at, known): (usize, &Known)| match choices.tier(&known.model) {
            None => Some("cannot be asked now".to_owned()),
            Some(_) => rules_out(needs, &known.capabilities, at == self.default),
        };
        self.tiers.iter().enumerate().map(check).collect()
    }

    /// The names of the tiers that can serve.
    fn free(&self, out: &[Option<String>]) -> Vec<String> {
        let free = self.tiers.iter().zip(out).filter(|(_, why)| why.is_none());
        free.map(|(tier, _)| tier.name.to_string()).collect()
    }

    /// The tier to take in the place of one that cannot serve: the next dearer one, else the next cheaper one.
    fn next_to(&self, chosen: usize, out: &[Option<String>]) -> Option<usize> {
        let free = |at: &usize| out.get(*at).is_some_and(Option::is_none);
        (chosen..self.tiers.len()).find(free).or_else(|| (0..chosen).rev().find(free))
    }

    async fn decide(&self, asked: &Asked<'_>, thread: &Thread, out: &[Option<String>]) -> Decided {
        let free = out.iter().filter(|why| why.is_none()).count();
        if free == 0 {
            return Decided::by("default", self.default, "no tier is said to serve this");
        }
        let (earlier, messages) = self.earlier(asked.question, thread);
        let earlier = earlier.filter(|tier| out.get(*tier).is_some_and(Option::is_none));
        if let (Mode::Stay, Some(earlier)) = (self.mode, earlier) {
            return Decided::by("affinity", earlier, "the conversation stays on its tier");
        }
        let mut decided = match self.next_to(0, out).filter(|_| free == 1) {
            Some(only) => Decided::by("gate", only, "the only tier that can serve this"),
            None => match self.routers.choose(asked).await {
                Some(verdict) => verdict.into(),
                None => Decided::by("default", self.default, "no router had a say"),
            },
        };
        if let Some(Some(why)) = out.get(decided.tier)
            && let Some(instead) = self.next_to(decided.tier, out)
        {
            let name = &self.tiers[decided.tier].name;
            decided.reasons.push(format!("{name} {why}"));
            decided = Decided { tier: instead, by: "gate", ..decided };
        }
        let stays = |earlier, chosen| self.stay_is_cheaper(asked, messages, earlier, chosen);
        let (tier, why) = settle(self.mode, earlier, decided.tier, stays);
        if tier != decided.tier {
            decided = Decided { tier, by: "affinity", confidence: None, ..decided };
        }
        decided.reasons.extend(why.map(str::to_owned));
        decided
    }

    /// The tier of the conversation so far, and how many of its messages are known there.
    fn earlier(&self, question: &Question, thread: &Thread) -> (Option<usize>, usize) {
        match &thread.previous {
            Some(id) => (self.affinity.find_response(id, &thread.scope), 0),
            None => match self.affinity.find(question, &thread.scope) {
                Some(found) => (Some(found.tier), found.messages),
                None => (None, 0),
            },
        }
    }

    fn stay_is_cheaper(&self, asked: &Asked<'_>, messages: usize, earlier: usize, chosen: usize) -> bool {
        let tier = |at: usize| self.tiers.get(at).and_then(|known| asked.choices.tier(&known.model));
        let (Some(earlier), Some(chosen)) = (tier(earlier), tier(chosen)) else { return false };
        let (Some(there), Some(here)) = (self.rates(earlier), self.rates(chosen)) else { return false };
        let all = &asked.question.messages;
        let (known, new) = all.split_at(messages.min(all.len()));
        let tokens = |part: &[Value]| chat_tokens(earlier.model(), &Value::from(part.to_vec()), None).tokens;
        let output = asked.question.max_output.unwrap_or(TYPICAL_OUTPUT);
        stay_is_cheaper(tokens(known), tokens(new), output, there, here)
    }

    fn rates(&self, tier: &Tier) -> Option<Prices> {
        Prices::of(&self.prices.rates(&tier.target.url, &[tier.model(), tier.name()], now())?)
    }

    fn note(&self, cx: &Context, decided: &Decided, look: &Look) {
        let known = &self.tiers[decided.tier];
        let routed = Routed {
            tier: Arc::clone(&known.name),
            model: known.model.as_str().into(),
            by: decided.by,
            confidence: decided.confidence,
            reasons: decided.reasons.iter().map(|reason| reason.clone().into()).collect(),
            features: Some(look.to_json().to_string().into()),
        };
        cx.receipt.update(|facts| facts.decisions().route = Some(routed));
    }

    /// Asks the chosen tier; where its server does not know the model, the default one.
    async fn ask(
        &self,
        cx: &Context,
        request: &Request,
        next: &Next,
        choices: &Choices,
        chosen: usize,
    ) -> Result<(usize, Response)> {
        let run = |at: usize| {
            let tier = self.tiers.get(at).and_then(|known| choices.tier(&known.model)).map(Arc::clone);
            let inner = Context { tier, ..cx.clone() };
            let (next, request) = (next.clone(), request.clone());
            async move { next.run(&inner, request).await }
        };
        let response = run(chosen).await?;
        if response.status != 404 || chosen == self.default {
            return Ok((chosen, response));
        }
        let (missing, default) = (&self.tiers[chosen], &self.tiers[self.default]);
        cx.receipt.update(|facts| {
            facts.note(format!("{} answered with status 404: {} was asked instead", missing.model, default.model));
            if let Some(route) = &mut facts.decisions().route {
                route.tier = Arc::clone(&default.name);
                route.model = default.model.as_str().into();
                route.by = "default";
                route.reasons.push(format!("{} is not known where it was asked", missing.model).into());
            }
        });
        Ok((self.default, run(self.default).await?))
    }

    /// The tier of the rung that answered, where a ladder was climbed.
    fn answered(&self, cx: &Context) -> Option<usize> {
        cx.receipt.read(|facts| {
            let rungs = &facts.decisions.as_ref()?.rungs;
            let rung = rungs.iter().rev().find(|rung| rung.accepted)?;
            self.tiers.iter().position(|tier| *tier.model == *rung.model)
        })
    }

    /// Remembers where a conversation went. The id of an answer that streams is known at its end.
    fn remember(
        &self,
        request: &Request,
        question: &Question,
        thread: &Thread,
        tier: usize,
        response: Response,
    ) -> Response {
        if !response.is_success() {
            return response;
        }
        if thread.previous.is_none() {
            self.affinity.remember(question, &thread.scope, tier);
        }
        if request.endpoint != Endpoint::Responses {
            return response;
        }
        let (affinity, scope) = (Arc::clone(&self.affinity), thread.scope);
        at_end(response, move |whole| {
            if let Some(body) = whole {
                remember_id(&affinity, body, &scope, tier);
            }
        })
    }
}

fn remember_id(affinity: &Affinity, body: &[u8], scope: &[u8], tier: usize) {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    if let Ok(Named { id }) = serde_json::from_slice(body) {
        affinity.remember_response(&id, scope, tier);
    }
}

/// Whose conversations these are: nobody learns from another's which model a prefix went to.
fn thread(cx: &Context, request: &Request) -> Thread {
    let key = request.headers.get(AUTHORIZATION).or_else(|| request.headers.get("api-key"));
    let model = cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
    Thread {
        scope: scope(&model, key.map(|key| key.as_bytes()).unwrap_or_default()),
        previous: request.get("previous_response_id"),
    }
}

#[async_trait]
impl Stage for RouteStage {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response> {
        let choices = cx.plan.as_ref().and_then(|plan| plan.choices.as_ref()).filter(|choices| choices.routes);
        let Some(choices) = choices.filter(|_| matches!(cx.purpose, Purpose::Answer)) else {
            return next.run(cx, request).await;
        };
        if !matches!(request.endpoint, Endpoint::Chat | Endpoint::Responses) {
            return Ok(self.ask(cx, &request, &next, choices, self.default).await?.1);
        }
        let question = Question::read(&request);
        let look = look(&question);
        let counts = self.tiers.iter().any(|tier| tier.capabilities.context.is_some());
        let out = self.ruled_out(choices, &Needs::of(&request, &question, counts));
        let thread = thread(cx, &request);
        let free = self.free(&out);
        let scope = thread.scope;
        let asked =
            Asked { cx, request: &request, next: &next, choices, question: &question, look: &look, scope, free };
        let decided = self.decide(&asked, &thread, &out).await;
        self.note(cx, &decided, &look);
        let (tier, response) = self.ask(cx, &request, &next, choices, decided.tier).await?;
        let response = self.remember(&request, &question, &thread, self.answered(cx).unwrap_or(tier), response);
        let dearest = self.tiers.last().map(|tier| tier.model.as_str()).unwrap_or_default();
        Ok(Counterfactual::new(NAME, cx, &self.prices, choices, dearest).watch(response))
    }
}
