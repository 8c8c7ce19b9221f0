//! The one pass over an answer: what it finds is what a closer look finds, and what is odd it leaves to that.

use farthing::exchange::Endpoint;
use farthing::glance::Glance;
use serde_json::{Value, json};

fn chat(choice: Value) -> Value {
    json!({"model": "m", "service_tier": "flex", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
}

fn said(text: Value) -> Value {
    json!({"finish_reason": "stop", "message": {"role": "assistant", "content": text, "refusal": null}})
}

fn glance(endpoint: Endpoint, body: &Value) -> Option<Glance> {
    Glance::of(endpoint, body.to_string().as_bytes())
}

#[test]
fn a_text_that_ended_is_whole_and_has_its_bill() {
    let found = glance(Endpoint::Chat, &chat(said(json!("a \"quoted\" \u{1f600} text")))).unwrap();
    assert!(found.is_whole);
    assert_eq!(found.model.as_deref(), Some("m"));
    let usage = found.usage.unwrap();
    assert_eq!((usage.prompt, usage.completion, usage.service_tier.as_deref()), (5, 2, Some("flex")));
}

#[test]
fn whatever_is_not_plainly_whole_is_left_to_a_closer_look() {
    let mut error = chat(said(json!("x")));
    error["error"] = json!({"message": "no"});
    let mut refused = said(json!("x"));
    refused["message"]["refusal"] = json!("no");
    let mut called = said(json!("x"));
    called["message"]["tool_calls"] = json!([]);
    for body in [
        error,
        chat(refused),
        chat(called),
        chat(said(json!(""))),
        chat(said(json!(null))),
        chat(said(json!(["x"]))),
        chat(json!({"finish_reason": "length", "message": {"content": "x"}})),
        chat(json!({"message": {"content": "x"}})),
        json!({"choices": []}),
        json!({}),
    ] {
        assert!(!glance(Endpoint::Chat, &body).is_some_and(|found| found.is_whole), "{body}");
    }
    let item = |kind: &str, text: &str| json!({"type": "message", "content": [{"type": kind, "text": text}]});
    for (item, whole) in [
        (item("output_text", "x"), true),
        (item("output_text", ""), false),
        (item("refusal", "x"), false),
        (json!({"type": "web_search_call"}), false),
    ] {
        let body = json!({"status": "completed", "output": [item]});
        assert_eq!(glance(Endpoint::Responses, &body).unwrap().is_whole, whole, "{body}");
    }
    for (vector, whole) in [(json!([0.5]), true), (json!("AAAA"), true), (json!([]), false), (json!(""), false)] {
        let body = json!({"data": [{"embedding": [1]}, {"embedding": vector}]});
        assert_eq!(glance(Endpoint::Embeddings, &body).unwrap().is_whole, whole, "{body}");
    }
}

#[test]
fn odd_forms_are_not_judged() {
    for text in [
        "",
        "nothing",
        "[1]",
        r#"{"model": 5}"#,
        r#"{"model": "m", "model": "n"}"#,
        r#"{"model": "\u006d"}"#,
        r#"{"choices": {"a": 1}}"#,
        r#"{"choices": [null]}"#,
        r#"{"model": "m"} x"#,
    ] {
        assert_eq!(Glance::of(Endpoint::Chat, text.as_bytes()), None, "{text}");
    }
    // A bill that cannot be read does not hide the answer.
    for usage in [json!(null), json!([1, [2]]), json!("x"), json!({"prompt_tokens": {"a": [1]}})] {
        let mut body = chat(said(json!("x")));
        body["usage"] = usage;
        let found = glance(Endpoint::Chat, &body).unwrap();
        assert!(found.is_whole && found.usage.is_none(), "{body}");
    }
}
