//! What of a text is kept for a question, and what is never torn apart.

use farthing::compress::extractive::{MARK, extract};
use farthing::tokens::Vocabulary;
use serde_json::Value;

use super::{cut, tokens};

const STORY: &str = "The mill was built in 1840 by a farmer. It has not been used for flour since the war. Today a baker, Anna \
                     Lindqvist, lives in it. The river beside it freezes in most winters. Her bread costs 4.50 a loaf, and no \
                     less. Tourists come by bus in summer. The bus does not run on Sundays. A museum is planned for next year.";

fn kept(text: &str, question: &str, budget: u64) -> String {
    cut(text, question, budget).unwrap().text
}

#[test]
fn the_sentence_that_answers_is_kept_whole_and_the_gaps_are_marked() {
    let text = kept(STORY, "What does the bread cost?", 24);
    assert_eq!(text, format!("{MARK} Her bread costs 4.50 a loaf, and no less. {MARK}"));
    let text = kept(STORY, "Who has used the mill?", 30);
    assert!(
        text.starts_with("The mill was built in 1840 by a farmer. It has not been used for flour since the war. […]"),
        "{text}"
    );
}

#[test]
fn what_fits_or_cannot_be_cut_is_left_alone() {
    assert_eq!(cut(STORY, "What does the bread cost?", 10_000), None);
    assert_eq!(cut(STORY, "What does the bread cost?", tokens(STORY)), None);
    assert_eq!(cut(&"word ".repeat(500), "word?", 50), None);
    assert_eq!(cut(STORY, "What does the bread cost?", 0), None);
    assert_eq!(cut(STORY, "What does the bread cost?", 3), None);
    assert_eq!(cut("", "", 0), None);
}

#[test]
fn what_was_left_out_can_be_found_in_the_original() {
    let extract = cut(STORY, "What does the bread cost?", 24).unwrap();
    let left_out: Vec<&str> = extract.left_out.iter().map(|range| &STORY[range.clone()]).collect();
    assert_eq!(left_out.len(), 2);
    assert!(left_out[0].starts_with("The mill") && left_out[0].ends_with("in most winters."));
    assert!(left_out[1].starts_with(" Tourists") && left_out[1].ends_with("next year."));
}

#[test]
fn the_mark_is_cheap() {
    for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k] {
        assert!(vocabulary.count(&format!(" {MARK}\n")).tokens <= 4);
    }
}

#[test]
fn abbreviations_numbers_and_code_end_no_sentence() {
    let text = "Filler sentence number one is here. Dr. J. Smith of Acme Inc. paid $3.50 e.g. for `a. B. c` at example.com. Filler \
                sentence number two is here. Another filler sentence stands here.";
    let answer = "Dr. J. Smith of Acme Inc. paid $3.50 e.g. for `a. B. c` at example.com.";
    assert_eq!(kept(text, "What did Smith pay?", 40), format!("{MARK} {answer} {MARK}"));
}

#[test]
fn a_line_that_was_broken_to_fit_a_page_is_no_end() {
    let text = "The committee met on the third of May and talked about\nthe new bridge, which will not be paid for by the\ncity \
                but by the state.\nThe weather was fine and all of the members were\nin a good mood until the evening came.\n";
    let text = kept(text, "Who pays for the bridge?", 40);
    assert!(
        text.contains("talked about\nthe new bridge, which will not be paid for by the\ncity but by the state."),
        "{text}"
    );
}

#[test]
fn an_item_may_go_on_in_the_next_line() {
    let text = "Rules of the house and of the garden:\n- The gate of the garden is closed by the last who leaves, but is\n  never locked.\n- Bicycles \
                stand behind the house and nowhere else at all, for the\n  firemen need the way.\n- Cats are welcome.\n";
    let text = kept(text, "Is the gate locked?", 28);
    assert!(text.contains("by the last who leaves, but is\n  never locked.\n"), "{text}");
    assert!(!text.contains("firemen"), "{text}");
}

#[test]
fn who_speaks_stays_with_what_is_said() {
    let long = "Well, I wonder about many things in this project these days. We have seen a lot of designs and heard a lot of \
                talk. The battery must not cost more than 40 cents. I also like the idea of a bell on it. And then there is lunch, \
                which I should not forget to mention here.";
    let text = format!(
        "Anna: Hello everybody, and welcome to the meeting.\nMarketing: {long}\nBen: Fine with me.\nAnna: Good, let us go on then.\n"
    );
    let text = kept(&text, "What may the battery cost?", 24);
    assert_eq!(text, format!("{MARK}\nMarketing: {MARK} The battery must not cost more than 40 cents. {MARK}"));
}

