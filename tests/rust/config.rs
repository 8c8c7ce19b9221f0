//! The policy as the core reads it.

use farthing::config::{BatchConfig, Config};
use serde_json::{Value, json};

/// As `Batch.to_core()` writes it.
fn batch() -> Value {
    json!({
        "models": ["auto", "gpt-4o"],
        "window_ms": 20,
        "max_items": 10,
        "max_prompt_tokens": 8000,
        "max_answer_tokens": 4000,
        "format": "auto",
        "vote": 3,
        "check": 0.05,
        "always": false,
    })
}

fn read(batch: &Value) -> farthing::error::Result<Option<BatchConfig>> {
    Config::from_json(&json!({ "cache": null, "batch": batch }).to_string()).map(|config| config.batch)
}

#[test]
fn what_is_said_of_batches_is_read() {
    let known = BatchConfig {
        models: vec!["auto".to_owned(), "gpt-4o".to_owned()],
        window_ms: 20,
        max_items: 10,
        max_prompt_tokens: 8000,
        max_answer_tokens: 4000,
        format: "auto".to_owned(),
        vote: 3,
        check: 0.05,
        always: false,
    };
    assert_eq!(read(&batch()).unwrap(), Some(known));
    assert_eq!(read(&Value::Null).unwrap(), None);
    assert_eq!(Config::from_json(r#"{"cache": null}"#).unwrap().batch, None);
}

#[test]
fn what_is_missing_or_unknown_is_refused() {
    for name in batch().as_object().unwrap().keys() {
        let mut less = batch();
        less.as_object_mut().unwrap().remove(name);
        let said = read(&less).unwrap_err().to_string();
        assert!(said.contains(&format!("missing field `{name}`")), "{said}");
    }
    let mut more = batch();
    more["window"] = json!(20);
    assert!(read(&more).unwrap_err().to_string().contains("unknown field `window`"));
}
