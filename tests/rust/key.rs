//! The key: equal requests have equal keys, different requests different ones.

use bytes::Bytes;
use farthing::exchange::{Endpoint, Request};
use farthing::key::encode::{Encoder, Unkeyed};
use farthing::key::scan::scan;
use farthing::key::{Prefix, Scope};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

fn canonical(text: &str) -> Result<Vec<u8>, Unkeyed> {
    let mut encoder = Encoder::default();
    scan(text.as_bytes(), &[], &mut encoder)?;
    Ok(encoder.bytes().to_vec())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4_i64..4).prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| Number::from_f64(number).map(Value::Number)),
        "(|0|a|ab|\\PC{0,4}|[\"\\\\\n\t/]{0,3})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(|a|b|ab|\\PC{0,2})", inner, 0..4).prop_map(object),
        ]
    })
}

fn object(members: std::collections::BTreeMap<String, Value>) -> Value {
    Value::Object(members.into_iter().collect())
}

/// The same value as other writers would write it: members in another order, spaces, escapes, `1.0` for `1`.
fn rewrite(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            out.push_str("{ ");
            for (number, (name, value)) in members.iter().rev().enumerate() {
                if number > 0 {
                    out.push_str("\n,\t");
                }
                rewrite(&Value::from(name.as_str()), out);
                out.push_str(" : ");
                rewrite(value, out);
            }
            out.push_str(" }");
        }
        Value::Array(items) => {
            out.push_str("[\r");
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push_str(" ,");
                }
                rewrite(item, out);
            }
            out.push(']');
        }
        Value::String(text) => {
            out.push('"');
            for unit in text.encode_utf16() {
                out.push_str(&format!("\\u{unit:04X}"));
            }
            out.push('"');
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.abs() < 1 << 53 => out.push_str(&format!("{whole}.0e+0")),
            _ => out.push_str(&number.to_string()),
        },
        other => out.push_str(&other.to_string()),
    }
}

/// As the key sees them: 1 and 1.0 are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64() && a.is_f64() == b.is_f64() || whole(a).is_some() && whole(a) == whole(b),
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
}

fn wrapped(value: &Value) -> String {
    format!("{{\"x\":{value}}}")
}