#[test]
fn headings_and_first_rows_come_with_what_is_under_them() {
    let text = "# Prices\n\nThey hold for a year from now on.\n\n| item | price |\n|---|---|\n| apple | 3 |\n| pear | 4 |\n| plum | 5 \
                |\n| fig | 6 |\n\n# History\n\nThe shop was founded long ago by two brothers.\n";
    assert_eq!(
        kept(text, "plum", 30),
        format!("# Prices\n\n{MARK}\n\n| item | price |\n|---|---|\n{MARK}\n| plum | 5 |\n{MARK}\n\n").trim_end()
    );
}

#[test]
fn code_in_fences_is_kept_whole_or_not_at_all() {
    let code = "```python\ndef price(x):\n    # not less. Never!\n\n    return x * 2\n```\n";
    let text = format!(
        "How to begin with it is told here.\n\n{code}\nThe weather is of no interest here. Nor is the moon, really.\n"
    );
    let with = kept(&text, "How is price defined?", 45);
    assert!(with.contains(code), "{with}");
    let without = kept(&text, "Is the moon of interest?", 20);
    assert!(!without.contains("def") && !without.contains("```") && without.contains("moon"), "{without}");
}

#[test]
fn the_same_is_not_said_twice() {
    let same = "The budget for the new office is 40,000 euros this year.";
    let text = format!(
        "{same}\n\nBirds sing.\n\n{same}\n\n{same}\n\nThe office budget was cut once before, in the spring of last year.\n\nCats sleep.\n"
    );
    let text = kept(&text, "What is the office budget?", 44);
    assert_eq!(text.matches(same).count(), 1, "{text}");
    assert!(text.contains("cut once before"), "{text}");
}

#[test]
fn a_question_about_nothing_gets_something_of_each_part() {
    let text: String = (0..120)
        .map(|day| format!("On day {day} the ship sailed on and the crew mended net number {}. ", day * 7))
        .collect();
    for question in ["Summarize the whole text.", "", "?!"] {
        let extract = cut(&text, question, tokens(&text) / 4).unwrap();
        for part in 0..4 {
            let days = part * 30..part * 30 + 30;
            let found = days.filter(|day| extract.text.contains(&format!("On day {day} "))).count();
            assert!((2..20).contains(&found), "{found} of part {part} for {question:?}");
        }
    }
}

#[test]
fn other_scripts_have_sentences_and_words_too() {
    let text =
        "会議は月曜日に始まった。新しい電池の値段は四十円を超えてはならない。昼食は魚だった。天気はとても良かった。";
    let text = extract(text, "電池の値段はいくらですか", 32, &|text| text.chars().count() as u64).unwrap().text;
    assert!(text.contains("新しい電池の値段は四十円を超えてはならない。"), "{text}");
    assert!(text.contains(MARK), "{text}");
    let text =
        "बैठक सोमवार को शुरू हुई। नई बैटरी की कीमत चालीस रुपये से अधिक नहीं होगी। मौसम बहुत अच्छा था। दोपहर का भोजन मछली था।";
    let text = extract(text, "बैटरी की कीमत क्या है", 75, &|text| {
        text.chars().count() as u64
    })
    .unwrap()
    .text;
    assert_eq!(text, format!("{MARK} नई बैटरी की कीमत चालीस रुपये से अधिक नहीं होगी। {MARK}"));
}

#[test]
fn entries_of_json_stay_exact_and_it_stays_json() {
    let pairs: Vec<String> = (0..60).map(|number| format!("\"key-{number}\": \"value {}\"", number * 31)).collect();
    let text = format!("{{{}}}", pairs.join(", "));
    let extract = cut(&text, "What is the value of key-41?", 60).unwrap();
    let parsed: Value = serde_json::from_str(&extract.text).unwrap();
    assert_eq!(parsed["key-41"], "value 1271");
    let left_out = 60 - (parsed.as_object().unwrap().len() - 1);
    assert_eq!(parsed["…"], format!("{left_out} entries left out"));
}

