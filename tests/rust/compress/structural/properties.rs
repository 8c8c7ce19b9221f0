//! Whatever the text is.

use farthing::compress::structural::{Seen, compress, expand};
use proptest::prelude::*;
use serde_json::Value;

use super::{short, without};

/// Pieces that mean something somewhere.
const PIECES: [&str; 62] = [
    "\n",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    "  ",
    "   ",
    "    ",
    "\t",
    " ",
    "\u{a0}",
    "\u{200b}",
    "\u{200d}",
    "```",
    "```\n",
    "\n~~~\n",
    "`",
    "``",
    "\"",
    "“",
    "”",
    "> ",
    "| a | b |\n",
    "- ",
    "# ",
    "---------------------------------",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "{\"a\": 1}",
    "\\u00e9",
    "\\",
    "<",
    ">",
    "<p>",
    "</p>",
    "<!-- ",
    "-->",
    "<script>",
    "</script>",
    "<a href=\"b\">",
    "</a>",
    "<pre>",
    "<!doctype html>",
    "<td>",
    "<li>",
    "&lt;",
    "&amp;p",
    "&#x41;",
    "é🦀",
    "word",
    "The same line as before.\n",
    "The same line as before.\n",
    "  File \"/lib/python3/site-packages/a.py\", line 3, in f\n",
    "  File \"/lib/python3/site-packages/a.py\", line 3, in f\n",
    "\tat java.util.A.b(A.java:1)\n",
    "data:image/png;base64,",
    "def f(x):\n",
    ". ",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        2 => "[a-z]{1,6} ",
        1 => any::<String>().prop_map(|text| text.chars().take(6).collect()),
        1 => (150_usize..260, any::<u64>()).prop_map(|(count, seed)| super::letters(count, seed)),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Names of few kinds, so that objects are equal.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z  \"\\\\/]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 80, 6, |inner| {
        let name = prop_oneof![
            4 => proptest::sample::select(&["identifier", "a longer name", "b", "type", "properties", "items", "rows"][..]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let equal = (proptest::collection::btree_set(name.clone(), 1..4), proptest::collection::vec(inner.clone(), 2..12));
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
            (equal, any::<bool>()).prop_map(|((names, values), is_grouped)| {
                let rows = values.chunks_exact(names.len());
                let rows = rows.map(|row| Value::Object(names.iter().cloned().zip(row.iter().cloned()).collect()));
                if !is_grouped {
                    return rows.collect();
                }
                rows.collect::<Vec<Value>>().chunks(2).map(|group| Value::from(group.to_vec())).collect()
            }),
        ]
    })
}

