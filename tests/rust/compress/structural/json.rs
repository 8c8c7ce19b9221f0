use farthing::compress::structural::{compress, expand};
use serde_json::{Value, json};

use super::{letters, short, without};

#[test]
fn values_keep_their_text() {
    let text = r#"{ "a" : 1.0, "b": [ 1e400, 123456789012345678901234567890, -0 ], "a": "x\/y \u00e9\ud83d\ude00 \u0022 \n \u200b \ud800" }"#;
    assert_eq!(
        short(text),
        "{\"a\":1.0,\"b\":[1e400,123456789012345678901234567890,-0],\"a\":\"x/y é😀 \\\" \\n \\u200b \\ud800\"}"
    );
    assert_eq!(compress(r#"{"a":[1,"two  words"],"b":{}}"#), None);
}

#[test]
fn equal_objects_become_a_table() {
    let text = r#"[{"id": 1, "name": "Mia", "seat": {"row": 2, "side": "left"}}, {"name": "Li", "id": 2, "seat": {"row": 3, "side": "right"}}]"#;
    let table =
        r#"{"columns":["id","name",{"seat":["row","side"]}],"rows":[[1,"Mia",[2,"left"]],[2,"Li",[3,"right"]]]}"#;
    assert_eq!(short(text), table);
    assert_eq!(
        expand(table),
        r#"[{"id":1,"name":"Mia","seat":{"row":2,"side":"left"}},{"id":2,"name":"Li","seat":{"row":3,"side":"right"}}]"#
    );
    let nested = format!("{{\"found\": {text}, \"total\": 2}}");
    assert_eq!(short(&nested), format!("{{\"found\":{table},\"total\":2}}"));
    // Not shorter; not equal; a name that comes twice.
    assert_eq!(short(r#"[{"a": 1}, {"a": 2}]"#), r#"[{"a":1},{"a":2}]"#);
    for odd in [
        r#"[{"long name":1,"other name":2},{"long name":1,"another name":2},{"long name":1}]"#,
        r#"[{"long name":1,"long name":2},{"long name":1,"long name":2},{"long name":1,"long name":2}]"#,
        r#"[{"long name":1,"other name":2},{"long name":1,"other name":2},3]"#,
    ] {
        assert_eq!(compress(odd), None, "{odd}");
    }
}

#[test]
fn lists_of_equal_objects_in_a_list_are_one_table() {
    let text = r#"[[{"from": "JFK", "to": "ATL"}, {"from": "ATL", "to": "SEA"}], [], [{"from": "JFK", "to": "SEA"}]]"#;
    let table = r#"{"columns":["from","to"],"groups":[[["JFK","ATL"],["ATL","SEA"]],[],[["JFK","SEA"]]]}"#;
    assert_eq!(short(text), table);
    assert_eq!(expand(table), text.replace(": ", ":").replace(", ", ","));
}

#[test]
fn what_could_be_mistaken_for_a_table_forbids_tables() {
    let rows = r#"[{"first name":1,"last name":2},{"first name":3,"last name":4},{"first name":5,"last name":6}]"#;
    assert!(short(rows).starts_with("{\"columns\""));
    for own in [
        r#"{"columns":["a"],"rows":[[1]]}"#,
        r#"{"rows":1,"col\u0075mns":2}"#,
        r#"{"columns":1,"lines":[]}"#,
        r#"{"groups":[],"columns":1}"#,
    ] {
        let text = format!("[{own},{rows}]");
        assert!(short(&text).contains(rows), "{text}");
    }
}

#[test]
fn schemas_stay() {
    let schema = "{\n  \"type\": \"object\",\n  \"properties\": {\"a\": {\"type\":  \"string\"}}\n}";
    assert_eq!(compress(schema), None);
    let tool = format!("[ {{ \"name\": \"f\",  \"parameters\": {schema} }}, {{ \"$schema\": 1 }} ]");
    assert_eq!(short(&tool), format!("[{{\"name\":\"f\",\"parameters\":{schema}}},{{ \"$schema\": 1 }}]"));
    for kept in
        ["{ \"openapi\": \"3.1.0\" }", "{ \"type\": [\"array\", \"null\"], \"items\": { } }", "{ \"$defs\": {} }"]
    {
        assert_eq!(compress(kept), None, "{kept}");
    }
    // Not one: a place on a map.
    assert_eq!(short(r#"{ "type": "Feature", "properties": {} }"#), r#"{"type":"Feature","properties":{}}"#);
}

#[test]
fn lines_of_json_are_one_table() {
    let text = "{\"time\": 1, \"level\": \"info\"}\n{\"time\": 2, \"level\": \"warn\"}\r\n\n{\"time\": 3, \"level\": \"info\"}\n";
    let table = r#"{"columns":["time","level"],"lines":[[1,"info"],[2,"warn"],[3,"info"]]}"#;
    assert_eq!(short(text), table);
    let lines = "{\"time\":1,\"level\":\"info\"}\n{\"time\":2,\"level\":\"warn\"}\n{\"time\":3,\"level\":\"info\"}";
    assert_eq!(expand(table), lines);
    assert_eq!(without(text, false, true), lines);
    assert_eq!(short("[1, 2]\n{\"a\": 3}"), "[1,2]\n{\"a\":3}");
}

#[test]
fn what_is_no_json_is_text() {
    for text in [
        "{'a': 'two  words', 'b': [True, None]}",
        "{\"a\": 01}",
        "{\"a\": 1,}",
        "[1, 2",
        "{\"a\": \"\t\"}",
        "{\"a\": \"\\x\"}",
        "[1.]",
        "[NaN]",
        "[+1]",
        "\"two  words\"",
        "```json\n{ \"a\":  1 }\n```",
    ] {
        assert_eq!(compress(text), None, "{text}");
    }
}

#[test]
fn deep_values_are_left_alone() {
    let deep = |depth: usize| format!("{}1 {}", "[ ".repeat(depth), "]".repeat(depth));
    assert_eq!(short(&deep(128)), deep(128).replace(' ', ""));
    assert_eq!(compress(&deep(129)), None);
    assert_eq!(compress(&"[ ".repeat(200_000)), None);
    assert_eq!(compress(&"{ \"a\": ".repeat(200_000)), None);
}

#[test]
fn files_in_strings_become_their_size() {
    let (file, short_one) = (letters(800, 1), letters(300, 1));
    let text = json!({"image": file, "small": short_one, "api_key": file, "token": file, "jwt": format!("{file}.{file}.{file}"),
        "hmac": file, "ciphertext": letters(2000, 2), "saml_response": letters(2000, 2), "data": file,
        "hex": "0123456789abcdef".repeat(50), "uri": format!("data:image/png;base64,{short_one}")});
    let expected = json!({"image": "[base64, 600 bytes]", "small": short_one, "api_key": file, "token": file,
        "hmac": file, "ciphertext": letters(2000, 2), "saml_response": letters(2000, 2), "data": file,
        "jwt": format!("{file}.{file}.{file}"), "hex": "0123456789abcdef".repeat(50),
        "uri": "[image/png, base64, 225 bytes]"});
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&short(&text.to_string())), expected);
    assert_eq!(parse(&without(&text.to_string(), true, false)), text);
}
