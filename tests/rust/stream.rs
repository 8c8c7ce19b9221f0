//! Streams: bytes are cut right wherever they are split, and a body and its stream are the same answer.

use farthing::stream::sse::{Decoder, Event};
use farthing::stream::{Assembler, Kind, is_usage_only_chunk, replay, replay_events};
use proptest::prelude::*;
use serde_json::{Value, json};

fn decode(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut events: Vec<Event> = pieces.iter().flat_map(|piece| decoder.push(piece)).collect();
    events.extend(decoder.finish());
    events
}

fn shown(events: &[Event]) -> Vec<(Option<String>, String)> {
    events
        .iter()
        .filter(|event| event.dispatched)
        .map(|event| (event.event.as_deref().map(str::to_owned), event.data.to_string()))
        .collect()
}

fn assemble(kind: Kind, bytes: &[u8]) -> Option<Value> {
    let mut assembler = Assembler::new(kind);
    decode(&[bytes]).iter().for_each(|event| assembler.push(event));
    assembler.finish()
}

#[test]
fn the_format() {
    let text = b": comment\n\nevent: a\ndata: 1\ndata:2\nid: x\n\ndata\n\n\n\nretry: 5\n\ndata:  two\r\n\r\nevent: b\rdata: 3\r\rdata: cut";
    let seen = shown(&decode(&[text]));
    let expected = [(Some("a"), "1\n2"), (None, ""), (None, " two"), (Some("b"), "3")];
    assert_eq!(seen, expected.map(|(name, data)| (name.map(str::to_owned), data.to_owned())));
}

#[test]
fn bytes_that_are_no_text_are_no_answer() {
    let bytes = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    assert_eq!(assemble(Kind::Chat, bytes), None);
}

proptest! {
    #[test]
    fn events_do_not_depend_on_the_split(
        text in "(data: [a-z]{0,4}|event: [a-z]{0,2}|:[a-z]{0,3}|[a-z]{1,3}|\\PC{0,3}|\n|\r|\r\n){0,24}",
        cuts in prop::collection::vec(0..200_usize, 0..12),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (whole, split) = (decode(&[bytes]), decode(&pieces));
        prop_assert_eq!(shown(&whole), shown(&split));
        for events in [whole, split] {
            prop_assert_eq!(events.iter().flat_map(|event| event.raw.to_vec()).collect::<Vec<u8>>(), bytes);
        }
    }

    #[test]
    fn a_completion_is_its_stream(body in completion(), usage: bool) {
        let bytes = replay(Kind::Chat, &body, usage);
        let mut expected = body.clone();
        if !usage {
            expected.as_object_mut().unwrap().remove("usage");
        }
        prop_assert_eq!(assemble(Kind::Chat, &bytes), Some(expected));
    }

    #[test]
    fn a_response_is_its_stream(output in prop::collection::vec(item(), 0..4), incomplete: bool) {
        let status = if incomplete { "incomplete" } else { "completed" };
        let body = json!({"id": "r", "object": "response", "status": status, "output": output, "usage": {"input_tokens": 1}});
        prop_assert_eq!(assemble(Kind::Responses, &replay(Kind::Responses, &body, false)), Some(body.clone()));
        let events = replay_events(Kind::Responses, &body, false);
        for (number, event) in events.iter().enumerate() {
            prop_assert_eq!(&event["sequence_number"], &json!(number));
        }
    }

    /// What arrives is not always what the description of the API says.
    #[test]
    fn nothing_panics(chunks in prop::collection::vec(any_json(3), 0..6), body in any_json(4)) {
        for kind in [Kind::Chat, Kind::Responses] {
            let mut assembler = Assembler::new(kind);
            for chunk in &chunks {
                assembler.push(&Event::encode(None, &chunk.to_string()));
            }
            assembler.push(&Event::encode(None, "[DONE]"));
            let _ = (assembler.usage(), assembler.service_tier(), assembler.text_len(), assembler.finish());
            let _ = replay(kind, &body, true);
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,8}"
}

fn completion() -> impl Strategy<Value = Value> {
    let call = (text(), text()).prop_map(|(name, arguments)| {
        json!({"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let message = (
        prop_oneof![Just(Value::Null), text().prop_map(Value::from)],
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(prop::collection::vec(call, 0..3)),
    )
        .prop_map(|(content, reasoning, refusal, calls)| {
            let mut message = json!({"role": "assistant", "content": content, "refusal": refusal, "annotations": []});
            if let Some(reasoning) = reasoning {
                message["reasoning_content"] = reasoning.into();
            }
            if let Some(calls) = calls {
                message["tool_calls"] = calls.into();
            }
            message
        });
    let logprobs = prop_oneof![
        Just(Value::Null),
        Just(json!({"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": null}))
    ];
    let choice = (message, logprobs, "(stop|length|tool_calls)")
        .prop_map(|(message, logprobs, finish)| json!({"message": message, "logprobs": logprobs, "finish_reason": finish, "stop_reason": null}));
    prop::collection::vec(choice, 1..3).prop_map(|mut choices| {
        for (index, choice) in choices.iter_mut().enumerate() {
            choice["index"] = index.into();
        }
        json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
            "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "service_tier": "default", "x_unknown": {"a": [1]},
        })
    })
}

fn item() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(|text| json!({"type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": [{"type": "x"}], "logprobs": []}]})),
        text().prop_map(
            |text| json!({"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": text}, "odd"]})
        ),
        text().prop_map(
            |text| json!({"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": text})
        ),
        text().prop_map(
            |text| json!({"type": "custom_tool_call", "id": "f", "call_id": "c", "name": "f", "input": text})
        ),
        text().prop_map(
            |text| json!({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": text}]})
        ),
        Just(json!({"type": "of tomorrow"})),
        Just(json!(null)),
    ]
}

