//! What is known of each upstream from call to call: its breaker, its limits, how long it takes. Shared by all clients of
//! an engine. Nothing here sends.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use crate::config::{FallbackConfig, UpstreamConfig};
use crate::upstream::breaker::{self, Breaker};
use crate::upstream::latency::Latencies;
use crate::upstream::limits::{self, Limiter};

/// One upstream.
#[derive(Debug)]
pub struct State {
    /// None = a client's own.
    pub name: Option<Arc<str>>,
    pub breaker: Breaker,
    /// None = nothing is limited.
    pub limiter: Option<Limiter>,
    pub latencies: Latencies,
}

impl State {
    /// Notes how an attempt that began at `began` ended.
    pub fn record(&self, began: Instant, failed: bool) {
        let now = Instant::now();
        self.breaker.record(began, now, failed);
        if !failed {
            self.latencies.record(now.saturating_duration_since(began));
        }
    }
}

/// When a second try is worth its money: after this percentile of the upstream's latencies, once so many are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    pub percentile: f64,
    pub minimum: usize,
}

/// All upstreams of an engine, and the policy's rules for going from one to the next.
#[derive(Debug)]
pub struct States {
    named: HashMap<Arc<str>, Arc<State>>,
    /// Clients' own, by scheme, host and port, and by who asks: what one key has used up is no reason to pass another by.
    own: Mutex<HashMap<Owner, Arc<State>>>,
    hasher: RandomState,
    breaker: breaker::Settings,
    pub deadline: Option<Duration>,
    pub hedge: Option<Hedge>,
}

/// Scheme, host and port, and a hash of the key.
type Owner = (Box<str>, u64);

/// Where the SDK's clients put a key.
const KEY_HEADERS: [&str; 2] = ["authorization", "api-key"];

/// Clients' own upstreams beyond this many: all of them are forgotten and start again.
const MOST_OWN: usize = 1000;

impl States {
    pub fn new(upstreams: &BTreeMap<String, UpstreamConfig>, fallback: &FallbackConfig) -> Self {
        let breaker = breaker::Settings {
            failures: fallback.breaker.failures,
            window: seconds(fallback.breaker.window),
            minimum: fallback.breaker.minimum,
            rest: seconds(fallback.breaker.rest),
        };
        let named = upstreams.iter().map(|(name, upstream)| {
            let name: Arc<str> = name.as_str().into();
            let limiter = Limiter::new(limits::Settings {
                concurrency: upstream.concurrency,
                requests_per_minute: upstream.requests_per_minute,
                tokens_per_minute: upstream.tokens_per_minute,
            });
            let state = State {
                name: Some(Arc::clone(&name)),
                breaker: Breaker::new(breaker),
                limiter,
                latencies: Latencies::default(),
            };
            (name, Arc::new(state))
        });
        Self {
            named: named.collect(),
            own: Mutex::default(),
            hasher: RandomState::new(),
            breaker,
            deadline: fallback.deadline.map(seconds),
            hedge: fallback.hedge.as_ref().map(|hedge| Hedge { percentile: hedge.percentile, minimum: hedge.minimum }),
        }
    }

    /// The upstream `name`; for None, or a name that the policy has no more, the one behind `url`, for the key in `headers`.
    pub fn get(&self, name: Option<&str>, url: &str, headers: &HeaderMap) -> Arc<State> {
        if let Some(state) = name.and_then(|name| self.named.get(name)) {
            return Arc::clone(state);
        }
        let keys = KEY_HEADERS.map(|name| headers.get(name).map(HeaderValue::as_bytes));
        let origin = (Box::from(origin(url)), self.hasher.hash_one(keys));
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = own.get(&origin) {
            return Arc::clone(state);
        }
        if own.len() >= MOST_OWN {
            own.clear();
        }
        let breaker = Breaker::new(self.breaker);
        let state = Arc::new(State { name: None, breaker, limiter: None, latencies: Latencies::default() });
        own.insert(origin, Arc::clone(&state));
        state
    }
}

fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
