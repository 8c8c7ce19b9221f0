//! Where a call goes: first to the upstream of its model, then, if that cannot answer, to those that the policy names.
//!
//! A plan is data, made by whoever knows URLs and keys (`python/farthing/upstreams.py`); `fallback.rs` walks it. What is
//! known of an upstream from call to call is in `states.rs`.

use std::sync::Arc;

use http::HeaderMap;

use crate::context::Context;
use crate::exchange::Request;
use crate::ledger::{Money, PriceTable, Usage};
use crate::patience::Limits;
use crate::upstream::adapt::Adaptation;

/// A call's way. The first upstream's URL, headers and body are the request's own.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The first upstream's name in the policy; None = the client's own.
    pub upstream: Option<Arc<str>>,
    /// Who is asked after it, in this order.
    pub fallbacks: Vec<Target>,
    /// Cheaper models that a budget may send the call to, and that are not at the first upstream, or not asked in the same
    /// words.
    pub substitutes: Vec<Target>,
    /// Cheaper models that cannot be asked now: their key did not come.
    pub absent: Vec<Arc<str>>,
    /// The name in the policy of the model that is asked first, where that is not the name that the call used.
    pub alias: Option<Arc<str>>,
    /// What a stage may choose among; None = the call goes to the model that it names.
    pub choices: Option<Arc<Choices>>,
}

/// The models that stages may ask in place of the one that a call names.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Those that may answer the call, by their names in the policy.
    pub tiers: Vec<Arc<Tier>>,
    /// Those that are asked about it (classifier, judge): by chat completions, whatever the call is.
    pub helpers: Vec<Arc<Tier>>,
    /// The model that the call names, for what it would have cost.
    pub asked: Option<Arc<Tier>>,
    /// The stage route chooses.
    pub routes: bool,
    /// The stage escalate judges.
    pub escalates: bool,
}

/// A model that a stage may choose, and where it goes if that one cannot answer.
#[derive(Clone, Debug)]
pub struct Tier {
    pub target: Target,
    pub plan: Arc<Plan>,
}

/// One fallback: an upstream and a model of it.
#[derive(Clone, Debug)]
pub struct Target {
    /// None = the client's own.
    pub upstream: Option<Arc<str>>,
    /// The model or alias, as the policy's list has it.
    pub name: Arc<str>,
    pub url: Arc<str>,
    pub headers: Arc<HeaderMap>,
    pub adaptation: Arc<Adaptation>,
    /// The upstream's own limits; None = the call's.
    pub limits: Option<Limits>,
}

impl Target {
    /// Headers and times of one call.
    fn take(&mut self, own: &HeaderMap, times: Option<Limits>) {
        if let (Some(limits), Some(times)) = (&mut self.limits, times) {
            *limits = Limits { max_retries: limits.max_retries, ..times };
        }
        if !own.is_empty() {
            let headers = Arc::make_mut(&mut self.headers);
            for (name, value) in own {
                headers.insert(name, value.clone());
            }
        }
    }

    /// The request as this target takes it; the receipt says which fields were dropped for it.
    pub fn request(&self, cx: &Context, request: &Request) -> Request {
        let (adapted, dropped) = self.adaptation.apply(request);
        for field in dropped {
            cx.receipt.update(|facts| facts.note(format!("{field} was left out for {}", self.name)));
        }
        adapted.sent_to(Arc::clone(&self.url), Arc::clone(&self.headers))
    }
}

impl Choices {
    /// The model that the policy calls by this name.
    pub fn tier(&self, name: &str) -> Option<&Arc<Tier>> {
        self.tiers.iter().find(|tier| **tier.name() == *name)
    }

    pub fn helper(&self, name: &str) -> Option<&Arc<Tier>> {
        self.helpers.iter().find(|tier| **tier.name() == *name)
    }

    fn for_call(&self, own: &HeaderMap, times: Option<Limits>) -> Self {
        let changed = |tier: &Arc<Tier>| {
            let mut target = tier.target.clone();
            target.take(own, times);
            Arc::new(Tier { target, plan: Arc::new(tier.plan.for_call(own, times)) })
        };
        Self {
            tiers: self.tiers.iter().map(changed).collect(),
            helpers: self.helpers.clone(),
            asked: self.asked.clone(),
            ..*self
        }
    }
}

impl Tier {
    /// The model or alias, as the policy has it.
    pub fn name(&self) -> &Arc<str> {
        &self.target.name
    }

    /// The real name of the model.
    pub fn model(&self) -> &str {
        self.target.adaptation.model.as_deref().unwrap_or(&self.target.name)
    }

    /// What `usage` costs there; None = the price is unknown.
    pub fn cost(&self, prices: &PriceTable, usage: &Usage, unix_seconds: i64) -> Option<Money> {
        let names = [self.model(), self.name()];
        let own = names.iter().find_map(|name| prices.charge_own(name, usage));
        own.or_else(|| prices.charge(&self.target.url, self.model(), usage, unix_seconds))
    }
}

impl Plan {
    /// Whether nobody but the first upstream is ever asked.
    pub fn is_alone(&self) -> bool {
        self.fallbacks.is_empty() && self.substitutes.is_empty() && self.choices.is_none()
    }

    /// The cheaper model that the policy calls by this name.
    pub fn substitute(&self, name: &str) -> Option<&Target> {
        self.substitutes.iter().find(|target| &*target.name == name)
    }

    /// The plan for a call that brings headers of its own, and times (its `max_retries` is not looked at).
    #[must_use]
    pub fn for_call(&self, own: &HeaderMap, times: Option<Limits>) -> Self {
        let mut plan = self.clone();
        for target in plan.fallbacks.iter_mut().chain(&mut plan.substitutes) {
            target.take(own, times);
        }
        plan.choices = plan.choices.map(|choices| Arc::new(choices.for_call(own, times)));
        plan
    }
}
