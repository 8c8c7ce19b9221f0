//! Who is asked next: breakers, plans, limits, and the books of it all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use farthing::config::{BreakerConfig, CacheConfig, Config, FallbackConfig, ModelConfig, UpstreamConfig};
use farthing::context::{Context, Mode};
use farthing::engine::Engine;
use farthing::error::{Broken, Error, Result};
use farthing::exchange::{Body, Endpoint, Request, Response};
use farthing::key::Prefix;
use farthing::ledger::{Ledger, Purpose};
use farthing::patience::{Limits, Patience};
use farthing::receipt::{Facts, Receipt};
use farthing::upstream::adapt::Adaptation;
use farthing::upstream::breaker::{Breaker, Settings};
use farthing::upstream::latency::Latencies;
use farthing::upstream::limits::{self, Limiter, duration};
use farthing::upstream::plan::{Plan, Target};
use farthing::upstream::{Outgoing, Sender};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings { failures: 0.5, window: Duration::from_secs(30), minimum: 4, rest: Duration::from_secs(10) }
}

#[test]
fn a_breaker_opens_rests_probes_and_closes() {
    let breaker = Breaker::new(settings());
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    for failed in [false, true, true] {
        breaker.record(at(0), at(0), failed);
    }
    assert!(breaker.admits(at(0)), "three calls are below the minimum");
    breaker.record(at(1), at(1), true);
    assert!(!breaker.admits(at(1)) && !breaker.admits(at(10)));
    // One probe at a time.
    assert!(breaker.admits(at(11)) && !breaker.admits(at(11)));
    // An old call that ends now says nothing.
    breaker.record(at(0), at(12), false);
    assert!(!breaker.admits(at(12)));
    breaker.record(at(11), at(12), true);
    assert!(!breaker.admits(at(21)) && breaker.admits(at(22)));
    // A probe of which nothing is heard does not close the way for good.
    assert!(!breaker.admits(at(31)) && breaker.admits(at(32)));
    breaker.record(at(32), at(33), false);
    assert!(breaker.admits(at(33)) && breaker.admits(at(33)) && !breaker.is_open());
}

#[test]
fn old_failures_leave_the_window() {
    let breaker = Breaker::new(settings());
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    for _ in 0..3 {
        breaker.record(at(0), at(0), true);
    }
    for _ in 0..3 {
        breaker.record(at(31), at(31), false);
    }
    breaker.record(at(31), at(31), true);
    assert!(breaker.admits(at(31)), "one failure of four");
}

proptest! {
    /// Against a breaker that counts everything anew each time.
    #[test]
    fn a_breaker_opens_exactly_at_its_share(calls in prop::collection::vec((0_u64..20, any::<bool>()), 0..60)) {
        let (breaker, start) = (Breaker::new(settings()), Instant::now());
        let mut seen: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for (step, failed) in calls {
            now += step;
            let at = start + Duration::from_secs(now);
            breaker.record(at, at, failed);
            seen.push((now, failed));
            let recent: Vec<_> = seen.iter().filter(|(then, _)| now - then <= 30).collect();
            let bad = recent.iter().filter(|(_, failed)| *failed).count();
            let opens = failed && recent.len() >= 4 && bad * 2 >= recent.len();
            prop_assert_eq!(breaker.is_open(), opens);
            if opens {
                break;
            }
        }
    }

    /// Each percentile is one of the values, and as many as it says are not above it.
    #[test]
    fn percentiles(values in prop::collection::vec(1_u64..1000, 1..150), percentile in 1_u32..=100) {
        let latencies = Latencies::default();
        for value in &values {
            latencies.record(Duration::from_millis(*value));
        }
        let found = latencies.percentile(f64::from(percentile), 1).unwrap();
        let below = values.iter().filter(|value| Duration::from_millis(**value) <= found).count();
        prop_assert!(values.iter().any(|value| Duration::from_millis(*value) == found));
        prop_assert!(below * 100 >= values.len() * percentile as usize);
        prop_assert!(latencies.percentile(f64::from(percentile), values.len() + 1).is_none());
    }
}

