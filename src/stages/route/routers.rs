//! Who is asked which tier a request belongs to: rules, learned weights, a cheap model, functions of the user's.
//!
//! One after the other, until one is sure enough; if none is, the surest of them has it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use serde_json::{Value, json};

use crate::config::RouteConfig;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::escalate::answer::Answer;
use crate::exchange::{Endpoint, Request};
use crate::pipeline::Next;
use crate::question::Question;
use crate::route::classify::{Classifier, Format};
use crate::route::learned::Weights;
use crate::route::look::Look;
use crate::route::rules::Rules;
use crate::stages::escalate::ladder::hook;
use crate::stages::escalate::scoring::nonce;
use crate::stages::{aside, function};
use crate::tokens::vocabulary::Vocabulary;
use crate::upstream::plan::Choices;

/// Verdicts of the asked model that are kept: one for each prompt.
const VERDICTS: u64 = 100_000;

enum Router {
    Rules(Box<Rules>),
    Learned(Box<Weights>),
    Llm,
    Hook(u64),
}

/// See the module.
pub struct Routers {
    names: Vec<String>,
    routers: Vec<Router>,
    /// 0 to 1.
    confidence: f64,
    classifier: Option<Classifier>,
    /// By whose conversations these are, and what was shown.
    verdicts: Cache<([u8; 32], [u8; 32]), (usize, f64)>,
    timeout: Duration,
    /// The classifier's server has refused the short form, and taken the plain one.
    wants_plain: AtomicBool,
}

/// The request that is asked about.
pub struct Asked<'a> {
    pub cx: &'a Context,
    pub request: &'a Request,
    pub next: &'a Next,
    pub choices: &'a Choices,
    pub question: &'a Question,
    pub look: &'a Look,
    /// Of the tenant and the asked model: nobody learns from another's verdicts what was asked.
    pub scope: [u8; 32],
    /// The tiers that can serve, from cheap to dear.
    pub free: Vec<String>,
}

/// Where the request belongs.
pub struct Verdict {
    pub tier: usize,
    pub by: &'static str,
    /// 0 to 1.
    pub confidence: f64,
    pub reasons: Vec<String>,
}

impl Routers {
    /// # Errors
    /// [`Error::Config`]
    pub fn new(config: &RouteConfig) -> Result<Self> {
        let names: Vec<String> = config.tiers.iter().map(|(name, _)| name.clone()).collect();
        if let Some(classifier) = &config.llm {
            classifier.check(&names).map_err(|error| Error::Config(format!("route.{error}")))?;
        }
        let router = |name: &String| match name.as_str() {
            "rules" => {
                let rules =
                    Rules::new(&config.rules, &names).map_err(|error| Error::Config(format!("route.rules.{error}")))?;
                Ok(Router::Rules(Box::new(rules)))
            }
            "learned" => Ok(Router::Learned(Box::new(weights(config)?))),
            "llm" => Ok(Router::Llm),
            other => Ok(Router::Hook(hook(other)?)),
        };
        Ok(Self {
            routers: config.by.iter().map(router).collect::<Result<_>>()?,
            confidence: config.confidence,
            classifier: config.llm.clone(),
            verdicts: Cache::new(VERDICTS),
            timeout: Duration::try_from_secs_f64(config.timeout).unwrap_or(Duration::MAX),
            wants_plain: AtomicBool::new(false),
            names,
        })
    }

    /// None: nobody had a say.
    pub async fn choose(&self, asked: &Asked<'_>) -> Option<Verdict> {
        let mut surest: Option<Verdict> = None;
        for router in &self.routers {
            let verdict = match router {
                Router::Rules(rules) => Ok(Some(by_rules(rules, asked))),
                Router::Learned(weights) => Ok(Some(by_weights(weights, asked))),
                Router::Llm => self.by_model(asked).await,
                Router::Hook(number) => self.by_function(*number, asked).await,
            };
            let verdict = match verdict {
                Ok(Some(verdict)) => verdict,
                Ok(None) => continue,
                Err(reason) => {
                    asked.cx.fail("route", &reason);
                    asked.cx.receipt.update(|facts| facts.note(format!("route: {reason}")));
                    continue;
                }
            };
            let is_sure = verdict.confidence >= self.confidence;
            if surest.as_ref().is_none_or(|before| before.confidence < verdict.confidence) {
                surest = Some(verdict);
            }
            if is_sure {
                break;
            }
        }
        surest
    }

