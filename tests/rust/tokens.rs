//! Tokens of texts and prompts, against OpenAI's own numbers.

use farthing::exchange::{Endpoint, Request};
use farthing::key::{Prefix, Scope};
use farthing::tokens::prompt::{chat_tokens, prompt_of};
use farthing::tokens::{TokenCount, Vocabulary};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

fn exact(tokens: u64) -> TokenCount {
    TokenCount { tokens, estimated: false }
}

#[test]
fn vocabularies_of_models() {
    let cases = [
        ("gpt-4o", Some(Vocabulary::O200k)),
        ("gpt-4o-2024-08-06", Some(Vocabulary::O200k)),
        ("ft:gpt-4o-mini:acme::abc", Some(Vocabulary::O200k)),
        ("openai/gpt-4.1-mini", Some(Vocabulary::O200k)),
        ("gpt-5.1", Some(Vocabulary::O200k)),
        ("o1", Some(Vocabulary::O200k)),
        ("o3-mini-2025-01-31", Some(Vocabulary::O200k)),
        ("o4-mini", Some(Vocabulary::O200k)),
        ("GPT-4", Some(Vocabulary::Cl100k)),
        ("gpt-4-turbo-2024-04-09", Some(Vocabulary::Cl100k)),
        ("gpt-3.5-turbo-0125", Some(Vocabulary::Cl100k)),
        ("gpt-35-turbo", Some(Vocabulary::Cl100k)),
        ("ft:gpt-3.5-turbo:acme::abc", Some(Vocabulary::Cl100k)),
        ("text-embedding-3-small", Some(Vocabulary::Cl100k)),
        ("text-embedding-ada-002", Some(Vocabulary::Cl100k)),
        ("o10", None),
        ("gpt-50", None),
        ("claude-opus-4", None),
        ("llama-3.1-8b", None),
        ("", None),
    ];
    for (model, known) in cases {
        assert_eq!(Vocabulary::of_model(model), known, "{model}");
    }
}

/// The messages of OpenAI's cookbook, with the tokens that its API billed.
#[test]
fn messages_as_they_are_billed() {
    let messages = json!([
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]);
    assert_eq!(chat_tokens("gpt-3.5-turbo", &messages, None), exact(129));
    assert_eq!(chat_tokens("gpt-4-0613", &messages, None), exact(129));
    assert_eq!(chat_tokens("gpt-4o", &messages, None), exact(124));
    assert_eq!(chat_tokens("gpt-4o-mini", &messages, None), exact(124));
    assert!(chat_tokens("llama-3", &messages, None).estimated);
}

#[test]
fn tools_as_they_are_billed() {
    let messages = json!([
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ]);
    let tools = json!([{"type": "function", "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {"type": "object", "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
        }, "required": ["location"]},
    }}]);
    assert_eq!(chat_tokens("gpt-4", &messages, Some(&tools)), exact(105));
    assert_eq!(chat_tokens("gpt-4o", &messages, Some(&tools)), exact(101));
}

fn request(endpoint: Endpoint, body: &Value) -> Request {
    let scope = Scope { salt: [0; 32], name: None, ignored_headers: Vec::new() };
    let prefix = Prefix::new(&scope, b"", "http://x/v1", std::iter::empty());
    let body = serde_json::to_vec(body).unwrap();
    Request::new(endpoint, "http://x/v1".into(), HeaderMap::new(), body.into(), &prefix, None).unwrap()
}

#[test]
fn what_nobody_can_count_has_no_bound() {
    let user = |content: Value| json!({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]});
    let bounded = [
        user(json!("hello")),
        user(json!([{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "data:..."}}])),
        json!({"model": "llama-3", "messages": [{"role": "user", "content": "hello"}]}),
    ];
    for body in bounded {
        let prompt = prompt_of(&request(Endpoint::Chat, &body));
        assert!(prompt.most.unwrap() >= prompt.count.tokens, "{body}");
    }
    let unbounded = [
        user(json!([{"type": "input_audio", "input_audio": {"data": ""}}])),
        user(json!([{"type": "file", "file": {"file_id": "f"}}])),
        user(json!([{"type": "video_url", "video_url": {"url": "https://example.com/x.mp4"}}])),
        json!({"model": "gpt-4o", "messages": [], "web_search_options": {}}),
        json!({"model": "gpt-4o", "messages": [], "data_sources": [{"type": "azure_search"}]}),
    ];
    for body in unbounded {
        assert!(prompt_of(&request(Endpoint::Chat, &body)).most.is_err(), "{body}");
    }
    let stored = json!({"model": "gpt-4o", "input": "hello", "previous_response_id": "r"});
    assert!(prompt_of(&request(Endpoint::Responses, &stored)).most.is_err());
    let search = json!({"model": "gpt-4o", "input": "hello", "tools": [{"type": "web_search"}]});
    assert!(prompt_of(&request(Endpoint::Responses, &search)).most.is_err());
    let plain = json!({"model": "gpt-4o", "input": "hello"});
    assert_eq!(prompt_of(&request(Endpoint::Responses, &plain)).count, exact(8));
    let embeddings = json!({"model": "text-embedding-3-small", "input": ["hello", "hello world", [1, 2, 3]]});
    assert_eq!(prompt_of(&request(Endpoint::Embeddings, &embeddings)).count, exact(6));
}

/// Long runs are what a tokenizer takes longest for: the rest of one is estimated, and close to what it is.
#[test]
fn long_runs_are_cut() {
    let count = Vocabulary::O200k.count(&"a".repeat(1 << 20));
    assert!(count.estimated);
    assert!((130_000..=132_000).contains(&count.tokens), "{count:?}");
}

/// The places where a long text is cut do not change its tokens.
#[test]
fn pieces_have_the_tokens_of_the_whole() {
    let alphabet = [
        "the quick brown fox. ",
        "it's 12,345 a/b\n\n",
        "漢字かな交じり文。改行\n",
        "  indented\t{x: 1}\r\n",
        "naïve résumé, ",
        "안녕하세요, ",
    ];
    for vocabulary in [Vocabulary::Cl100k, Vocabulary::O200k] {
        let mut text = String::new();
        let mut seed = 7_usize;
        while text.len() < 200_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(alphabet[(seed >> 33) % alphabet.len()]);
        }
        assert_eq!(vocabulary.count(&text), exact(vocabulary.round_trip(&text).0 as u64));
    }
}

proptest! {
    #[test]
    fn texts_come_back(text in "\\PC{0,200}") {
        for vocabulary in [Vocabulary::Cl100k, Vocabulary::O200k] {
            let (tokens, back) = vocabulary.round_trip(&text);
            prop_assert_eq!(&*back, &text);
            prop_assert_eq!(vocabulary.count(&text), exact(tokens as u64));
            prop_assert!(tokens <= text.len());
        }
    }

    /// Two texts together have hardly more tokens than each by itself: the words at the seam may fall apart.
    #[test]
    fn together_they_are_not_much_more(one in "[a-zA-Z ,.0-9é漢\n]{0,80}", two in "[a-zA-Z ,.0-9é漢\n]{0,80}") {
        let count = |text: &str| Vocabulary::O200k.count(text).tokens;
        let whole = count(&format!("{one}{two}"));
        prop_assert!(whole <= count(&one) + count(&two) + 4);
        prop_assert!(whole + 80 >= count(&one) + count(&two));
    }
}