proptest! {
    #[test]
    fn how_it_is_written_does_not_matter(value in json()) {
        let mut other = String::from("{\"x\":");
        rewrite(&value, &mut other);
        other.push_str("}\n");
        prop_assert_eq!(canonical(&wrapped(&value)).unwrap(), canonical(&other).unwrap());
    }

    #[test]
    fn different_values_are_different(a in json(), b in json()) {
        let equal = canonical(&wrapped(&a)).unwrap() == canonical(&wrapped(&b)).unwrap();
        prop_assert_eq!(equal, same(&a, &b), "{} {}", a, b);
    }

    /// A small change anywhere is another value, wherever it is.
    #[test]
    fn what_is_added_is_seen(a in json(), b in json(), name in "[a-z]{1,3}") {
        let two = |x: &Value, y: &Value| canonical(&format!("{{\"l\":[{x},{y}]}}")).unwrap();
        prop_assert_eq!(two(&a, &b) == two(&b, &a), same(&a, &b));
        if let Value::Object(members) = &a {
            let mut more: Map<String, Value> = members.clone();
            if more.insert(name, b).is_none() {
                prop_assert_ne!(canonical(&wrapped(&a)).unwrap(), canonical(&wrapped(&Value::Object(more))).unwrap());
            }
        }
    }

    /// Whatever is read as JSON here is JSON for a strict reader too; the rest is passed on unkeyed.
    #[test]
    fn nothing_but_json_has_a_key(text in "(\\{|\\}|\\[|\\]|,|:|\"a\"|\"b\"|1|-|0|e5|\\.5|true|null| |\"\\\\u00|\\PC){0,12}") {
        let text = format!("{{\"x\":{text}}}");
        if canonical(&text).is_ok() {
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn a_field_can_be_replaced(value in json(), name in "(a|b|stream|model)", more in json()) {
        let Value::Object(mut members) = value else { return Ok(()) };
        members.insert("z".to_owned(), Value::from(1));
        let request = request(&Value::Object(members.clone()).to_string());
        let changed = request.with_field(&name, &more.to_string());
        members.insert(name.clone(), more);
        let text = std::str::from_utf8(changed.body()).unwrap();
        let expected = canonical(&Value::Object(members).to_string()).unwrap();
        prop_assert_eq!(canonical(text).unwrap(), expected);
        prop_assert_eq!(changed.get::<Value>(&name).is_some(), changed.has(&name));
        prop_assert_eq!(changed.key(), request.key());
    }
}

fn scope() -> Scope {
    Scope { salt: [7; 32], name: None, ignored_headers: Vec::new() }
}

fn request(body: &str) -> Request {
    let prefix = Prefix::new(&scope(), b"", "http://h/v1/chat/completions", []);
    let body = Bytes::copy_from_slice(body.as_bytes());
    Request::new(Endpoint::Chat, "http://h".into(), HeaderMap::new(), body, &prefix, None).ok().unwrap()
}

#[test]
fn delivery_is_not_part_of_the_key() {
    let plain = request(r#"{"model":"m","messages":[]}"#).key();
    for same in [
        r#"{"model":"m","messages":[],"stream":true}"#,
        r#"{"stream":false,"model":"m","messages":[],"stream_options":{"include_usage":true}}"#,
    ] {
        assert_eq!(request(same).key(), plain);
    }
    // Only at the top.
    assert_ne!(
        request(r#"{"model":"m","messages":[{"stream":true}]}"#).key(),
        request(r#"{"model":"m","messages":[{}]}"#).key()
    );
}

#[test]
fn what_has_no_one_meaning_has_no_key() {
    let cases = [
        (r#"{"a":1,"a":1}"#, Unkeyed::DuplicateName),
        (r#"{"x":{"a":1,"a":2}}"#, Unkeyed::DuplicateName),
        (r#"{"a":1,"\u0061":1}"#, Unkeyed::DuplicateName),
        (r#"{"stream":true,"stream":false}"#, Unkeyed::DuplicateName),
        (r#"{"x":1e999}"#, Unkeyed::NotFinite),
        (r#"{"x":"\ud800"}"#, Unkeyed::Surrogate),
        (r#"{"x":"\udc00\ud800"}"#, Unkeyed::Surrogate),
        (r#"{"x":NaN}"#, Unkeyed::Malformed),
        (r#"{"x":01}"#, Unkeyed::Malformed),
        ("[1]", Unkeyed::Malformed),
        ("", Unkeyed::Malformed),
        ("{} {}", Unkeyed::Malformed),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical(text), Err(expected), "{text}");
    }
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    assert_eq!(canonical(&deep), Err(Unkeyed::TooDeep));
}

#[test]
fn numbers() {
    for same in
        [["0", "-0"], ["0", "0.0"], ["0", "-0.0"], ["1", "1e0"], ["100", "1e2"], ["0.1", "1e-1"], ["1.5", "15e-1"]]
    {
        let [a, b] = same.map(|text| canonical(&format!("{{\"x\":{text}}}")).unwrap());
        assert_eq!(a, b, "{same:?}");
    }
    let large =
        ["9007199254740993", "9007199254740992", "123456789012345678901234567890", "123456789012345678901234567891"];
    for (number, a) in large.iter().enumerate() {
        for b in &large[..number] {
            assert_ne!(canonical(&format!("{{\"x\":{a}}}")), canonical(&format!("{{\"x\":{b}}}")), "{a} {b}");
        }
    }
}

fn key(scope: &Scope, owner: &[u8], url: &str, headers: &[(&str, &str)], sample: Option<&str>) -> farthing::key::Key {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    Prefix::new(scope, owner, url, headers).key(sample, b"body")
}

#[test]
fn who_asks_and_where() {
    let scope = scope();
    let base = key(&scope, b"", "http://h/a", &[], None);
    let others = [
        key(&scope, b"owner", "http://h/a", &[], None),
        key(&scope, b"", "http://h/b", &[], None),
        key(&scope, b"", "http://h/a", &[("x-a", "1")], None),
        key(&scope, b"", "http://h/a", &[("x-a", "2")], None),
        key(&scope, b"", "http://h/a", &[("x-a", "1"), ("x-a", "2")], None),
        key(&scope, b"", "http://h/a", &[("x-a", "2"), ("x-a", "1")], None),
        key(&scope, b"", "http://h/a", &[("x-a1", "")], None),
        key(&scope, b"", "http://h/a", &[("authorization", "Bearer 1")], None),
        key(&scope, b"", "http://h/a", &[("authorization", "Bearer 2")], None),
        key(&scope, b"", "http://h/a", &[("api-key", "1")], None),
        key(&scope, b"", "http://h/a", &[("openai-organization", "1")], None),
        key(&scope, b"", "http://h/a", &[("openai-project", "1")], None),
        key(&scope, b"", "http://h/a", &[], Some("")),
        key(&scope, b"", "http://h/a", &[], Some("1")),
        key(&Scope { salt: [8; 32], ..scope.clone() }, b"", "http://h/a", &[], None),
        key(&Scope { name: Some("team".to_owned()), ..scope.clone() }, b"", "http://h/a", &[], None),
    ];
    let all: std::collections::HashSet<_> = others.iter().chain([&base]).collect();
    assert_eq!(all.len(), others.len() + 1);
}

#[test]
fn headers_that_do_not_count() {
    let scope = Scope { ignored_headers: vec!["x-mine".to_owned()], ..scope() };
    let base = key(&scope, b"", "http://h", &[("X-A", "1"), ("x-b", "2")], None);
    let noisy = [
        ("x-b", "2"),
        ("User-Agent", "1"),
        ("X-Stainless-Lang", "python"),
        ("traceparent", "1"),
        ("tracestate", "1"),
        ("baggage", "1"),
        ("X-Request-Id", "1"),
        ("x-irid", "1"),
        ("Idempotency-Key", "1"),
        ("x-farthing-tag", "1"),
        ("x-mine", "1"),
        ("host", "h"),
        ("x-a", "1"),
    ];
    assert_eq!(key(&scope, b"", "http://h", &noisy, None), base);
}

#[test]
fn a_named_scope_replaces_the_tenant_only() {
    let scope = Scope { name: Some("team".to_owned()), ..scope() };
    let with = |headers: &[(&str, &str)]| key(&scope, b"", "http://h", headers, None);
    assert_eq!(with(&[("authorization", "1")]), with(&[("authorization", "2"), ("openai-project", "p")]));
    assert_ne!(with(&[("x-tenant", "1")]), with(&[("x-tenant", "2")]));
}
