//! What a summary has lost is found, and what it only writes otherwise is not.

use farthing::compress::facts::{facts, lost};

fn list(facts: &std::collections::BTreeSet<String>) -> Vec<&str> {
    facts.iter().map(String::as_str).collect()
}

#[test]
fn numbers_names_links_and_code_are_facts() {
    let facts = facts(
        "The ship left Port Said on Monday with 1,250 crates (3.5 t) for NASA. I saw it, and Mr O'Neill did; see \
         https://example.com/a?b=1, or write to ann@example.org. Use `let x = 1` or call get_user() at 10:30.\n\
         ```\nfn main() {}\n```\n",
    );
    assert_eq!(list(&facts.numbers), ["10:30", "1250", "3.5", "3.5 t"]);
    assert_eq!(list(&facts.names), ["monday", "mr o neill", "nasa", "port said"]);
    assert_eq!(list(&facts.links), ["ann@example.org", "https://example.com/a?b=1"]);
    assert_eq!(list(&facts.code), ["fn main() {}", "get_user", "let x = 1"]);
    assert_eq!(facts.count(), 13);
}

#[test]
fn what_begins_a_sentence_is_no_name() {
    assert_eq!(
        list(&facts("Then it rained. Nobody came. \"Where is it?\" \"Here!\" - So what: Nothing.").names),
        [""; 0]
    );
    assert_eq!(
        list(&facts("GPT4 and iPhone users like McDonald in A320.").names),
        ["a320", "gpt4", "iphone", "mcdonald"]
    );
}

#[test]
fn only_what_is_missing_is_lost() {
    let original = "We paid Anna Lindqvist 1,000 euros, not 950, on 3 May; see www.example.com and `run_all`.";
    let lost_nothing = lost(original, "950 was wrong: LINDQVIST, anna got 1000 on May 3 (www.example.com, run_all).");
    assert_eq!(lost_nothing.count(), 0, "{lost_nothing:?}");
    let facts = lost(original, "We paid Anna 1,0000 euros in June.");
    assert_eq!(list(&facts.numbers), ["1000", "3", "950"]);
    assert_eq!(list(&facts.names), ["anna lindqvist", "may"]);
    assert_eq!(list(&facts.links), ["www.example.com"]);
    assert_eq!(list(&facts.code), ["run_all"]);
}

#[test]
fn a_sign_and_a_unit_are_part_of_a_number() {
    let original = "At -18 °C, take 5 mg, or 20% of 2kg; from 3-4 on 2026-11-27.";
    assert_eq!(lost(original, "2026-11-27, 3-4: 2 kg, 20 %, 5mg, -18°C").count(), 0);
    for (other, wanted) in [
        ("At 18 °C, take 5 mg, or 20% of 2kg; from 3-4 on 2026-11-27.", ["-18", "-18 °"].as_slice()),
        ("At -18 °C, take 5 g, or 20% of 2kg; from 3-4 on 2026-11-27.", &["5 mg"]),
        ("At -18 °C, take 5 mg, or 20 of 2lb; from 3-4 on 2026-11-27.", &["2 kg", "20 %"]),
    ] {
        assert_eq!(list(&lost(original, other).numbers), wanted, "{other}");
    }
}

#[test]
fn nothing_has_no_facts() {
    assert_eq!(facts("").count(), 0);
    assert_eq!(facts("``` ` \n~~~").count(), 0);
    assert_eq!(lost("", "42 Paris").count(), 0);
}
