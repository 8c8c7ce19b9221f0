//! The whole core with a scripted sender: flights, retries, charges, and who pays.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use farthing::config::{CacheConfig, Config, ModelConfig};
use farthing::context::{Context, Mode};
use farthing::engine::Engine;
use farthing::error::{Error, Result};
use farthing::exchange::{Body, Endpoint, Request, Response};
use farthing::key::Prefix;
use farthing::ledger::{Ledger, Outcome, Purpose};
use farthing::patience::{Limits, Patience};
use farthing::receipt::{Facts, Receipt};
use farthing::upstream::{Outgoing, Sender};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

/// Answers with the next of a list of statuses (0: no connection), each after a pause; then with 200.
struct Scripted {
    statuses: Mutex<Vec<u16>>,
    pause: Duration,
    sent: AtomicUsize,
    billed: AtomicUsize,
}

impl Scripted {
    fn new(statuses: &[u16], pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            statuses: Mutex::new(statuses.to_vec()),
            pause,
            sent: AtomicUsize::new(0),
            billed: AtomicUsize::new(0),
        })
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Sender for Scripted {
    async fn send(&self, _: Outgoing<'_>, _: Arc<Patience>) -> Result<Response> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.pause).await;
        let mut statuses = self.statuses.lock().unwrap();
        let status = if statuses.is_empty() { 200 } else { statuses.remove(0) };
        if status == 0 {
            return Err(Error::connection("no route"));
        }
        if status == 200 {
            self.billed.fetch_add(1, Ordering::SeqCst);
        }
        let body = json!({
            "id": "1", "object": "chat.completion", "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        });
        let mut headers = HeaderMap::new();
        headers.insert("retry-after-ms", HeaderValue::from_static("1"));
        let body = Body::Full(body.to_string().into());
        Ok(Response::new(status, headers, body))
    }
}

fn engine() -> Arc<Engine> {
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
        cache: Some(cache),
        models: BTreeMap::from([("m".into(), price)]),
        budgets: Vec::new(),
        aliases: BTreeMap::new(),
        strict: false,
        upstreams: BTreeMap::new(),
        fallback: None,
        has_hooks: false,
        route: None,
        escalate: None,
        batch: None,
        compress: None,
    };
    Arc::new(Engine::new(config, [1; 32], &Arc::default(), None).unwrap())
}

struct Caller {
    cx: Context,
    request: Request,
}

fn caller(engine: &Engine, sender: &Arc<Scripted>, ledger: &Arc<Ledger>, prompt: u8, retries: u32) -> Caller {
    let prefix = Prefix::new(engine.scope(), b"", "http://h/v1/chat/completions", []);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string();
    let body = Bytes::from(body);
    let request = Request::new(Endpoint::Chat, "http://h".into(), HeaderMap::new(), body, &prefix, None).ok().unwrap();
    let cx = Context {
        began: Instant::now(),
        books: engine.books(Arc::clone(ledger)),
        receipt: Arc::new(Receipt::new(Facts { model_asked: "m".into(), ..Facts::default() })),
        sender: Arc::clone(sender) as Arc<dyn Sender>,
        plan: None,
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
    Caller { cx, request }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A cost of 10 prompt tokens at 1 USD and 5 completion tokens at 2 USD, each for a million.
const COST: i128 = 20_000_000;

/// A cancelled call is put away a little later. Who asks the same in between does not wait for what was given up on, unless
/// somebody else does.
#[test]
fn nobody_joins_what_all_have_left() {
    for others in [0, 1] {
        runtime().block_on(async {
            let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
            let sender = Scripted::new(&[], Duration::from_millis(500));
            let ask = |left: Option<Arc<AtomicBool>>| {
                let Caller { cx, request } = caller(&engine, &sender, &ledger, 0, 0);
                let (engine, cx) = (Arc::clone(&engine), Context { left, ..cx });
                tokio::spawn(async move { engine.call(&cx, request).await.map(|response| response.status) })
            };
            let left = Arc::new(AtomicBool::new(false));
            let mut tasks = vec![ask(Some(Arc::clone(&left)))];
            tasks.extend((0..others).map(|_| ask(None)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(sender.sent(), 1);
            left.store(true, Ordering::Release);
            tasks.push(ask(None));
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap(), 200);
            }
            assert_eq!(sender.sent(), 2 - others);
        });
    }
}

#[test]
fn the_price_is_paid_once() {
    runtime().block_on(async {
        let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
        let sender = Scripted::new(&[], Duration::from_millis(50));
        let mut tasks = Vec::new();
        for _ in 0..20 {
            let caller = caller(&engine, &sender, &ledger, 0, 0);
            let engine = Arc::clone(&engine);
            tasks.push(tokio::spawn(async move {
                let response = engine.call(&caller.cx, caller.request).await.unwrap();
                assert_eq!(response.status, 200);
                caller.cx.receipt.facts()
            }));
        }
        let mut outcomes = BTreeMap::new();
        for task in tasks {
            let facts = task.await.unwrap();
            assert!(facts.complete);
            *outcomes.entry(facts.outcome.unwrap().name()).or_insert(0) += 1;
            let expected = if facts.outcome == Some(Outcome::Miss) { (COST, None) } else { (0, Some(COST)) };
            assert_eq!((facts.cost.unwrap().pico(), facts.saved.map(|money| money.pico())), expected);
        }
        assert_eq!(sender.sent(), 1);
        assert_eq!(outcomes["miss"], 1);
        let report = ledger.report();
        assert_eq!((report.spent.pico(), report.saved.pico()), (COST, 19 * COST));
    });
}

#[test]
fn a_call_from_inside_a_function_joins_nobody_and_nobody_joins_it() {
    runtime().block_on(async {
        let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
        let sender = Scripted::new(&[], Duration::from_millis(50));
        let mut tasks = Vec::new();
        for inside in [true, false, true, false] {
            let mut caller = caller(&engine, &sender, &ledger, 0, 0);
            caller.cx.inside = inside;
            let engine = Arc::clone(&engine);
            tasks.push(tokio::spawn(async move {
                engine.call(&caller.cx, caller.request).await.unwrap();
                (inside, caller.cx.receipt.facts().outcome)
            }));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        let (miss, joined) = (Some(Outcome::Miss), Some(Outcome::Joined));
        assert_eq!(outcomes, [(true, miss), (false, miss), (true, miss), (false, joined)]);
        assert_eq!((sender.sent(), engine.cache().in_flight()), (3, 0));
    });
}

#[test]
fn a_policy_has_functions_when_it_names_one() {
    let policy = |name: &str| json!({"cache": null, "aliases": {"a": name}}).to_string();
    let has_hooks = |name: &str| Config::from_json(&policy(name)).unwrap().has_hooks;
    assert!(has_hooks("hook:12"));
    assert!(!has_hooks("a hook: it is none") && !has_hooks("rules"));
}

/// Sends, and needs an event loop for it.
struct OnALoop(Arc<Scripted>);

#[async_trait]
impl Sender for OnALoop {
    async fn send(&self, outgoing: Outgoing<'_>, patience: Arc<Patience>) -> Result<Response> {
        self.0.send(outgoing, patience).await
    }

    fn needs_event_loop(&self) -> bool {
        true
    }
}

#[test]
fn a_flight_that_needs_a_loop_is_joined_from_that_loop_only() {
    runtime().block_on(async {
        let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
        let sender = Scripted::new(&[], Duration::from_millis(50));
        let mut tasks = Vec::new();
        for (event_loop, needs_it) in
            [(Some(1), true), (Some(1), true), (Some(1), false), (Some(2), true), (None, false)]
        {
            let mut caller = caller(&engine, &sender, &ledger, 0, 0);
            caller.cx.event_loop = event_loop;
            if needs_it {
                caller.cx.sender = Arc::new(OnALoop(Arc::clone(&sender)));
            }
            let engine = Arc::clone(&engine);
            tasks.push(tokio::spawn(async move {
                engine.call(&caller.cx, caller.request).await.unwrap();
                caller.cx.receipt.facts().outcome.unwrap().name()
            }));
            tokio::task::yield_now().await;
            while sender.sent() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        assert_eq!(outcomes, ["miss", "joined", "joined", "miss", "miss"]);
        assert_eq!((sender.sent(), engine.cache().in_flight()), (3, 0));
    });
}

#[test]
fn the_most_patient_waiter_decides_and_the_others_leave_with_what_they_saw() {
    runtime().block_on(async {
        let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
        let sender = Scripted::new(&[500, 0], Duration::from_millis(50));
        let mut tasks = Vec::new();
        for retries in [0, 1, 2] {
            let caller = caller(&engine, &sender, &ledger, 0, retries);
            let engine = Arc::clone(&engine);
            tasks.push(tokio::spawn(async move { engine.call(&caller.cx, caller.request).await.map(|r| r.status) }));
        }
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.unwrap());
        }
        assert_eq!(results[0].as_ref().ok(), Some(&500));
        assert!(matches!(results[1], Err(Error::Connection { .. })));
        assert_eq!(results[2].as_ref().ok(), Some(&200));
        assert_eq!(sender.sent(), 3);
        assert_eq!(ledger.report().errors, 2);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever comes, leaves and fails: what was charged is what the upstream billed, and every call is counted once.
    #[test]
    fn charges_are_what_was_billed(
        callers in prop::collection::vec((0..3_u8, 0..3_u32, 0..30_u64, prop::option::of(0..40_u64)), 1..12),
        statuses in prop::collection::vec(prop::sample::select(&[200_u16, 200, 500, 429, 400, 0][..]), 0..8),
    ) {
        runtime().block_on(async {
            let (engine, ledger) = (engine(), Arc::new(Ledger::default()));
            let sender = Scripted::new(&statuses, Duration::from_millis(8));
            let mut tasks = Vec::new();
            let mut stayed = 0;
            for (prompt, retries, arrives, leaves) in callers {
                let caller = caller(&engine, &sender, &ledger, prompt, retries);
                let engine = Arc::clone(&engine);
                stayed += u64::from(leaves.is_none());
                tasks.push(tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(arrives)).await;
                    let call = engine.call(&caller.cx, caller.request);
                    match leaves {
                        Some(after) => drop(tokio::time::timeout(Duration::from_millis(after), call).await),
                        None => drop(call.await),
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            // Flights that were left are cancelled; let their tasks end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let report = ledger.report();
            let billed = sender.billed.load(Ordering::SeqCst) as i128;
            assert_eq!(report.spent.pico(), billed * COST);
            assert!(report.calls >= stayed);
            assert_eq!(report.calls, report.hits + report.joined + report.misses + report.bypassed + report.errors);
            assert_eq!(report.saved.pico(), i128::from(report.hits + report.joined) * COST);
            assert_eq!(engine.cache().in_flight(), 0);
        });
    }
}