    async fn by_model(&self, asked: &Asked<'_>) -> Result<Option<Verdict>, String> {
        let classifier = self.classifier.as_ref().ok_or("there is no model to ask")?;
        let verdict = |(tier, confidence): (usize, f64), reason: String| Verdict {
            tier,
            by: "llm",
            confidence,
            reasons: vec![reason],
        };
        let key = (asked.scope, classifier.cache_key(asked.question, &self.names));
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(Some(verdict(known, format!("{} said so before", classifier.model))));
        }
        let helper = asked.choices.helper(&classifier.model);
        let helper = helper.ok_or_else(|| format!("{} cannot be asked now", classifier.model))?;
        let vocabulary = Vocabulary::of_model(helper.model());
        let named = Classifier { model: helper.model().to_owned(), ..classifier.clone() };
        let plain = Classifier { format: Format::Text, ..named.clone() };
        let mut last = String::new();
        let forms = if self.wants_plain.load(Ordering::Relaxed) { vec![plain] } else { vec![named, plain] };
        for form in forms {
            let fields = form.fields(asked.question, &self.names, &nonce(), vocabulary);
            match aside::ask_briefly(asked.cx, asked.next, helper, &fields, "route", self.timeout).await {
                // Not every server takes what the short form needs.
                Err(reason) if aside::refuses(&reason) => last = reason,
                Err(reason) => return Err(reason),
                Ok(body) => {
                    if !last.is_empty() {
                        self.wants_plain.store(true, Ordering::Relaxed);
                    }
                    let answer = Answer::read(Endpoint::Chat, &body).ok_or("the classifier gave no answer")?;
                    let Some(tier) = classifier.parse(answer.text(), &self.names) else {
                        return Err(format!("{} named no tier: {:?}", classifier.model, start(answer.text())));
                    };
                    // It was made to say one of them; without probabilities its word is all there is.
                    let top = answer.choices.first().and_then(|choice| choice.tokens.first()).map(|token| &token.top);
                    let sure = top.and_then(|top| classifier.confidence(top, &self.names, tier)).unwrap_or(1.0);
                    self.verdicts.insert(key, (tier, sure));
                    return Ok(Some(verdict((tier, sure), format!("{} said so", classifier.model))));
                }
            }
        }
        Err(last)
    }

    async fn by_function(&self, number: u64, asked: &Asked<'_>) -> Result<Option<Verdict>, String> {
        let question = asked.question;
        let argument = json!({
            "kind": "route",
            "model": &*asked.cx.receipt.read(|facts| facts.model_asked.clone()),
            "tiers": asked.free,
            "messages": question.messages,
            "prompt": question.prompt,
            "system": question.system,
            "tools": asked.request.get::<Vec<Value>>("tools").unwrap_or_default(),
            "features": asked.look.to_json(),
            "request": serde_json::from_slice::<Value>(asked.request.body()).unwrap_or_default(),
        });
        let said = function::ask(asked.cx, number, argument, self.timeout).await;
        let (name, confidence) = match said.map_err(|why| format!("the function failed: {why}"))? {
            Value::Null => return Ok(None),
            Value::String(name) => (name, 1.0),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(name), confidence] => (name.clone(), confidence.as_f64().unwrap_or(-1.0)),
                _ => return Err("the function returned neither a tier nor (tier, confidence)".to_owned()),
            },
            _ => return Err("the function returned neither a tier nor (tier, confidence)".to_owned()),
        };
        let Some(tier) = self.names.iter().position(|known| *known == name) else {
            return Err(format!("the function returned {:?}, which is not among the tiers", start(&name)));
        };
        if !(0.0..=1.0).contains(&confidence) {
            return Err("the function returned a confidence that is not from 0 to 1".to_owned());
        }
        Ok(Some(Verdict { tier, by: "callable", confidence, reasons: vec!["a function chose it".to_owned()] }))
    }
}

fn by_rules(rules: &Rules, asked: &Asked<'_>) -> Verdict {
    let verdict = rules.choose(asked.look);
    Verdict { tier: verdict.tier, by: "rules", confidence: verdict.confidence, reasons: verdict.reasons }
}

/// Two tiers; the file says how likely it is that the cheap one is good enough.
fn by_weights(weights: &Weights, asked: &Asked<'_>) -> Verdict {
    let good = f64::from(weights.probability(&asked.look.features));
    Verdict {
        tier: usize::from(good < 0.5),
        by: "learned",
        confidence: (2.0 * good - 1.0).abs(),
        reasons: vec![format!("P(the cheap answer is good) {good:.2}")],
    }
}

fn weights(config: &RouteConfig) -> Result<Weights> {
    let file = config.learned.as_ref().and_then(|file| file.get("cheap"));
    let weights = file.ok_or_else(|| Error::Config("route.weights has no weights for the cheap model".to_owned()))?;
    let weights: Weights =
        serde_json::from_value(weights.clone()).map_err(|error| Error::Config(format!("route.weights: {error}")))?;
    if weights.is_whole() { Ok(weights) } else { Err(Error::Config("route.weights: weights are missing".to_owned())) }
}

fn start(text: &str) -> String {
    text.chars().take(60).collect()
}
