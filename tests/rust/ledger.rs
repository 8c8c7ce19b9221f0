//! Money is exact, usage is read leniently, and the sums add up.

use std::sync::Arc;

use farthing::exchange::Endpoint;
use farthing::ledger::usage::Counts;
use farthing::ledger::{Books, Call, Charge, Draft, Ledger, Money, Outcome, Report, Saving, UPSTREAM, Usage};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn money_is_plain_decimal_text() {
    for (units, text) in [
        (0, "0"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (1_500_000_000_000, "1.5"),
        (-2_000_000_000_000, "-2"),
        (100_000_000_000_000_000_000_000, "100000000000"),
    ] {
        assert_eq!(Money::from_pico(units).to_string(), text);
    }
    assert_eq!(serde_json::to_string(&Money::from_pico(1)).unwrap(), "\"0.000000000001\"");
}

#[test]
fn usage_of_the_endpoints() {
    let chat = json!({"usage": {
        "prompt_tokens": 100, "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 2},
    }, "service_tier": "flex"});
    let usage = usage_of(Endpoint::Chat, &chat).unwrap();
    assert_eq!((usage.prompt, usage.completion, usage.cached, usage.reasoning), (100, 50, 40, 20));
    assert_eq!((usage.audio_prompt, usage.audio_completion, usage.service_tier.as_deref()), (5, 2, Some("flex")));

    let responses = json!({"usage": {
        "input_tokens": 10, "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 3},
    }});
    let usage = usage_of(Endpoint::Responses, &responses).unwrap();
    assert_eq!((usage.prompt, usage.completion, usage.cached, usage.reasoning), (10, 5, 4, 3));

    let embeddings = json!({"usage": {"prompt_tokens": 8, "total_tokens": 8}});
    let usage = usage_of(Endpoint::Embeddings, &embeddings).unwrap();
    assert_eq!((usage.prompt, usage.completion), (8, 0));
}

#[test]
fn usage_as_other_providers_write_it() {
    let read = |usage| usage_of(Endpoint::Chat, &json!({ "usage": usage }));
    let deepseek = read(json!({"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 6})).unwrap();
    assert_eq!(deepseek.cached, 6);
    let moonshot = read(json!({"prompt_tokens": 10, "completion_tokens": 1, "cached_tokens": 7})).unwrap();
    assert_eq!(moonshot.cached, 7);
    let gateway = read(json!({"prompt_tokens": 10, "completion_tokens": 1, "cache_creation_input_tokens": 3})).unwrap();
    assert_eq!(gateway.cache_write, 3);
    assert_eq!(read(json!({"prompt_tokens": 10.0, "completion_tokens": 1.0})).unwrap().prompt, 10);
    // Parts that are more than the whole, negative counts, texts, nulls.
    let odd = read(json!({"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 9})).unwrap();
    assert_eq!(odd.cached, 5);
    assert_eq!(read(json!({"prompt_tokens": -5, "completion_tokens": 1})).unwrap().prompt, 0);
    for nothing in [json!(null), json!({}), json!([]), json!("x"), json!({"prompt_tokens": "5"})] {
        assert_eq!(read(nothing.clone()), None, "{nothing}");
    }
}

fn usage_of(endpoint: Endpoint, body: &serde_json::Value) -> Option<Usage> {
    Usage::new(endpoint, &Counts::read(body.get("usage")?), body.get("service_tier").and_then(|tier| tier.as_str()))
}

fn charge(model: &str, tokens: u64, units: Option<i128>, stage: &'static str) -> Charge {
    let usage = Usage { prompt: tokens, completion: 1, ..Usage::default() };
    Charge { model: model.into(), tag: Some("t".into()), stage, usage, cost: units.map(Money::from_pico) }
}

fn call(model: &str, outcome: Outcome, tokens: u64, units: Option<i128>) -> Call {
    Call {
        endpoint: Endpoint::Chat,
        model_asked: "asked".into(),
        model_answered: Some(model.into()),
        tag: None,
        outcome,
        usage: Some(Usage { prompt: tokens, ..Usage::default() }),
        saved: units.map(Money::from_pico),
    }
}

#[test]
fn unknown_prices_are_listed_and_never_zero() {
    let ledger = Ledger::default();
    ledger.record_charge(charge("known", 1, Some(5), "upstream"));
    ledger.record_charge(charge("unknown", 1, None, "upstream"));
    ledger.record_call(call("unknown", Outcome::Hit, 1, None));
    let report = serde_json::to_value(ledger.report()).unwrap();
    assert_eq!(report["unknown_prices"], json!(["unknown"]));
    assert_eq!(report["by_model"]["unknown"]["spent"], json!(null));
    assert_eq!(report["by_model"]["unknown"]["saved"], json!(null));
    assert_eq!(report["by_model"]["known"]["spent"], json!("0.000000000005"));
    assert_eq!(report["spent"], json!("0.000000000005"));
}

#[test]
fn a_miss_saves_nothing_and_overhead_is_told_apart() {
    let ledger = Ledger::default();
    ledger.record_call(call("m", Outcome::Miss, 10, Some(10)));
    ledger.record_charge(charge("judge", 1, Some(3), "escalate"));
    let report = ledger.report();
    assert_eq!(report.saved, Money::ZERO);
    assert_eq!((report.overhead, report.spent), (Money::from_pico(3), Money::from_pico(3)));
}

#[test]
fn names_are_bounded() {
    let ledger = Ledger::default();
    for number in 0..3000 {
        ledger.record_charge(charge(&format!("model {number}"), 1, None, "upstream"));
    }
    let report = ledger.report();
    assert!(report.by_model.len() <= 1001 && report.unknown_prices.len() <= 1001);
    assert_eq!(report.by_model.values().map(|line| line.prompt_tokens).sum::<u64>(), 3000);
}

#[test]
fn reset_starts_again() {
    let ledger = Ledger::default();
    ledger.record_charge(charge("m", 1, Some(5), "upstream"));
    assert_eq!(ledger.take().spent, Money::from_pico(5));
    assert_eq!(ledger.report(), Report::default());
}

#[derive(Clone, Debug)]
enum Record {
    Charge(u8, u64, Option<i64>),
    Call(u8, u8, u64, Option<i64>),
}

fn record() -> impl Strategy<Value = Record> {
    let units = prop::option::of(0..1_000_000_000_i64);
    prop_oneof![
        (0..4_u8, 0..1000_u64, units.clone()).prop_map(|(model, tokens, units)| Record::Charge(model, tokens, units)),
        (0..4_u8, 0..5_u8, 0..1000_u64, units)
            .prop_map(|(m, outcome, tokens, units)| Record::Call(m, outcome, tokens, units)),
    ]
}

fn write(ledger: &Ledger, record: &Record) {
    let outcomes = [Outcome::Hit, Outcome::Joined, Outcome::Miss, Outcome::Bypass, Outcome::Error];
    match record {
        Record::Charge(model, tokens, units) => {
            ledger.record_charge(charge(&format!("m{model}"), *tokens, units.map(i128::from), "upstream"));
        }
        Record::Call(model, outcome, tokens, units) => {
            let outcome = outcomes[usize::from(*outcome)];
            ledger.record_call(call(&format!("m{model}"), outcome, *tokens, units.map(i128::from)));
        }
    }
}

proptest! {
    /// The charges add up to what the upstream billed, in every view of the bill, and two ledgers add up to one.
    #[test]
    fn sums_are_exact(records in prop::collection::vec(record(), 0..60), split in 0..60_usize) {
        let (whole, one, two) = (Ledger::default(), Ledger::default(), Ledger::default());
        let (mut spent, mut saved) = (0_i128, 0_i128);
        for (number, record) in records.iter().enumerate() {
            write(&whole, record);
            write(if number < split { &one } else { &two }, record);
            match record {
                Record::Charge(_, _, Some(units)) => spent += i128::from(*units),
                Record::Call(_, 0 | 1, _, Some(units)) => saved += i128::from(*units),
                _ => {}
            }
        }
        let report = whole.report();
        prop_assert_eq!(report.spent.pico(), spent);
        prop_assert_eq!(report.saved.pico(), saved);
        for lines in [&report.by_model, &report.by_tag, &report.by_stage] {
            prop_assert_eq!(lines.values().map(|line| line.spent.known).sum::<Money>(), report.spent);
            prop_assert_eq!(lines.values().map(|line| line.saved.known).sum::<Money>(), report.saved);
        }
        prop_assert_eq!(report.calls, report.hits + report.joined + report.misses + report.bypassed + report.errors);
        let mut sum = one.report();
        sum.add(&two.report());
        prop_assert_eq!(sum, report);
    }
}

fn draft_charge(units: i128) -> Charge {
    charge("m", 10, Some(units), UPSTREAM)
}

#[test]
fn a_draft_is_charged_once_and_in_one_line() {
    for (accepted, overhead) in [(Some(true), 0), (Some(false), 7), (None, 7)] {
        let ledger = Arc::new(Ledger::default());
        let draft = Draft::new(Books::new(Arc::clone(&ledger), None), "escalate");
        draft.record(draft_charge(7));
        assert_eq!(ledger.report().spent, Money::ZERO, "nobody knows yet what it is");
        if let Some(accepted) = accepted {
            assert_eq!(draft.settle(accepted), Some(Money::from_pico(7)));
            assert_eq!(draft.settle(accepted), Some(Money::ZERO));
        }
        // One that nobody judged was in vain.
        drop(draft);
        let report = ledger.report();
        assert_eq!((report.spent, report.overhead), (Money::from_pico(7), Money::from_pico(overhead)));
        let lines: Vec<_> = report.by_stage.keys().map(String::as_str).collect();
        assert_eq!(lines, if overhead == 0 { [UPSTREAM] } else { ["escalate"] });
    }
}

#[test]
fn what_comes_after_the_verdict_goes_where_the_draft_went() {
    let ledger = Arc::new(Ledger::default());
    let draft = Draft::new(Books::new(Arc::clone(&ledger), None), "escalate");
    draft.settle(false);
    draft.record(draft_charge(3));
    assert_eq!(ledger.report().overhead, Money::from_pico(3));
}

#[test]
fn a_saving_may_be_negative_and_is_an_estimate() {
    let ledger = Ledger::default();
    for pico in [10, -4] {
        let amount = Some(Money::from_pico(pico));
        ledger.record_saving(&Saving {
            stage: "route",
            model: "dear".into(),
            answered: Some("cheap".into()),
            tag: None,
            amount,
            tokens: 0,
        });
    }
    ledger.record_saving(&Saving {
        stage: "route",
        model: "nobody-knows".into(),
        answered: None,
        tag: None,
        amount: None,
        tokens: 0,
    });
    let report = ledger.report();
    assert_eq!((report.saved, report.estimated_saved), (Money::from_pico(6), Money::from_pico(6)));
    assert_eq!(report.by_stage["route"].calls, 3);
    // It stands with the model that answered.
    assert_eq!(report.by_model["cheap"].saved.known, Money::from_pico(6));
    assert!(report.by_model.contains_key("nobody-knows") && !report.by_model.contains_key("dear"));
    assert!(report.unknown_prices.contains("nobody-knows"));
}