/// JSON around the names that the code looks for.
fn any_json(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(|a|message|function_call|reasoning|response.completed)".prop_map(Value::from),
    ];
    let names = "(choices|delta|index|message|content|tool_calls|function|arguments|logprobs|usage|type|response|output|summary|text|id|status|error|finish_reason)";
    leaf.prop_recursive(depth, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn a_stream_without_its_end_is_no_answer() {
    let body = json!({"id": "c", "object": "chat.completion", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]});
    let bytes = replay(Kind::Chat, &body, false);
    assert!(assemble(Kind::Chat, &bytes).is_some());
    assert_eq!(assemble(Kind::Chat, &bytes[..bytes.len() - 2]), None);
    let response = json!({"status": "completed", "output": []});
    let bytes = replay(Kind::Responses, &response, false);
    assert_eq!(assemble(Kind::Responses, &bytes[..bytes.len() / 2]), None);
}

#[test]
fn tool_calls_in_pieces() {
    let delta = |delta: Value| json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let call = |index: u32, more: Value| {
        let mut call = json!({"index": index});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        delta(json!({ "tool_calls": [call] }))
    };
    let mut assembler = Assembler::new(Kind::Chat);
    for chunk in [
        delta(json!({"role": "assistant", "content": null})),
        call(0, json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}})),
        call(1, json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}})),
        call(0, json!({"function": {"arguments": "{\"x\""}})),
        // Some servers repeat who the call is for.
        call(0, json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ":1}"}})),
        call(1, json!({"function": {"arguments": "}"}})),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 3}}),
    ] {
        assembler.push(&Event::encode(None, &chunk.to_string()));
    }
    assert_eq!(assembler.usage(), Some(json!({"prompt_tokens": 3})));
    assembler.push(&Event::encode(None, "[DONE]"));
    let body = assembler.finish().unwrap();
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(
        message["tool_calls"],
        json!([
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ])
    );
}

#[test]
fn the_usage_chunk() {
    assert!(is_usage_only_chunk(&json!({"choices": [], "usage": {"prompt_tokens": 1}})));
    assert!(!is_usage_only_chunk(&json!({"choices": [{}], "usage": {"prompt_tokens": 1}})));
    assert!(!is_usage_only_chunk(&json!({"choices": [], "usage": null})));
}

/// A chunk with a little more text is read in a way of its own; one with a field that nobody knows is not.
fn text_chunk(index: u64, text: &str, more: &serde_json::Value, odd: bool) -> String {
    let mut choice = json!({"index": index, "delta": {"content": text}, "finish_reason": null});
    for (name, value) in more.as_object().unwrap() {
        choice[name] = value.clone();
    }
    if odd {
        choice["delta"]["x_odd"] = json!(null);
    }
    let mut chunk = json!({"id": "c", "model": "m", "usage": null, "choices": [choice]});
    if text.len() > 3 {
        chunk["obfuscation"] = json!(text);
    }
    chunk.to_string()
}

fn assembled(chunks: &[String]) -> Option<serde_json::Value> {
    let mut assembler = Assembler::new(Kind::Chat);
    for data in chunks.iter().map(String::as_str).chain(["[DONE]"]) {
        assembler.push(&Event::encode(None, data));
    }
    assembler.finish()
}

proptest! {
    #[test]
    fn the_short_way_for_a_text_comes_to_the_same(
        pieces in prop::collection::vec((0..3_u64, ".{0,6}", 0..4_u8), 1..20)
    ) {
        let chunks = |odd: bool| -> Vec<String> {
            pieces.iter().map(|(index, text, kind)| {
                let more = match kind {
                    0 => json!({"logprobs": null}),
                    1 => json!({"logprobs": {"content": [{"token": text}]}}),
                    2 => json!({"finish_reason": "stop"}),
                    _ => json!({}),
                };
                text_chunk(*index, text, &more, odd)
            }).collect()
        };
        let mut slow = assembled(&chunks(true)).unwrap();
        for choice in slow["choices"].as_array_mut().unwrap() {
            choice["message"].as_object_mut().unwrap().remove("x_odd");
        }
        prop_assert_eq!(assembled(&chunks(false)).unwrap(), slow);
    }
}

#[test]
fn a_chunk_that_says_something_twice_is_no_part_of_an_answer() {
    let good = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    let twice = r#"{"id":"c","id":"d","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    let torn = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]} x"#;
    assert!(assembled(&[good.to_owned(), good.to_owned()]).is_some());
    for bad in [twice, torn, "[]", "5", ""] {
        assert_eq!(assembled(&[good.to_owned(), bad.to_owned()]), None, "{bad}");
    }
}
