//! What is decided before a call: gates, looks, rules, a classifier's question and reply, and conversations that stay.

use std::sync::Arc;

use farthing::exchange::{Endpoint, Request};
use farthing::key::{Prefix, Scope};
use farthing::question::Question;
use farthing::route::affinity::{Affinity, Mode, Prices, scope, settle, stay_is_cheaper};
use farthing::route::classify::Classifier;
use farthing::route::gates::{Capabilities, Needs, rules_out};
use farthing::route::look::look;
use farthing::route::rules::{Rules, RulesConfig};
use farthing::tokens::Vocabulary;
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "route/prompts.rs"]
mod prompts;

fn request(body: &Value) -> Request {
    let scope = Scope { salt: [1; 32], name: None, ignored_headers: Vec::new() };
    let prefix = Prefix::new(&scope, b"", "http://h/v1", std::iter::empty());
    let body = body.to_string().into();
    Request::new(Endpoint::Chat, Arc::from("http://h/v1/x"), http::HeaderMap::new(), body, &prefix, None).unwrap()
}

fn ask(messages: Value) -> Question {
    Question::read(&request(&json!({"model": "auto", "messages": messages})))
}

fn prompt(text: &str) -> Question {
    ask(json!([{"role": "user", "content": text}]))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn four() -> Vec<String> {
    names(&["trivial", "simple", "code", "reasoning"])
}

#[test]
fn a_tier_that_cannot_serve_is_ruled_out() {
    let capabilities = |json: Value| serde_json::from_value::<Capabilities>(json).unwrap();
    let silent = Capabilities::default();
    for name in ["images", "audio", "files"] {
        let mut needs = Needs::default();
        match name {
            "images" => needs.images = true,
            "audio" => needs.audio = true,
            _ => needs.files = true,
        }
        assert!(rules_out(&needs, &silent, false).unwrap().contains(name));
        assert_eq!(rules_out(&needs, &silent, true), None);
        assert_eq!(rules_out(&needs, &capabilities(json!({"can": [name]})), false), None);
        assert!(rules_out(&needs, &capabilities(json!({"cannot": [name]})), true).is_some());
    }
    let needs = Needs { tools: true, json_schema: true, ..Needs::default() };
    assert_eq!(rules_out(&needs, &silent, false), None);
    assert!(rules_out(&needs, &capabilities(json!({"cannot": ["json_schema"]})), false).is_some());
    let needs = Needs { context: 101, ..Needs::default() };
    assert!(rules_out(&needs, &capabilities(json!({"context": 100})), true).is_some());
    assert_eq!(rules_out(&needs, &capabilities(json!({"context": 101})), false), None);
    assert!(capabilities(json!({"can": ["vision"]})).check().unwrap_err().contains("hint"));
    assert!(capabilities(json!({"can": ["tools"], "cannot": ["tools"]})).check().is_err());
}

#[test]
fn tokens_are_counted_only_where_a_limit_asks() {
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 50});
    let request = request(&body);
    let question = Question::read(&request);
    assert_eq!(Needs::of(&request, &question, false).context, 0);
    let context = Needs::of(&request, &question, true).context;
    assert!((55..70).contains(&context), "{context}");
}

#[test]
fn a_look_says_language_and_counts_but_no_text() {
    let languages = [
        ("What is the capital of France and who is the mayor?", "en"),
        ("Was ist die Hauptstadt von Frankreich und wer ist der Chef?", "de"),
        ("Какой город является столицей Франции?", "cyrillic"),
        ("法国的首都是哪里？", "han"),
        ("1 + 1", ""),
        ("", ""),
    ];
    for (text, language) in languages {
        assert_eq!(look(&prompt(text)).language, language, "{text}");
    }
    let seen = look(&prompt("用Python写一个函数 ```secretword```")).to_json();
    assert_eq!((&seen["code_names"], &seen["code_fences"], &seen["turns"]), (&json!(1), &json!(2), &json!(1)));
    assert!(!seen.to_string().contains("secretword"));
}