#[test]
fn spans_as_upstreams_write_them() {
    let millis = |text: &str| duration(text).map(|span| span.as_millis());
    for (text, expected) in [
        ("1s", 1000),
        ("20ms", 20),
        ("6m0s", 360_000),
        ("1h2m3.5s", 3_723_500),
        ("2", 2000),
        ("0.5", 500),
        ("1d", 86_400_000),
    ] {
        assert_eq!(millis(text), Some(expected), "{text}");
    }
    for text in ["", "s", "1x", "-1", "later", "1s2", "NaN"] {
        assert_eq!(millis(text), None, "{text}");
    }
}

#[test]
fn a_limit_is_a_wait_until_there_is_no_time_for_it() {
    runtime().block_on(async {
        let limiter = |concurrency, requests_per_minute, tokens_per_minute| {
            Limiter::new(limits::Settings { concurrency, requests_per_minute, tokens_per_minute }).unwrap()
        };
        let soon = || Some(Instant::now() + Duration::from_millis(100));
        let one = limiter(Some(1), None, None);
        let held = one.enter(1, soon()).await.unwrap();
        assert!(one.enter(1, soon()).await.is_err());
        drop(held);
        one.enter(1, soon()).await.unwrap();

        let two = limiter(None, Some(12), None);
        for _ in 0..2 {
            two.enter(1, soon()).await.unwrap();
        }
        let began = Instant::now();
        assert!(two.enter(1, Some(began + Duration::from_secs(3))).await.is_err(), "the next is due in 5 s");
        assert!(began.elapsed() < Duration::from_secs(2), "and it is said at once");

        let tokens = limiter(None, None, Some(600));
        tokens.enter(100, soon()).await.unwrap();
        assert!(tokens.enter(50, soon()).await.is_err());
        // Faster than the clock of the bucket: a tenth of a second is a token.
        tokens.enter(1, Some(Instant::now() + Duration::from_secs(5))).await.unwrap();
    });
}

#[test]
fn what_an_upstream_says_is_left() {
    runtime().block_on(async {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let limiter = Limiter::new(limits::Settings { concurrency: Some(9), ..limits::Settings::default() }).unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(100));
        limiter.heard(&headers(&[("x-ratelimit-remaining-requests", "1"), ("x-ratelimit-reset-requests", "60s")]));
        limiter.enter(1, soon()).await.unwrap();
        assert!(limiter.enter(1, soon()).await.is_err(), "that was the one");
        limiter.heard(&headers(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "50ms")]));
        let began = Instant::now();
        limiter.enter(1, Some(began + Duration::from_secs(5))).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50));
        // It comes back evenly: a slot of 6000 a minute is there in 10 ms.
        limiter.heard(&headers(&[
            ("x-ratelimit-limit-requests", "6000"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "60s"),
        ]));
        limiter.enter(1, Some(Instant::now() + Duration::from_secs(5))).await.unwrap();
        limiter.heard(&headers(&[("x-ratelimit-remaining-tokens", "10"), ("x-ratelimit-reset-tokens", "1m")]));
        limiter.heard(&headers(&[("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-reset-requests", "1ms")]));
        assert!(limiter.enter(11, soon()).await.is_err());
        limiter.enter(10, soon()).await.unwrap();
    });
}

fn request(body: &Value) -> Request {
    let scope = farthing::key::Scope { salt: [0; 32], name: None, ignored_headers: Vec::new() };
    let prefix = Prefix::new(&scope, b"", "http://first/v1/chat/completions", []);
    let url = "http://first/v1/chat/completions".into();
    Request::new(Endpoint::Chat, url, HeaderMap::new(), body.to_string().into(), &prefix, None).ok().unwrap()
}

fn adapted(body: &Value, how: &Value) -> (Value, Vec<String>) {
    let (request, dropped) = Adaptation::from_json(&how.to_string()).unwrap().apply(&request(body));
    let fields: BTreeMap<String, Value> =
        request.fields().map(|(name, raw)| (name.to_owned(), serde_json::from_slice(raw).unwrap())).collect();
    let read: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(json!(fields), read, "the fields are found where they are");
    (read, dropped)
}

