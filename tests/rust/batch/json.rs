//! Answers as one JSON object.

use farthing::batch::{Format, Pack, Shape};
use serde_json::json;

use super::{pack_of, read};

fn three() -> Pack {
    pack_of(3, Format::Json, &Shape::Text)
}

#[test]
fn objects_are_read_however_they_are_wrapped() {
    let object = r#"{"1": "a", "2": "b", "3": "c"}"#;
    for text in [
        object.to_owned(),
        format!("```json\n{object}\n```"),
        format!("Here {{are}} the [answers], see [1]:\n{object}\nI hope that {{this}} helps [2]."),
        r#"{"3": "c", "1": "a", "2": "b"}"#.to_owned(),
        r#"{"answers": {"1": "a", "2": "b", "3": "c"}}"#.to_owned(),
        r#"{"answers": ["a", "b", "c"]}"#.to_owned(),
        r#"["a", "b", "c"]"#.to_owned(),
        r#"[{"3": "c"}, {"1": "a"}, {"2": "b"}]"#.to_owned(),
        r#"[{"id": 2, "answer": "b"}, {"answer": "a", "id": "1"}, {"id": "3", "answer": "c"}]"#.to_owned(),
        "{\"1\": \"a\"}\n{\"2\": \"b\", \"3\": \"c\"}".to_owned(),
        r#"{"1": "a", "2": "b", "4": "x", "note": {"1": "y"}, "3": "c",}"#.to_owned(),
    ] {
        assert_eq!(read(&three(), &text, false), ["a", "b", "c"], "{text}");
    }
}

