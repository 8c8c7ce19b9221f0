//! Whatever the answers are: they come back, or a flaw does.

use farthing::batch::{Flaw, Format, Pack, Shape, pack};
use proptest::prelude::*;
use serde_json::Value;

use super::pack_of;

/// Pieces that mean something in one format or the other.
const PIECES: [&str; 34] = [
    "1. ",
    "2. ",
    "3. x",
    "10. ",
    "1) ",
    "**1.** ",
    "Question 2: ",
    "Answer 1:",
    "### 3",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "   ",
    "\t",
    "```",
    "```json\n",
    "~~~",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "{\"1\": \"x\"}",
    "\"2\":\"y\"",
    "</question>",
    "<123 2>",
    "é\u{2028}🦀",
    "---",
    "I hope this helps",
];

fn answer() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        1 => "[a-z]{1,5}",
        1 => any::<String>().prop_map(|text| text.chars().take(6).collect()),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

fn answers() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(answer(), 1..13)
}

fn refs(answers: &[String]) -> Vec<&str> {
    answers.iter().map(String::as_str).collect()
}

/// As they come back: for lines without what is around them.
fn expected(pack: &Pack, answers: &[String]) -> Vec<Result<String, Flaw>> {
    let one = |answer: &String| match (answer.trim(), pack.format) {
        ("", _) => Err(Flaw::Empty),
        (_, Format::Json) => Ok(answer.clone()),
        (trimmed, Format::Lines) => Ok(trimmed.to_owned()),
    };
    answers.iter().map(one).collect()
}

const FORMATS: [Format; 2] = [Format::Json, Format::Lines];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_merged_is_split(answers in answers()) {
        for format in FORMATS {
            let pack = pack_of(answers.len(), format, &Shape::Text);
            let text = pack.merge(&refs(&answers));
            prop_assert_eq!(pack.split(&text, false), expected(&pack, &answers), "{}", text);
        }
    }

    #[test]
    fn json_answers_come_back(numbers in proptest::collection::vec((any::<i64>(), answer()), 1..5)) {
        let answers: Vec<String> =
            numbers.into_iter().map(|(number, text)| serde_json::json!({"1": number, "x": [text, {}]}).to_string()).collect();
        let schema = serde_json::json!({"name": "x", "schema": {"required": ["1"], "type": "object"}});
        for (format, shape) in FORMATS.into_iter().flat_map(|format| [(format, Shape::Object), (format, Shape::Schema(schema.clone()))]) {
            let pack = pack_of(answers.len(), format, &shape);
            let text = pack.merge(&refs(&answers));
            let wanted: Vec<_> = answers.iter().cloned().map(Ok).collect();
            prop_assert_eq!(pack.split(&text, false), wanted.clone());
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                for (found, whole) in pack.split(&text[..end], true).into_iter().zip(&wanted) {
                    prop_assert!(found.is_err() || found == *whole);
                }
            }
        }
    }

    #[test]
    fn any_text_has_an_entry_for_each(text in answer(), other in any::<String>(), count in 1_usize..5, is_cut in any::<bool>()) {
        for format in FORMATS {
            for shape in [Shape::Text, Shape::Object] {
                let pack = pack_of(count, format, &shape);
                prop_assert_eq!(pack.split(&text, is_cut).len(), count);
                prop_assert_eq!(pack.split(&other, is_cut).len(), count);
            }
        }
    }

    #[test]
    fn items_may_be_swapped(answers in answers(), seed in any::<u64>()) {
        let lines = pack_of(answers.len(), Format::Lines, &Shape::Text);
        let json = pack_of(answers.len(), Format::Json, &Shape::Text);
        let mut order: Vec<usize> = (0..answers.len()).collect();
        order.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        let numbered: Vec<String> = answers
            .iter()
            .zip(1..)
            .map(|(answer, number)| {
                // As one of several it has its own number.
                let alone = lines.merge(&[answer]);
                format!("{number}{}", alone.strip_prefix('1').unwrap())
            })
            .collect();
        let text: String = order.iter().map(|index| numbered[*index].as_str()).collect();
        prop_assert_eq!(lines.split(&text, false), expected(&lines, &answers), "{}", text);
        let members: Vec<String> =
            order.iter().map(|index| format!("\"{}\": {}", index + 1, Value::from(answers[*index].as_str()))).collect();
        let text = format!("{{{}}}", members.join(", "));
        prop_assert_eq!(json.split(&text, false), expected(&json, &answers));
    }

    #[test]
    fn a_cut_text_gives_whole_answers_or_none(answers in answers()) {
        for format in FORMATS {
            let pack = pack_of(answers.len(), format, &Shape::Text);
            let text = pack.merge(&refs(&answers));
            let whole = expected(&pack, &answers);
            for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
                let found = pack.split(&text[..end], true);
                for (found, whole) in found.iter().zip(&whole) {
                    prop_assert!(found.is_err() || found == whole, "{:?} of {:?}", found, &text[..end]);
                }
                if format == Format::Lines {
                    let last = found.iter().rposition(|item| *item != Err(Flaw::Missing));
                    prop_assert!(last.is_none_or(|last| found[last] == Err(Flaw::CutOff)), "{:?}", &text[..end]);
                }
            }
        }
    }

    #[test]
    fn no_question_knows_the_mark(questions in answers()) {
        let packed = pack(&refs(&questions), Format::Json, &Shape::Text);
        let mark = packed.message.rsplit("</").next().unwrap().strip_suffix(">\n").unwrap();
        prop_assert!(questions.iter().all(|question| !question.contains(mark)));
        prop_assert_eq!(packed.message.matches(&format!("<{mark} ")).count(), 1 + questions.len());
    }
}