#[test]
fn requests_are_adapted() {
    let body = json!({
        "model": "a", "max_tokens": 5, "logit_bias": {"1": 2}, "seed": 12_345_678_901_234_567_890_u64,
        "messages": [{"role": "system", "content": "\u{e9}"}, {"role": "user", "content": [1.50, null]}],
    });
    let how = json!({
        "model": "b", "parameters": {"temperature": 0, "seed": 1}, "rename": {"max_tokens": "max_completion_tokens"},
        "roles": {"system": "developer"}, "drop": ["logit_bias"],
    });
    let expected = json!({
        "model": "b", "max_completion_tokens": 5, "seed": 12_345_678_901_234_567_890_u64, "temperature": 0,
        "messages": [{"role": "developer", "content": "\u{e9}"}, {"role": "user", "content": [1.50, null]}],
    });
    assert_eq!(adapted(&body, &how), (expected, vec!["logit_bias".to_owned()]));
    // What the request says itself stays.
    let both = json!({"model": "a", "max_tokens": 5, "max_completion_tokens": 6});
    assert_eq!(adapted(&both, &how).0["max_completion_tokens"], json!(6));
    // Two names for each other's field.
    let swap = json!({"rename": {"a": "b", "b": "a"}});
    assert_eq!(adapted(&json!({"a": 1, "b": 2}), &swap).0, json!({"a": 2, "b": 1}));
}

/// What an upstream does, call by call; the last goes on.
#[derive(Clone, Copy, Debug)]
enum Step {
    Answers,
    Status(u16),
    Refuses,
    Hangs,
}

/// Upstreams by the host in the URL.
struct World {
    steps: Mutex<BTreeMap<String, Vec<Step>>>,
    seen: Mutex<Vec<(String, HeaderMap, Value)>>,
}

#[async_trait]
impl Sender for World {
    async fn send(&self, outgoing: Outgoing<'_>, _: Arc<Patience>) -> Result<Response> {
        let host = outgoing.url.split('/').nth(2).unwrap().to_owned();
        let body = serde_json::from_slice(&outgoing.body).unwrap();
        self.seen.lock().unwrap().push((host.clone(), outgoing.headers, body));
        let step = {
            let mut steps = self.steps.lock().unwrap();
            let steps = steps.get_mut(&host).unwrap();
            if steps.len() > 1 { steps.remove(0) } else { steps[0] }
        };
        match step {
            Step::Answers => Ok(Response::new(200, HeaderMap::new(), Body::Full(answer(&host)))),
            Step::Status(status) => {
                let mut headers = HeaderMap::new();
                headers.insert("retry-after-ms", HeaderValue::from_static("1"));
                Ok(Response::new(status, headers, Body::Full(Bytes::from_static(b"{}"))))
            }
            Step::Refuses => Err(Error::broken(Broken::Connect, "refused")),
            Step::Hangs => std::future::pending().await,
        }
    }
}

