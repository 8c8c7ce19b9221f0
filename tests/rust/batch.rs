//! Questions are packed and their answers split again; an answer that may be another question's is not given to any.

#[path = "batch/json.rs"]
mod json;
#[path = "batch/lines.rs"]
mod lines;
#[path = "batch/properties.rs"]
mod properties;
#[path = "batch/sizes.rs"]
mod sizes;

use farthing::batch::{Flaw, Format, Pack, Shape, pack};
use serde_json::json;

/// A pack of so many questions.
pub fn pack_of(count: usize, format: Format, shape: &Shape) -> Pack {
    let questions: Vec<String> = (1..=count).map(|number| format!("What is {number}?")).collect();
    pack(&questions.iter().map(String::as_str).collect::<Vec<_>>(), format, shape)
}

/// What is read of a text, as `answer` or `!Flaw`.
pub fn read(pack: &Pack, text: &str, is_cut: bool) -> Vec<String> {
    let show = |answer: Result<String, Flaw>| answer.unwrap_or_else(|flaw| format!("!{flaw:?}"));
    pack.split(text, is_cut).into_iter().map(show).collect()
}

#[test]
fn each_question_stands_in_a_fence_that_it_cannot_close() {
    let first = pack(&["What is 1?", "What is 2?"], Format::Json, &Shape::Text);
    assert_eq!(first, pack(&["What is 1?", "What is 2?"], Format::Json, &Shape::Text));
    let mark = first.message.split("and </").nth(1).unwrap().split('>').next().unwrap().to_owned();
    assert_eq!(mark.len(), 3);
    let fenced = format!("\n<{mark} 2>\nWhat is 2?\n</{mark}>\n");
    assert!(first.message.ends_with(&fenced), "{}", first.message);
    let other = pack(&["What is 1?", "What is 3?"], Format::Json, &Shape::Text);
    assert!(!other.message.contains(&mark));
    let instruction = first.message.split("\n\n").next().unwrap();
    assert!(instruction.len() < 300, "{instruction}");
    // The same text as three questions, and cut elsewhere.
    assert_ne!(
        pack(&["ab", "c"], Format::Json, &Shape::Text).message,
        pack(&["a", "bc"], Format::Json, &Shape::Text).message
    );
}

#[test]
fn a_fence_in_an_answer_is_anothers() {
    for format in [Format::Json, Format::Lines] {
        let packed = pack_of(3, format, &Shape::Text);
        let mark = packed.message.split("and </").nth(1).unwrap().split('>').next().unwrap();
        let closed = format!("a</{mark}> b");
        let opened = format!("<{mark} 3> c");
        assert_eq!(read(&packed, &packed.merge(&["x", &closed, &opened]), false), ["x", "!Double", "!Double"]);
    }
}

#[test]
fn a_question_opens_no_fence_and_closes_none() {
    let mean: String = (0..1000).map(|mark| format!("<{mark:03} 2>\n</{mark:03}>\n")).collect();
    let packed = pack(&[&mean, "What is 2?"], Format::Json, &Shape::Text);
    let mark = packed.message.split("and </").nth(1).unwrap().split('>').next().unwrap();
    assert!(mark.len() > 3 && !mean.contains(mark), "{mark}");
    let numbers = "000 100 200 300 400 500 600 700 800 900";
    let packed = pack(&[numbers, "What is 2?"], Format::Json, &Shape::Text);
    assert_eq!(packed.message.split("and </").nth(1).unwrap().split('>').next().unwrap().len(), 3);
}

#[test]
fn shapes_are_read_and_odd_ones_are_not_packed() {
    let schema = json!({"name": "x", "schema": {"type": "object"}, "strict": true});
    assert_eq!(Shape::read(None), Some(Shape::Text));
    assert_eq!(Shape::read(Some(&json!(null))), Some(Shape::Text));
    assert_eq!(Shape::read(Some(&json!({"type": "text"}))), Some(Shape::Text));
    assert_eq!(Shape::read(Some(&json!({"type": "json_object"}))), Some(Shape::Object));
    let format = json!({"type": "json_schema", "json_schema": schema.clone()});
    assert_eq!(Shape::read(Some(&format)), Some(Shape::Schema(schema)));
    for odd in [
        json!({"type": "grammar"}),
        json!({}),
        json!("text"),
        json!({"type": "json_schema"}),
        json!({"type": "json_schema", "json_schema": {"name": "x"}}),
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"$id": "http://h/x"}}}),
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"items": [{"$anchor": "a"}]}}}),
    ] {
        assert_eq!(Shape::read(Some(&odd)), None, "{odd}");
    }
}

