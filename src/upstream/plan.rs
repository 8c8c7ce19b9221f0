//! Where a call goes: first to the upstream of its model, then, if that cannot answer, to those that the policy names.
//!
//! A plan is data, made by whoever knows URLs and keys (`python/farthing/routing.py`); `fallback.rs` walks it. What is
//! known of an upstream from call to call is in `states.rs`.

use std::sync::Arc;

use http::HeaderMap;

use crate::context::Context;
use crate::exchange::Request;
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
    /// The request as this target takes it; the receipt says which fields were dropped for it.
    pub fn request(&self, cx: &Context, request: &Request) -> Request {
        let (adapted, dropped) = self.adaptation.apply(request);
        for field in dropped {
            cx.receipt.update(|facts| facts.note(format!("{field} was left out for {}", self.name)));
        }
        adapted.sent_to(Arc::clone(&self.url), Arc::clone(&self.headers))
    }
}

impl Plan {
    /// Whether nobody but the first upstream is ever asked.
    pub fn is_alone(&self) -> bool {
        self.fallbacks.is_empty() && self.substitutes.is_empty()
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
            if let (Some(limits), Some(times)) = (&mut target.limits, times) {
                *limits = Limits { max_retries: limits.max_retries, ..times };
            }
            if !own.is_empty() {
                let headers = Arc::make_mut(&mut target.headers);
                for (name, value) in own {
                    headers.insert(name, value.clone());
                }
            }
        }
        plan
    }
}