fn answer(host: &str) -> Bytes {
    json!({
        "id": "1", "object": "chat.completion", "model": host,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": host}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    })
    .to_string()
    .into()
}

struct Scene {
    engine: Arc<Engine>,
    ledger: Arc<Ledger>,
    world: Arc<World>,
    plan: Arc<Plan>,
}

impl Scene {
    fn new(steps: &[(&str, &[Step])], fallback: FallbackConfig) -> Self {
        let price = ModelConfig {
            input: Some("1".to_owned()),
            output: Some("2".to_owned()),
            cached_input: None,
            cache_write: None,
            max_output: None,
            context: None,
            can: Default::default(),
            cannot: Default::default(),
        };
        let named = |name: &str| {
            let base_url = format!("http://{name}/v1");
            let limits =
                UpstreamConfig { base_url, concurrency: None, requests_per_minute: None, tokens_per_minute: None };
            (name.to_owned(), limits)
        };
        let cache = CacheConfig {
            max_bytes: 1 << 20,
            ttl: None,
            mode: "on".to_owned(),
            deterministic_only: false,
            scope: None,
            ignore_headers: Vec::new(),
            name: None,
            path: None,
            max_disk_bytes: 0,
        };
        let config = Config {
            budgets: Vec::new(),
            cache: Some(cache),
            models: steps.iter().map(|(name, _)| ((*name).to_owned(), price.clone())).collect(),
            aliases: BTreeMap::new(),
            strict: false,
            upstreams: steps.iter().map(|(name, _)| named(name)).collect(),
            fallback: Some(fallback),
            has_hooks: false,
            route: None,
            escalate: None,
            batch: None,
            compress: None,
        };
        let target = |name: &str| Target {
            upstream: Some(name.into()),
            name: name.into(),
            url: format!("http://{name}/v1/chat/completions").into(),
            headers: Arc::new(HeaderMap::from_iter([(
                http::header::AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {name}")).unwrap(),
            )])),
            adaptation: Arc::new(Adaptation::from_json(&json!({ "model": name }).to_string()).unwrap()),
            limits: None,
        };
        let fallbacks = steps.iter().skip(1).map(|(name, _)| target(name)).collect();
        Self {
            engine: Arc::new(Engine::new(config, [1; 32], &Arc::default(), None).unwrap()),
            ledger: Arc::default(),
            world: Arc::new(World {
                steps: Mutex::new(steps.iter().map(|(name, steps)| ((*name).to_owned(), steps.to_vec())).collect()),
                seen: Mutex::default(),
            }),
            plan: Arc::new(Plan {
                upstream: Some(steps[0].0.into()),
                fallbacks,
                substitutes: Vec::new(),
                absent: Vec::new(),
                ..Plan::default()
            }),
        }
    }

    async fn call(&self, number: u64, retries: u32) -> (Result<u16>, String, Facts) {
        let prefix = Prefix::new(self.engine.scope(), b"", "http://first/v1/chat/completions", []);
        let body = json!({"model": "first", "messages": [{"role": "user", "content": number}]}).to_string();
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer first"))]);
        let url = "http://first/v1/chat/completions".into();
        let request = Request::new(Endpoint::Chat, url, headers, body.into(), &prefix, None).ok().unwrap();
        let cx = Context {
            began: Instant::now(),
            books: self.engine.books(Arc::clone(&self.ledger)),
            receipt: Arc::new(Receipt::new(Facts { model_asked: "first".into(), ..Facts::default() })),
            sender: Arc::clone(&self.world) as Arc<dyn Sender>,
            plan: Some(Arc::clone(&self.plan)),
            tier: None,
            max_cost: None,
            packing: None,
            purpose: Purpose::default(),
            limits: Limits { connect: None, read: None, write: None, max_retries: retries },
            patience: Arc::new(Patience::default()),
            mode: Mode::On,
            ttl: None,
            tag: None,
            wishes: None,
            looked_on_disk: false,
            event_loop: None,
            hooks: None,
            inside: false,
            tasks: None,
            fault: None,
            left: None,
        };
        let result = self.engine.call(&cx, request).await;
        let text = match &result {
            Ok(Response { body: Body::Full(body), .. }) => String::from_utf8_lossy(body).into_owned(),
            _ => String::new(),
        };
        (result.map(|response| response.status), text, cx.receipt.facts())
    }

    fn hosts(&self) -> Vec<String> {
        self.world.seen.lock().unwrap().iter().map(|(host, ..)| host.clone()).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn retries_come_first_then_the_next() {
    runtime().block_on(async {
        let scene = Scene::new(
            &[("first", &[Step::Status(503)]), ("second", &[Step::Refuses]), ("third", &[Step::Answers])],
            FallbackConfig::default(),
        );
        let (status, text, facts) = scene.call(1, 1).await;
        assert_eq!(status.unwrap(), 200);
        assert!(text.contains("third"));
        assert_eq!(scene.hosts(), ["first", "first", "second", "second", "third"]);
        for (host, headers, body) in scene.world.seen.lock().unwrap().iter() {
            assert_eq!(headers["authorization"].to_str().unwrap(), format!("Bearer {host}"));
            assert_eq!(body["model"], json!(host));
        }
        let report = scene.ledger.report();
        assert_eq!((report.retries, report.fallbacks, report.hedges, report.unanswered), (2, 2, 0, 0));
        assert_eq!(facts.attempts.iter().map(|a| &*a.upstream).collect::<Vec<_>>(), scene.hosts());
        // An answer of another model is no answer for the cache.
        let (_, _, again) = scene.call(1, 0).await;
        assert!(again.attempts.len() > 1);
    });
}

#[test]
fn the_request_s_own_faults_end_the_walk() {
    for status in [400, 401, 403, 404, 409, 422] {
        runtime().block_on(async {
            let steps: &[(&str, &[Step])] = &[("first", &[Step::Status(status)]), ("second", &[Step::Answers])];
            let scene = Scene::new(steps, FallbackConfig::default());
            assert_eq!(scene.call(1, 0).await.0.unwrap(), status);
            assert_eq!(scene.hosts(), ["first"]);
        });
    }
}

#[test]
fn the_first_failure_is_shown() {
    runtime().block_on(async {
        let steps: &[(&str, &[Step])] =
            &[("first", &[Step::Status(503)]), ("second", &[Step::Status(500)]), ("third", &[Step::Refuses])];
        let scene = Scene::new(steps, FallbackConfig::default());
        assert_eq!(scene.call(1, 0).await.0.unwrap(), 503);
        assert_eq!(scene.hosts(), ["first", "second", "third"]);
        // A fallback's own fault is not the caller's either.
        let steps: &[(&str, &[Step])] = &[("first", &[Step::Refuses]), ("second", &[Step::Status(401)])];
        let scene = Scene::new(steps, FallbackConfig::default());
        assert!(matches!(scene.call(1, 0).await.0, Err(Error::Connection { .. })));
    });
}

#[test]
fn one_deadline_over_all() {
    runtime().block_on(async {
        let steps: &[(&str, &[Step])] = &[("first", &[Step::Status(500)]), ("second", &[Step::Hangs])];
        let fallback = FallbackConfig { deadline: Some(0.2), ..FallbackConfig::default() };
        let scene = Scene::new(steps, fallback);
        assert_eq!(scene.call(1, 0).await.0.unwrap(), 500);
        assert_eq!(scene.ledger.report().unanswered, 1);
        let steps: &[(&str, &[Step])] = &[("first", &[Step::Hangs]), ("second", &[Step::Answers])];
        let fallback = FallbackConfig { deadline: Some(0.2), ..FallbackConfig::default() };
        assert!(matches!(Scene::new(steps, fallback).call(1, 0).await.0, Err(Error::Timeout { .. })));
    });
}

#[test]
fn an_open_breaker_is_passed_by() {
    runtime().block_on(async {
        let steps: &[(&str, &[Step])] = &[("first", &[Step::Refuses]), ("second", &[Step::Answers])];
        let breaker = BreakerConfig { failures: 0.5, window: 60.0, minimum: 3, rest: 60.0 };
        let scene = Scene::new(steps, FallbackConfig { breaker, ..FallbackConfig::default() });
        for number in 0..10 {
            assert_eq!(scene.call(number, 0).await.0.unwrap(), 200);
        }
        assert_eq!(scene.hosts().iter().filter(|host| *host == "first").count(), 3);
        assert_eq!(scene.ledger.report().fallbacks, 10);

        // All of them rest: the first is tried all the same.
        let steps: &[(&str, &[Step])] = &[("first", &[Step::Refuses]), ("second", &[Step::Refuses])];
        let breaker = BreakerConfig { failures: 0.5, window: 60.0, minimum: 1, rest: 60.0 };
        let scene = Scene::new(steps, FallbackConfig { breaker, ..FallbackConfig::default() });
        for number in 0..3 {
            assert!(scene.call(number, 0).await.0.is_err());
        }
        assert_eq!(scene.hosts(), ["first", "second", "first", "first"]);
    });
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Answers),
        1 => Just(Step::Refuses),
        1 => prop::sample::select(vec![400, 401, 408, 429, 500, 503]).prop_map(Step::Status),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the upstreams do: who answers is the first that can, and the books have each attempt once.
    #[test]
    fn the_walk(steps in prop::collection::vec(step(), 1..5)) {
        let names = ["first", "second", "third", "fourth"];
        let world: Vec<(&str, &[Step])> =
            steps.iter().enumerate().map(|(i, step)| (names[i], std::slice::from_ref(step))).collect();
        let breaker = BreakerConfig { minimum: 100, ..BreakerConfig::default() };
        let scene = Scene::new(&world, FallbackConfig { breaker, ..FallbackConfig::default() });
        let (result, text, facts) = runtime().block_on(scene.call(1, 0));
        let ends = |step: &Step| matches!(step, Step::Answers | Step::Status(400 | 401));
        let asked = steps.iter().position(ends).map_or(steps.len(), |at| at + 1);
        prop_assert_eq!(scene.hosts().len(), asked);
        prop_assert_eq!(facts.attempts.len(), asked);
        prop_assert_eq!(scene.ledger.report().fallbacks, asked as u64 - 1);
        match (steps[asked - 1], steps[0], result) {
            (Step::Answers, _, result) => {
                prop_assert_eq!(result.unwrap(), 200);
                prop_assert!(text.contains(names[asked - 1]));
            }
            (_, Step::Status(first), result) => prop_assert_eq!(result.unwrap(), first),
            (_, _, result) => prop_assert!(result.is_err()),
        }
    }
}