fn right(rows: &[(&str, &str)]) -> usize {
    let rules = Rules::new(&RulesConfig::default(), &four()).unwrap();
    let is_right = |(text, tier): &&(&str, &str)| four()[rules.choose(&look(&prompt(text))).tier] == *tier;
    for row in rows.iter().filter(|row| !is_right(row)) {
        let verdict = rules.choose(&look(&prompt(row.0)));
        println!("{} for {}: {:?} {}", four()[verdict.tier], row.1, verdict.reasons, row.0);
    }
    rows.iter().filter(is_right).count()
}

#[test]
fn rules_sort_most_prompts() {
    // Conditions were set with the first twenty in view; the others are the figure.
    let (seen, unseen) = (right(&prompts::SEEN), right(&prompts::UNSEEN));
    println!("right of 20: {seen} of those in view, {unseen} of the others");
    assert!(seen >= 14 && unseen >= 10, "{seen} {unseen}");
}

fn config(json: Value) -> RulesConfig {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_policy_replaces_the_rules() {
    let tiers = names(&["small", "large"]);
    let when = json!({"when": [{"tier": "large", "code_fences": ">= 2", "language": "!= de"}, {"tier": "small", "words": "< 3"}]});
    let rules = Rules::new(&config(when), &tiers).unwrap();
    let verdict = rules.choose(&look(&prompt("```x```")));
    assert_eq!((verdict.tier, verdict.confidence), (1, 1.0));
    assert!(verdict.reasons.contains(&"code_fences 2".to_owned()));
    assert_eq!(rules.choose(&look(&prompt("hi"))).tier, 0);
    // The well-known names are only names where the policy has conditions.
    let rules = Rules::new(&config(json!({"when": [{"tier": "simple", "words": ">= 1"}]})), &four()).unwrap();
    assert_eq!(rules.choose(&look(&prompt("Write a Python function"))).tier, 1);
    for (thresholds, tier) in [(json!([0.0]), 1), (json!([1.0]), 0)] {
        let rules = Rules::new(&config(json!({"thresholds": thresholds})), &tiers).unwrap();
        assert_eq!(rules.choose(&look(&prompt("hello"))).tier, tier);
    }
}

#[test]
fn a_wrong_policy_is_told_what_is_wrong() {
    let tiers = names(&["small", "large"]);
    let wrong = [
        json!({"weights": {"colour": 1.0}}),
        json!({"thresholds": [0.2, 0.5]}),
        json!({"thresholds": [1.5]}),
        json!({"when": [{"tier": "huge", "words": "< 3"}]}),
        json!({"when": [{"tier": "large"}]}),
        json!({"when": [{"tier": "large", "wrods": "< 3"}]}),
        json!({"when": [{"tier": "large", "words": "about 3"}]}),
        json!({"when": [{"tier": "large", "words": "< -3"}]}),
        json!({"when": [{"tier": "large", "words": [3]}]}),
    ];
    for policy in wrong {
        assert!(Rules::new(&config(policy.clone()), &tiers).unwrap_err().contains("hint"), "{policy}");
    }
    assert!(Rules::new(&config(json!({"thresholds": [0.6, 0.5]})), &names(&["a", "b", "c"])).is_err());
    assert!(Rules::new(&RulesConfig::default(), &[]).is_err());
}

fn talk(texts: &[&str]) -> Question {
    let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
    ask(texts.iter().enumerate().map(|(at, text)| json!({"role": role(at), "content": text})).collect())
}

#[test]
fn a_conversation_that_grows_finds_its_tier() {
    let affinity = Affinity::default();
    let mine = scope("auto", b"tenant");
    affinity.remember(&talk(&["a"]), &mine, 0);
    affinity.remember(&talk(&["a", "b", "c"]), &mine, 2);
    let found = affinity.find(&talk(&["a", "b", "c", "d", "e"]), &mine).unwrap();
    assert_eq!((found.tier, found.messages), (2, 3));
    assert_eq!(affinity.find(&talk(&["a", "x", "c"]), &mine).unwrap().messages, 1);
    assert_eq!(affinity.find(&talk(&["A", "b", "c"]), &mine), None);
    assert_eq!(affinity.find(&talk(&["a ", "b", "c"]), &mine), None);
    assert_eq!(affinity.find(&talk(&["a"]), &scope("auto", b"other")), None);
    assert_eq!(affinity.find(&talk(&[]), &mine), None);
    affinity.remember_response("resp_1", &mine, 1);
    assert_eq!(affinity.find_response("resp_1", &mine), Some(1));
    assert_eq!(affinity.find_response("resp_1", b"other"), None);
}

#[test]
fn what_says_the_same_is_the_same_message() {
    let affinity = Affinity::default();
    affinity.remember(&ask(json!([{"role": "user", "content": "a"}])), b"", 1);
    let same = [
        json!({"content": "a", "role": "user", "name": null}),
        json!({"content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "role": "user"}),
    ];
    for message in same {
        assert!(affinity.find(&ask(json!([message])), b"").is_some(), "{message}");
    }
    let body = json!({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f"}}]});
    assert_eq!(affinity.find(&Question::read(&request(&body)), b""), None);
}

#[test]
fn a_mode_settles_between_two_tiers() {
    let never = |_, _| panic!("not asked");
    assert_eq!(settle(Mode::Stay, None, 1, never), (1, None));
    assert_eq!(settle(Mode::Stay, Some(0), 1, never).0, 0);
    assert_eq!(settle(Mode::Rise, Some(0), 1, never).0, 1);
    assert_eq!(settle(Mode::Rise, Some(1), 0, never).0, 1);
    assert_eq!(settle(Mode::Off, Some(0), 1, never), (1, None));
    assert_eq!(settle(Mode::Off, Some(1), 0, |_, _| false), (0, None));
    assert_eq!(settle(Mode::Off, Some(1), 0, |_, _| true).0, 1);
    let (dear, cheap) =
        (Prices { input: 100, cached_input: 10, output: 400 }, Prices { input: 20, cached_input: 2, output: 80 });
    // Much that is cached and little that is new: the dear one costs 10 a token of it, the cheap one 20.
    assert!(stay_is_cheaper(10_000, 10, 10, dear, cheap));
    assert!(!stay_is_cheaper(0, 10, 10, dear, cheap));
    assert!(stay_is_cheaper(u64::MAX, u64::MAX, u64::MAX, dear, dear));
}

fn classifier(format: &str, model: &str) -> Classifier {
    serde_json::from_value(json!({
        "model": model, "format": format, "labels": {"code": "programs"}, "examples": [["hi", "trivial"]],
    }))
    .unwrap()
}

#[test]
fn a_classifier_asks_in_the_form_that_the_model_takes() {
    let question = prompt("what is this?");
    let fields = |format, model, vocabulary| classifier(format, model).fields(&question, &four(), "n0nce", vocabulary);
    let letter = fields("auto", "gpt-4o-mini", Some(Vocabulary::O200k));
    assert_eq!((&letter["max_tokens"], &letter["temperature"]), (&json!(1), &json!(0)));
    assert_eq!(letter["logit_bias"], json!({"32": 100, "33": 100, "34": 100, "35": 100}));
    assert_eq!(letter["messages"][2]["content"], "A");
    let text = fields("auto", "qwen", None);
    assert!(text.get("logit_bias").is_none() && text.get("logprobs").is_none());
    assert_eq!(text["messages"][2]["content"], "trivial");
    let schema = fields("schema", "qwen", None);
    let names = &schema["response_format"]["json_schema"]["schema"]["properties"]["tier"]["enum"];
    assert_eq!(names, &json!(four()));
    let thinks = fields("letter", "gpt-5-mini", Some(Vocabulary::O200k));
    for name in ["temperature", "logit_bias", "max_tokens", "logprobs"] {
        assert!(thinks.get(name).is_none(), "{name}");
    }
    assert!(thinks["max_completion_tokens"].as_u64().unwrap() > 100);
    // Only the last message differs from call to call.
    let messages = letter["messages"].as_array().unwrap();
    let (last, before) = messages.split_last().unwrap();
    assert!(last["content"].as_str().unwrap().contains("n0nce"));
    assert!(!json!(before).to_string().contains("n0nce"));
    let unknown: Classifier = serde_json::from_value(json!({"model": "m", "labels": {"huge": ""}})).unwrap();
    assert!(unknown.check(&four()).unwrap_err().contains("huge"));
}

#[test]
fn equal_prompts_have_one_verdict() {
    let classifier = classifier("text", "m");
    let key = |text: &str| classifier.cache_key(&prompt(text), &four());
    assert_eq!(key("a"), key("a"));
    assert_ne!(key("a"), key("b"));
    assert_ne!(classifier.cache_key(&prompt("a"), &names(&["x"])), key("a"));
}

#[test]
fn labels_are_read_in_every_dress() {
    let classifier = classifier("text", "m");
    for (place, tier) in four().iter().enumerate() {
        let letter = char::from(b'A' + u8::try_from(place).unwrap());
        let upper = tier.to_uppercase();
        let dresses = [
            tier.clone(),
            upper.clone(),
            format!(" \"{tier}\".\n"),
            format!("**{upper}**"),
            format!("Label: {tier}"),
            format!("The label is '{tier}'."),
            format!("{{\"tier\": \"{tier}\"}}"),
            format!("```json\n{{\"label\": \"{upper}\"}}\n```"),
            format!("<think>code or reasoning or trivial</think>{tier}"),
            letter.to_string(),
            letter.to_lowercase().to_string(),
            format!("({letter})"),
            format!("{letter}: {tier}"),
            format!("Label: {letter}."),
        ];
        for dress in dresses {
            assert_eq!(classifier.parse(&dress, &four()), Some(place), "{dress}");
        }
    }
    for odd in ["", "hard", "code or reasoning", "not code", "E", "A: code", "A difficult one", "encoded", "{}", "{"] {
        assert_eq!(classifier.parse(odd, &four()), None, "{odd}");
    }
    let tiers = names(&["code", "code-hard", "非常", "b"]);
    assert_eq!(classifier.parse("Code-Hard", &tiers), Some(1));
    assert_eq!(classifier.parse("这是非常", &tiers), Some(2));
    assert_eq!(classifier.parse("B", &tiers), Some(3));
    assert_eq!(classifier.parse("A", &tiers), None);
    let top = [("A".to_owned(), 0.6_f64.ln()), (" b".to_owned(), 0.2_f64.ln()), ("the".to_owned(), 0.1_f64.ln())];
    assert!((classifier.confidence(&top, &four(), 0).unwrap() - 0.75).abs() < 1e-9);
    assert_eq!(classifier.confidence(&[], &four(), 0), None);
}

proptest! {
    #[test]
    fn any_text_has_a_look_and_a_tier(text in any::<String>(), odd in "[a-zA-Z0-9_`?<>{}é中 \n]{0,400}") {
        let rules = Rules::new(&RulesConfig::default(), &four()).unwrap();
        for text in [text, odd] {
            let verdict = rules.choose(&look(&prompt(&text)));
            prop_assert!(verdict.tier < 4 && (0.0..=1.0).contains(&verdict.confidence));
        }
    }

    #[test]
    fn any_conversation_goes_on(texts in prop::collection::vec(any::<String>(), 2..8), at in any::<prop::sample::Index>()) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let affinity = Affinity::default();
        affinity.remember(&talk(&texts[..texts.len() - 1]), b"", 3);
        prop_assert_eq!(affinity.find(&talk(&texts), b"").map(|found| found.messages), Some(texts.len() - 1));
        let mut edited = texts.clone();
        let other = format!("{}!", texts[at.index(texts.len() - 1)]);
        edited[at.index(texts.len() - 1)] = &other;
        prop_assert_eq!(affinity.find(&talk(&edited), b""), None);
    }

    #[test]
    fn a_fence_is_not_closed_from_inside(parts in prop::collection::vec("n0nce|N0NCE|n0n|ce|<|>|end of prompt|[a-z中\n]{0,900}", 0..12)) {
        let text = parts.concat();
        let fields = classifier("text", "m").fields(&prompt(&text), &four(), "n0nce", None);
        let last = fields["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_lowercase();
        prop_assert_eq!(last.matches("n0nce").count(), 2);
        prop_assert_eq!((last.matches("<<<").count(), last.matches(">>>").count()), (1, 1));
    }

    #[test]
    fn any_reply_is_read_or_not(reply in any::<String>()) {
        let place = classifier("text", "m").parse(&reply, &four());
        prop_assert!(place.is_none_or(|place| place < 4));
    }
}
