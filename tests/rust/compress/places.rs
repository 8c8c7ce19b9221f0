//! Which texts of a request may be shortened, and what becomes of the rest.

use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use farthing::compress::order::{blocks, gain};
use farthing::compress::places::{Messages, Part, Place};
use farthing::exchange::{Endpoint, Request};

fn request(endpoint: Endpoint, body: &Value) -> Request {
    Request::unkeyed(endpoint, "http://localhost/v1".into(), Arc::new(HeaderMap::new()), body.to_string().into())
}

fn chat(messages: Value) -> (Request, Messages) {
    let request = request(Endpoint::Chat, &json!({"model": "m", "messages": messages, "x_new": 1.0}));
    let messages = Messages::read(&request).unwrap();
    (request, messages)
}

fn texts(messages: &Messages, parts: &[Part], turns: usize) -> Vec<(usize, String)> {
    let text = |place: &Place| messages.text(place.message, &place.path).unwrap()[place.range.clone()].to_owned();
    messages.places(parts, turns).iter().map(|place| (place.message, text(place))).collect()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn documents_are_the_innermost_elements() {
    let marked = "<documents><document id=\"1\">one</document> and <document>two</document></documents> <doc>x</doc>";
    let (_, messages) = chat(json!([user(marked), user("?")]));
    let found = texts(&messages, &[Part::Documents], 1);
    assert_eq!(found, [(0, "one".to_owned()), (0, "two".to_owned())]);
    for odd in [
        "<document>",
        "<document>a<document",
        "</document>a",
        "<document a=\"",
        "a < b",
        "<documentary>x</documentary>",
    ] {
        let (_, messages) = chat(json!([user(odd), user("?")]));
        assert_eq!(texts(&messages, &[Part::Documents], 1), [], "{odd}");
    }
}

#[test]
fn what_a_text_says_of_itself_is_no_document() {
    let of = |text: &str| texts(&chat(json!([user(text), user("q")])).1, &[Part::Documents], 1);
    assert_eq!(of("<document title='a>b'>one</document>"), [(0, "one".to_owned())]);
    assert_eq!(of("<document title=Bob's>one</document>"), [(0, "one".to_owned())]);
    // Something quadratic would take hours.
    of(&"<document '".repeat(100_000));
    let cited = json!({"role": "assistant", "content": [{"type": "output_text", "text": "It is so [1].", "annotations": [{"start_index": 9}]}]});
    let (_, messages) = chat(json!([cited, user("a"), user("b")]));
    assert_eq!(texts(&messages, &[Part::History], 1), [(1, "a".to_owned())]);
    let result = json!({"type": "custom_tool_call_output", "call_id": "c", "output": "found"});
    let request = request(Endpoint::Responses, &json!({"input": [result, user("q")]}));
    assert_eq!(texts(&Messages::read(&request).unwrap(), &[Part::Tools], 1), [(0, "found".to_owned())]);
}

#[test]
fn a_mark_that_is_shown_as_code_is_no_document() {
    let of = |text: &str| texts(&chat(json!([user(text), user("q")])).1, &[Part::Documents], 1);
    let shown = "Why is this wrong?\n```xml\n<document>one</document>\n```\n";
    assert_eq!(of(shown), []);
    assert_eq!(of("Is it `<document>one</document>`?"), []);
    assert_eq!(of("Is it `use <document> and </document> here`?"), []);
    assert_eq!(of("So `x`<document>one</document>"), [(0, "one".to_owned())]);
    let both = format!("{shown}<document>two\n```\nopen</document>\n<document>three</document>");
    assert_eq!(of(&both), [(0, "two\n```\nopen".to_owned()), (0, "three".to_owned())]);
    // Something quadratic would take hours.
    of(&"`<document>".repeat(200_000));
    of(&"<document `".repeat(200_000));
    of(&"``<document>`".repeat(200_000));
}

#[test]
fn a_text_is_in_one_place_only() {
    let marked = format!("<document>{}</document>", "word ".repeat(9));
    let all = [Part::System, Part::History, Part::Tools, Part::Documents, Part::LastUser];
    let (_, messages) = chat(json!([
        {"role": "system", "content": marked},
        user(&marked),
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": marked}]},
        user(&format!("{marked} What?")),
    ]));
    let places = messages.places(&all, 1);
    let parts: Vec<(usize, Part)> = places.iter().map(|place| (place.message, place.part)).collect();
    assert_eq!(parts, [(0, Part::System), (1, Part::History), (2, Part::Tools), (3, Part::Documents)]);
}

#[test]
fn what_has_no_messages_here_is_left_alone() {
    for body in [json!({"model": "m"}), json!({"messages": "x"}), json!({"messages": [1]})] {
        let read = Messages::read(&request(Endpoint::Chat, &body));
        assert!(read.is_none_or(|messages| messages.places(&[Part::LastUser, Part::History], 1).is_empty()));
    }
    for field in ["previous_response_id", "conversation"] {
        assert!(Messages::read(&request(Endpoint::Responses, &json!({"input": "x", field: "y"}))).is_none());
    }
    assert!(Messages::read(&request(Endpoint::Embeddings, &json!({"input": "x"}))).is_none());
}

#[test]
fn the_question_is_the_last_message_without_its_documents() {
    let (_, messages) = chat(json!([user("first"), user("<context>a\n\nb</context>\nWho?")]));
    assert_eq!(messages.question().trim(), "<context></context>\nWho?");
    let long = format!("{}\n\nWho?", "word ".repeat(900));
    let (_, messages) = chat(json!([user(&long)]));
    assert_eq!(messages.question().trim(), "Who?");
}

proptest! {
    /// Whatever is put in the place of texts, it is there, and everything else is as it was.
    #[test]
    fn other_texts_in_their_places(
        before in proptest::collection::vec(("[ -~é\u{1F600}\n\"\\\\<>]{0,40}", "(document|context)"), 1..4),
        shorter in "[ -~é\u{1F600}\n\"\\\\]{0,10}",
    ) {
        let text: String = before.iter().map(|(text, name)| format!("{}<{name}>{text}</{name}>", text.len())).collect();
        let message = json!({"x": [1.5, null, {"b": 1, "a": 2}], "role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "u"}}, {"text": text, "type": "text", "cache": {"z": 1, "y": 2}},
        ]});
        let (request, messages) = chat(json!([message, user("?")]));
        let places = messages.places(&[Part::Documents], 1);
        let put: Vec<(&Place, &str)> = places.iter().map(|place| (place, shorter.as_str())).collect();
        let changed = messages.rewritten(0, &put).map(Into::into);
        let Some(changed): Option<Arc<serde_json::value::RawValue>> = changed else { panic!("not written") };
        let sent = messages.put(&request, &[Some(changed), None]).unwrap();
        let mut expected = text.clone();
        for place in places.iter().rev() {
            expected.replace_range(place.range.clone(), &shorter);
        }
        let mut whole: Value = serde_json::from_slice(request.body()).unwrap();
        if !places.is_empty() {
            whole["messages"][0]["content"][1]["text"] = expected.into();
        }
        prop_assert_eq!(serde_json::from_slice::<Value>(sent.body()).unwrap(), whole);
        prop_assert_eq!(sent.key(), request.key());
    }
}

#[test]
fn another_order_gains_what_stands_behind_a_change() {
    let rules = format!("{} rules", "Be brief and kind to everybody who asks. ".repeat(200));
    let prompts = |date: &str| vec![json!({"role": "system", "content": format!("{date}\n\n{rules}")}), user("Hello?")];
    let count = |text: &str| text.len() as u64 / 4;
    let (first, second) = (prompts("Monday"), prompts("Tuesday"));
    let known: Vec<_> = blocks(&first, b"a").iter().flat_map(|block| [block.own, block.chain]).collect();
    let is_known = |hash: &[u8; 16]| known.contains(hash);
    assert_eq!(gain(&blocks(&first, b"a"), is_known, count), 0, "it is the beginning that is known");
    let gained = gain(&blocks(&second, b"a"), is_known, count);
    assert!(gained >= rules.len() as u64 / 4, "{gained}");
    assert_eq!(gain(&blocks(&second, b"b"), is_known, count), 0, "somebody else's");
    // Too short for the provider's cache in any order.
    let few = |text: &str| text.len() as u64 / 40;
    assert_eq!(gain(&blocks(&second, b"a"), is_known, few), 0);
}