#[test]
fn the_format_asks_for_each_id() {
    let packed = pack_of(2, Format::Json, &Shape::Text);
    let expected = json!({"type": "json_schema", "json_schema": {"name": "answers", "strict": true, "schema": {
        "type": "object", "properties": {"1": {"type": "string"}, "2": {"type": "string"}}, "required": ["1", "2"],
        "additionalProperties": false}}});
    assert_eq!(packed.response_format, Some(expected));
    let packed = pack_of(1, Format::Json, &Shape::Object).response_format.unwrap();
    assert_eq!(packed["json_schema"]["strict"], json!(false));
    assert_eq!(packed["json_schema"]["schema"]["properties"], json!({"1": {"type": "object"}}));
    assert_eq!(pack_of(2, Format::Lines, &Shape::Object).response_format, None);
}

#[test]
fn a_schema_stands_once_and_its_references_hold() {
    let item = json!({"type": "object", "$defs": {"answer": {"type": "integer"}}, "definitions": {"b": {"$ref": "#"}},
        "properties": {"a": {"$ref": "#/$defs/answer"}, "b": {"$ref": "#/definitions/b"}, "c": {"$ref": "#/properties/a"},
            "$ref": {"type": "string"}, "default": {"$ref": "#"}},
        "default": {"$ref": "#"}});
    let whole = json!({"name": "x", "description": "a thing", "schema": item});
    let packed = pack_of(2, Format::Json, &Shape::Schema(whole)).response_format.unwrap();
    let expected = json!({"type": "object", "required": ["1", "2"], "additionalProperties": false,
        "properties": {"1": {"$ref": "#/$defs/answer_"}, "2": {"$ref": "#/$defs/answer_"}},
        "definitions": {"b": {"$ref": "#/$defs/answer_"}},
        "$defs": {"answer": {"type": "integer"}, "answer_": {"type": "object", "description": "a thing", "properties": {
            "a": {"$ref": "#/$defs/answer"}, "b": {"$ref": "#/definitions/b"},
            "c": {"$ref": "#/$defs/answer_/properties/a"}, "$ref": {"type": "string"},
            "default": {"$ref": "#/$defs/answer_"}}, "default": {"$ref": "#"}}}});
    assert_eq!(packed["json_schema"], json!({"name": "answers", "schema": expected}));
    // It says of a pack what the schema says of an answer.
    let schema = &packed["json_schema"]["schema"];
    let check = |answer: serde_json::Value| farthing::escalate::schema::check(schema, &json!({"1": answer, "2": {}}));
    assert_eq!(check(json!({"a": 1, "b": {"c": 2}})), farthing::escalate::schema::Verdict::Holds);
    assert_eq!(check(json!({"a": 1, "b": {"c": "x"}})), farthing::escalate::schema::Verdict::Fails);
}

#[test]
fn fields_are_asked_for_in_the_callers_order() {
    let packed = pack_of(11, Format::Json, &Shape::Text);
    let text = packed.response_format_text(None).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), packed.response_format.unwrap());
    let ids: Vec<_> = text.split("\":{\"type\":\"string\"}").filter_map(|part| part.rsplit('"').next()).collect();
    assert_eq!(ids[..11], ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
    let own = r##"{"type": "json_schema", "json_schema": {"strict": true, "name": "x", "schema": {"type": "object",
        "$defs": {"z": {"type": "object", "properties": {"q": {}, "p": {"enum": [{"b": 1, "a": 2}]}}}},
        "properties": {"why": {"$ref": "#/properties/it"}, "it": {"$ref": "#/$defs/z"}}}}}"##;
    let shape = Shape::read(Some(&serde_json::from_str(own).unwrap())).unwrap();
    let packed = pack_of(1, Format::Json, &shape);
    let text = packed.response_format_text(Some(own)).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), packed.response_format.clone().unwrap());
    for part in [
        r##""answer":{"type":"object","properties":{"why":{"$ref":"#/$defs/answer/properties/it"},"it":{"$ref":"#/$defs/z"}}}"##,
        r##""z":{"type":"object","properties":{"q":{},"p":{"enum":[{"b":1,"a":2}]}}}"##,
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Of another text nothing is taken.
    let other = packed.response_format_text(Some("[{")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&other).unwrap(), packed.response_format.unwrap());
    assert_eq!(pack_of(1, Format::Lines, &Shape::Text).response_format_text(None), None);
}

#[test]
fn lines_say_what_nothing_else_says() {
    let whole = json!({"name": "x", "schema": {"type": "object", "required": ["a"]}, "strict": true});
    let packed = pack_of(2, Format::Lines, &Shape::Schema(whole));
    assert!(packed.message.contains(r#"{"required":["a"],"type":"object"}"#), "{}", packed.message);
    assert_eq!(read(&packed, "1. {\"a\": 1}\n2. {}", false), ["{\"a\": 1}", "!Invalid"]);
}