#[test]
fn what_is_in_doubt_is_nobodys() {
    for (text, expected) in [
        (r#"{"1": "a", "2": "b", "2": "b", "3": "c"}"#, ["a", "!Double", "c"]),
        (r#"{"1": "a", " 01": "b", "3": "c"}"#, ["!Double", "!Missing", "c"]),
        (r#"[{"id": 1, "answer": "a"}, {"id": "1", "answer": "b"}]"#, ["!Double", "!Missing", "!Missing"]),
        (r#"{"1": "a"} or {"1": "b"}"#, ["!Double", "!Missing", "!Missing"]),
        (r#"{"1": "a"} {"note": {"2": "b"}}"#, ["!Double"; 3]),
        (r#"{"thoughts": {"1": "a", "2": "b"}, "answers": {"1": "c"}}"#, ["!Missing"; 3]),
        (r#"{"thoughts": {"1": "a", "2": "b"}, "#, ["!Missing"; 3]),
        (r#"["a", "b"]"#, ["!Missing"; 3]),
        (r#"{"0": "a", "1": "b", "2": "c"}"#, ["!Double"; 3]),
        (r#"{"answers": {"0": "a", "1": "b", "2": "c"}}"#, ["!Double"; 3]),
        (r#"[{"id": 0, "answer": "a"}, {"id": 1, "answer": "b"}, {"id": 2, "answer": "c"}]"#, ["!Double"; 3]),
        // Which of the three is not there?
        (r#"{"1": "a", "2": "b"}"#, ["!Missing"; 3]),
        (r#"[{"id": 1, "answer": "a"}, {"id": 2, "answer": "b"}]"#, ["!Missing"; 3]),
        (r#"{"1": "a", "3": "c"}"#, ["a", "!Missing", "c"]),
        (r#"{"input 1": "a", "input_2": "b", "3": "c"}"#, ["a", "b", "c"]),
        (r#"<think>{"2": "x"}</think>{"1": "a", "3": "c"}"#, ["a", "!Missing", "c"]),
        (r#"{"4": {"1": "a", "2": "b"}}"#, ["!Missing"; 3]),
        (r#"{"99999999999999999999": ["a", "b", "c"]}"#, ["!Missing"; 3]),
        (r#"["a", "b", "c", "d"]"#, ["!Double"; 3]),
        (r#"["a", "b", "c"] ["d", "e", "f"]"#, ["!Double"; 3]),
        (r#"["a", {"id": 2, "answer": "b"}, "c"]"#, ["!Invalid"; 3]),
        (r#"{"1": "", "2": " \n", "3": null}"#, ["!Empty"; 3]),
        (r#"{"1": 1.50, "2": true, "3": {"a": 1}}"#, ["1.50", "true", "!Invalid"]),
        (
            r#"{"1": "\ud800", "2": "a
b", "3": "\x"}"#,
            ["!Invalid", "a\nb", "!Invalid"],
        ),
        // A quotation mark that is not escaped.
        (r#"{"1": "a", "2": "say "hi" now", "3": "c"}"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"1": "a", "2": "say ", then go", "3": "c"}"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"1": "say {"2": "x", "3": "y"}"}"#, ["!CutOff", "!Missing", "!Missing"]),
        ("", ["!Missing"; 3]),
        ("I cannot answer [1].", ["!Missing"; 3]),
        ("a, b, c", ["!Missing"; 3]),
    ] {
        assert_eq!(read(&three(), text, false), expected, "{text}");
    }
    assert_eq!(read(&pack_of(1, Format::Json, &Shape::Text), "As [1] says, it is Paris.", false), ["!Missing"]);
}

#[test]
fn what_was_complete_is_kept() {
    for (text, expected) in [
        (r#"{"1": "a", "2": "b"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"1": "a", "2": "b\"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"1": "a", "2": "b""#, ["a", "b", "!Missing"]),
        (r#"{"1": "a", "2":"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"1": "a", "2"#, ["a", "!Missing", "!Missing"]),
        (r#"{"1": "a", "2": 12"#, ["a", "!CutOff", "!Missing"]),
        (r#"{"answers": {"1": "a", "2": "b"#, ["a", "!CutOff", "!Missing"]),
        (r#"["a", "b"#, ["a", "!CutOff", "!Missing"]),
        (r#"[{"id": 1, "answer": "a"}, {"id": 3, "answer": "#, ["a", "!Missing", "!CutOff"]),
        (r#"[{"id": 3, "answer": "a"#, ["!Missing", "!Missing", "!CutOff"]),
        (r#"{"1": {"a"#, ["!CutOff", "!Missing", "!Missing"]),
        ("{", ["!Missing"; 3]),
    ] {
        for is_cut in [true, false] {
            assert_eq!(read(&three(), text, is_cut), expected, "{text}");
        }
    }
}

#[test]
fn answers_keep_to_their_schema() {
    let item = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let pack = pack_of(3, Format::Json, &Shape::Schema(json!({"name": "x", "schema": item, "strict": true})));
    assert_eq!(pack.response_format.as_ref().unwrap()["json_schema"]["strict"], json!(true));
    let text = r#"{"1": {"n": 1e0}, "2": {"n": "x"}, "3": "{\"n\": 1}"}"#;
    assert_eq!(read(&pack, text, false), [r#"{"n": 1e0}"#, "!Invalid", "!Invalid"]);
    let listed = r#"[{"id": 3, "answer": {"n": 3}}, {"id": 1, "answer": {"n": 1}}]"#;
    assert_eq!(read(&pack, listed, false), [r#"{"n": 1}"#, "!Missing", r#"{"n": 3}"#]);
    assert_eq!(read(&pack, r#"{"1": {"n": 1}, "2": {"n": 1"#, true), [r#"{"n": 1}"#, "!CutOff", "!Missing"]);
    let pack = pack_of(2, Format::Json, &Shape::Object);
    assert_eq!(read(&pack, r#"{"1": {"a": [1]}, "2": [1]}"#, false), [r#"{"a": [1]}"#, "!Invalid"]);
    assert_eq!(read(&pack, r#"[{"a": 1}, {"a": 2}]"#, false), [r#"{"a": 1}"#, r#"{"a": 2}"#]);
    assert_eq!(read(&pack, r#"[{"a": 1, "id": 2}, {"a": 2}]"#, false), ["!Invalid"; 2]);
    assert_eq!(read(&pack, r#"[{"2": {}}, {"1": {}}]"#, false), ["!Invalid"; 2]);
    // Each may be the answer itself.
    assert_eq!(read(&pack, r#"[{"id": 2, "answer": {}}, {"id": 1, "answer": {}}]"#, false), ["!Invalid"; 2]);
}

#[test]
fn deep_and_odd_texts_are_read_in_time() {
    for text in
        ["[", "{", "{\"a\":", "[[", "{}", "[1]", "{\"1\":", "\"{", "[\"", "{\"1\":\"a\"}", "[{\"id\":1,", "[1", "[ "]
    {
        assert_eq!(three().split(&text.repeat(100_000), false).len(), 3);
    }
}
