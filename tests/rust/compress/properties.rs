//! Whatever the text is: within the budget, verbatim, in order, the same again, and no code is torn.

use farthing::compress::extractive::{Extract, MARK, extract};
use farthing::compress::facts::lost;
use farthing::tokens::Vocabulary;
use proptest::prelude::*;

use super::{cut, tokens};

/// Pieces that mean something to a splitter.
const PIECES: [&str; 40] = [
    "The bread costs 4.50. ",
    "It does not rain! ",
    "Who? ",
    "e.g. Dr. A. B. ",
    "1. ",
    "- ",
    "* x\n",
    "# Title\n",
    "### ",
    "Title\n",
    "===\n",
    "---\n",
    "| a | b |\n",
    "|---|---|\n",
    "Anna: ",
    "[12:30] ",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "\t",
    "    ",
    "`",
    "``",
    "{\"a\": 1}",
    "{",
    "}",
    "[1, 2, 3]",
    "\"",
    "\\",
    "。",
    "電池の値段。",
    "é\u{2028}🦀 ",
    "…",
    "[…]",
    "https://example.com/a.b?c ",
    "1,000",
    "foo_bar() ",
    "which goes on in a line that was broken to fit a page\n",
];

const CODE: &str = "```py\nprint(1). No!\n\n# bread\n```\n";

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        2 => "[a-zA-Z]{1,9} ",
        1 => any::<String>().prop_map(|text| text.chars().take(6).collect()),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// The kept parts, and what was written between them.
fn check(text: &str, extract: &Extract, budget: u64) {
    assert!(tokens(&extract.text) <= budget);
    assert!(!extract.left_out.is_empty());
    let mut written = extract.text.as_str();
    let mut at = 0;
    for gap in &extract.left_out {
        assert!(at <= gap.start && gap.start < gap.end && gap.end <= text.len());
        written = written.strip_prefix(&text[at..gap.start]).expect("kept as it stands");
        written = written.strip_prefix(' ').unwrap_or(written).strip_prefix(MARK).expect("a mark for each gap");
        let blank =
            text[gap.clone()].bytes().rev().take_while(|byte| b"\r\n".contains(byte)).filter(|byte| *byte == b'\n');
        let ends = if gap.end < text.len() { blank.count().min(2) } else { 0 };
        written = written.strip_prefix(&"\n\n"[..ends]).expect("the line's end");
        at = gap.end;
    }
    assert_eq!(written, &text[at..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_kept_is_verbatim_and_fits(text in text(), question in text(), share in 1_u64..10) {
        let budget = tokens(&text) * share / 10;
        if let Some(extract) = cut(&text, &question, budget) {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&extract.text).is_ok());
            } else {
                check(&text, &extract, budget);
            }
            prop_assert_eq!(cut(&text, &question, budget), Some(extract));
        }
    }

    #[test]
    fn real_tokens_fit_too(text in text(), question in text(), share in 1_u64..10) {
        let count = |text: &str| Vocabulary::O200k.count(text).tokens;
        let budget = count(&text) * share / 10;
        if let Some(extract) = extract(&text, &question, budget, &count) {
            prop_assert!(count(&extract.text) <= budget);
        }
    }

    #[test]
    fn code_is_whole_or_left_out(before in text(), behind in text(), share in 1_u64..10) {
        let before = before.replace('`', "'");
        let text = format!("{before}\n{CODE}{}", behind.replace('`', "'"));
        if let Some(extract) = cut(&text, "bread", tokens(&text) * share / 10) {
            prop_assert_eq!(extract.text.contains(CODE.trim_end()), extract.text.contains("print"), "{}", extract.text);
        }
    }

    #[test]
    fn json_stays_json(entries in proptest::collection::vec((any::<String>(), any::<i64>(), text()), 2..20), share in 1_u64..10) {
        let object: serde_json::Map<String, serde_json::Value> =
            entries.iter().map(|(key, number, text)| (key.clone(), serde_json::json!([number, text, {}]))).collect();
        let values: Vec<serde_json::Value> = object.values().cloned().collect();
        for text in [serde_json::to_string(&object).unwrap(), serde_json::to_string_pretty(&values).unwrap()] {
            let budget = tokens(&text) * share / 10;
            if let Some(extract) = cut(&text, "bread", budget) {
                prop_assert!(tokens(&extract.text) <= budget);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&extract.text).is_ok(), "{}", extract.text);
            }
        }
    }

    #[test]
    fn facts_of_a_text_are_in_it(text in text()) {
        prop_assert_eq!(lost(&text, &text).count(), 0, "{:?}", lost(&text, &text));
    }

    #[test]
    fn no_text_panics(text in any::<String>(), question in any::<String>(), budget in any::<u64>()) {
        let _ = cut(&text, &question, budget);
        let _ = cut(&text, &question, budget % 20);
        let _ = lost(&text, &question);
    }
}