/// As other programs write it: with blanks, and ASCII only.
fn written(value: &Value, is_pretty: bool, is_ascii: bool) -> String {
    let text = if is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
    if !is_ascii {
        return text;
    }
    let mut units = [0; 2];
    let escape = |c: char| c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    let mut escape = escape;
    text.chars().map(|c| if c.is_ascii() { c.to_string() } else { escape(c) }).collect()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn json_says_the_same(value in json(), is_pretty in any::<bool>(), is_ascii in any::<bool>()) {
        let text = written(&value, is_pretty, is_ascii);
        prop_assert_eq!(&parse(&without(&text, false, false)), &value);
        let tables = without(&text, true, false);
        prop_assert_eq!(parse(&expand(&tables)), value, "{}", tables);
        prop_assert_eq!(compress(&short(&text)), None);
    }

    #[test]
    fn lines_of_json_say_the_same(values in proptest::collection::vec(json().prop_filter("containers", |value| value.is_object() || value.is_array()), 2..6)) {
        let text = values.iter().map(|value| format!(" {value}\n")).collect::<String>();
        for tables in [false, true] {
            let found: Vec<Value> = expand(&without(&text, tables, false)).lines().map(parse).collect();
            prop_assert_eq!(&found, &values);
        }
    }

    #[test]
    fn any_text_gets_shorter_or_stays(text in text(), other in any::<String>()) {
        for text in [&text, &other, &format!("<!doctype html><p>{text}"), &format!("{{\"a\": {other}")] {
            if let Some(shorter) = compress(text) {
                prop_assert!(shorter.len() < text.len() && !shorter.is_empty());
                prop_assert_eq!(compress(&shorter), None, "{:?} of {:?}", shorter, text);
            }
            let mut seen = Seen::default();
            for _ in 0..2 {
                prop_assert!(seen.compress(text).is_none_or(|shorter| shorter.len() < text.len()));
            }
        }
    }

    #[test]
    fn code_in_fences_stays(before in text(), code in text(), after in text()) {
        let code = code.replace("~~~~~", "");
        let fenced = format!("\n~~~~~\n{code}\n~~~~~\n");
        // Not within a longer fence of the text before it.
        let before = before.replace(['`', '~', '<'], "");
        let text = format!("Text {before}{fenced}{after}");
        let found = short(&text);
        prop_assert!(found.contains(fenced.trim()), "{:?} of {:?}", found, text);
    }

    #[test]
    fn words_of_prose_stay_in_order(text in "([a-z]{1,8}[ \n\u{a0}.,]{1,3}){0,60}") {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = short(&text);
        if !found.contains('×') {
            prop_assert_eq!(words(&found), words(&text));
        }
    }

    #[test]
    fn words_of_a_page_stay_in_order(pieces in proptest::collection::vec((proptest::sample::select(&PAGE[..]), "[a-zé←🦀]{1,6}"), 0..40)) {
        let page: String = pieces.iter().map(|(tag, word)| format!("{tag}{word} ")).collect();
        let found = short(&format!("<!doctype html><p>{page}"));
        let mut rest = found.as_str();
        for (_, word) in &pieces {
            let at = rest.find(word.as_str());
            prop_assert!(at.is_some(), "{:?} is not in {:?} of {:?}", word, found, page);
            rest = &rest[at.unwrap() + word.len()..];
        }
    }
}

const PAGE: [&str; 28] = [
    "<p>",
    "</p>",
    "<div class=\"x > y\">",
    "</div>",
    "<ul>",
    "<li>",
    "</ul>",
    "<table>",
    "<tr>",
    "<td>",
    "</table>",
    "<pre>",
    "</pre>",
    "<code>",
    "</code>",
    "<a href=\"/1\">",
    "</a>",
    "<h2>",
    "</h2>",
    "<br>",
    "<blockquote>",
    "</blockquote>",
    "<!-- ",
    "< ",
    "&lt;",
    "<b",
    "<option>",
    "</",
];

#[test]
fn huge_texts_take_no_longer() {
    let (million, many) = (1_000_000, 200_000);
    let texts = [
        "x".repeat(10 * million),
        "a  b ".repeat(2 * many),
        "`".repeat(many),
        "` `` ``` ".repeat(many / 10),
        "\"".repeat(many),
        "a\n".repeat(million),
        "a b c d e f g h i j\n".repeat(many / 4),
        "\n".repeat(many),
        " \n".repeat(many),
        "    a\n\n".repeat(many / 4),
        "  File \"/lib/python/a.py\", line 1, in f\n".repeat(many / 8),
        "    a\n".repeat(many / 2),
        format!("  File \"/a.py\", line 1, in f\n{}", "    a\n".repeat(many / 2)),
        "at a(b.java:1)\n".repeat(many / 4),
        super::letters(4 * many, 3),
        (super::letters(76, 5) + "\n").repeat(many / 50),
        ("0123456789abcdef".repeat(4) + "\n").repeat(many / 20),
        "data:image/png;base64,".repeat(many / 20),
        "[{\"a\":".repeat(many),
        format!("[{}1]", "{\"name of it\": 1, \"b\": 2},".repeat(many / 10)),
        "{\"a\": 1}\n".repeat(many / 4),
        "- a\u{200b}b\u{a0}\u{a0}c\n".repeat(many / 8),
        "<<a ".repeat(many),
        "cat <<E\n".repeat(many / 4) + &" E\n".repeat(many / 4),
        "\"\"\" ''' ".repeat(many),
        "\"\"\"".repeat(many),
        "a: |\n \n".repeat(many / 4),
        "a: |\n".repeat(many / 4) + &"  b\n".repeat(many / 4),
    ];
    for text in texts {
        // Something quadratic would take hours.
        short(&text);
        Seen::default().compress(&text);
    }
}
