//! What a request asks is read alike from both endpoints, and nothing odd in it is an error.

use std::sync::Arc;

use farthing::exchange::{Endpoint, Request};
use farthing::key::{Prefix, Scope};
use farthing::question::{Question, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(endpoint: Endpoint, body: &Value) -> Question {
    let scope = Scope { salt: [1; 32], name: None, ignored_headers: Vec::new() };
    let prefix = Prefix::new(&scope, b"", "http://h/v1", std::iter::empty());
    let url = Arc::from("http://h/v1/x");
    let request = Request::new(endpoint, url, http::HeaderMap::new(), body.to_string().into(), &prefix, None);
    Question::read(&request.unwrap())
}

#[test]
fn a_chat_and_a_response_that_ask_the_same_read_the_same() {
    let schema = json!({"type": "object"});
    let chat = read(
        Endpoint::Chat,
        &json!({
            "messages": [
                {"role": "system", "content": "be short"},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what is"},
                    {"type": "image_url", "image_url": {"url": "data:"}},
                    {"type": "text", "text": "this?"},
                ]},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": schema}}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            "max_tokens": 9,
        }),
    );
    let response = read(
        Endpoint::Responses,
        &json!({
            "instructions": "be short",
            "input": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": [
                    {"type": "input_text", "text": "what is"},
                    {"type": "input_image", "image_url": "data:"},
                    {"type": "input_text", "text": "this?"},
                ]},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": schema}, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "look"},
            "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}},
            "max_output_tokens": 9,
        }),
    );
    for question in [&chat, &response] {
        assert_eq!((question.system.as_str(), question.prompt.as_str()), ("be short", "what is\nthis?"));
        assert_eq!((question.turns, question.max_output, question.has_images), (2, Some(9), true));
        assert_eq!(question.tool_choice, ToolChoice::Named("look".to_owned()));
        assert_eq!(question.tools[0].parameters.as_ref(), Some(&schema));
        assert_eq!(question.schema.as_ref(), Some(&schema));
        assert!(question.wants_json && !question.has_audio && !question.has_files);
    }
    assert_eq!((chat.other_tools, response.other_tools), (0, 1));
    assert_eq!(read(Endpoint::Responses, &json!({"input": "hello"})).prompt, "hello");
}

proptest! {
    #[test]
    fn no_request_is_too_odd(text in "\\PC*", number in any::<i64>(), place in 0_usize..6) {
        let odd = [json!(text), json!(number), json!([number]), json!({"role": text}), json!(null), json!([[text]])];
        let odd = &odd[place];
        for endpoint in [Endpoint::Chat, Endpoint::Responses, Endpoint::Embeddings] {
            read(endpoint, &json!({
                "messages": odd, "input": [odd, {"role": "user", "content": odd}], "tools": [odd], "tool_choice": odd,
                "functions": odd, "response_format": odd, "text": odd, "include": odd, "n": odd, "max_tokens": odd,
            }));
        }
    }
}