#[test]
fn the_list_within_an_object_is_what_is_cut() {
    let rows: Vec<Value> = (0..50)
        .map(|id| serde_json::json!({"id": id, "city": format!("Town{id}"), "price": id as f64 + 0.5}))
        .collect();
    let text =
        serde_json::to_string_pretty(&serde_json::json!({"total": 50, "rows": rows, "page": {"next": null}})).unwrap();
    let extract = cut(&text, "What does the flight to Town33 cost?", 200).unwrap();
    let parsed: Value = serde_json::from_str(&extract.text).unwrap();
    assert_eq!(parsed["total"], 50);
    assert_eq!(parsed["page"], serde_json::json!({"next": null}));
    let found = parsed["rows"].as_array().unwrap();
    assert!(found.contains(&rows[33]));
    assert!(found.last().unwrap().as_str().unwrap().ends_with("left out"));
    assert!(found.iter().all(|row| row.is_string() || rows.contains(row)));
}

#[test]
fn a_million_short_lines_and_one_huge_line_come_to_an_end() {
    // Something quadratic would take hours.
    // Not the tokens: what is around them is measured.
    let count = |text: &str| text.len() as u64;
    let lines: String = (0..300_000).map(|line| format!("{} ok\n", line % 977)).collect();
    assert!(extract(&lines, "Which line has 500?", lines.len() as u64 / 4, &count).is_some());
    for sign in
        ["a", "`", ". ", "A. ", "「", "[", "{", "|", "# x\n", "```\n", "a: ", "\n", "“ ", "...", "।", "。", "।a "]
    {
        let text = sign.repeat(1_000_000 / sign.len());
        if let Some(extract) = extract(&text, "a", 10_000, &count) {
            assert!(extract.text.len() <= 10_000);
        }
    }
}

#[test]
fn among_very_many_lines_the_one_that_answers_is_found() {
    let mut lines: Vec<String> = (0..60_000).map(|number| format!("# {}\nrow {number}", number / 1000)).collect();
    lines[41_234] = "# 41\nThe battery costs 4.50".to_owned();
    let text = lines.join("\n");
    let extract = cut(&text, "What does the battery cost?", 2_000).unwrap();
    assert!(tokens(&extract.text) <= 2_000);
    assert!(extract.text.contains("# 41\nThe battery costs 4.50\n"), "{}", extract.text);
    for line in extract.text.lines().filter(|line| !line.contains(MARK)) {
        assert!(lines.iter().any(|known| known.lines().any(|part| part == line)), "{line}");
    }
}

#[test]
fn a_row_is_kept_whole_or_not_at_all() {
    let long = "word ".repeat(40);
    let rows: Vec<String> = (0..20)
        .map(|at| format!("[{at}, \"name {at}\", \"{}\", {}]", if at == 3 { &*long } else { "x" }, at * 7))
        .collect();
    let text = format!("{{\"columns\": [\"id\", \"name\", \"body\", \"price\"], \"rows\": [{}]}}", rows.join(", "));
    let found: serde_json::Value = serde_json::from_str(&cut(&text, "name 12", 120).unwrap().text).unwrap();
    assert_eq!(found["columns"].as_array().unwrap().len(), 4);
    let rows = found["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row.is_string() || row.as_array().unwrap().len() == 4), "{found}");
    assert!(rows.iter().any(|row| row[1] == "name 12"), "{found}");
    // A mark in the place of each gap.
    let marks: Vec<&str> = rows.iter().filter_map(|row| row.as_str()).collect();
    assert!(marks.len() >= 2 && marks.iter().all(|mark| mark.ends_with(" left out")), "{found}");
}

#[test]
fn what_is_told_by_its_place_is_not_cut() {
    let vector: Vec<String> = (0..200).map(|at| format!("0.{at}")).collect();
    assert_eq!(cut(&format!("[{}]", vector.join(", ")), "0.17", 50), None);
    let code = "def f(x):\n    if not x.is_open():\n        raise ValueError(x)\n    return x.read()\n".repeat(20);
    assert_eq!(cut(&code, "why is ValueError raised?", 100), None);
    let yaml = "web:\n  image: a/b\n  ports:\n    - 8000\n    - 8001\n".repeat(20);
    assert_eq!(cut(&yaml, "which image?", 100), None);
}
