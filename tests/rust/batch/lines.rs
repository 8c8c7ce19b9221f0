//! Answers as numbered items.

use farthing::batch::{Format, Shape};

use super::{pack_of, read};

fn check(count: usize, text: &str, is_cut: bool, expected: &[&str]) {
    assert_eq!(read(&pack_of(count, Format::Lines, &Shape::Text), text, is_cut), expected, "{text}");
}

#[test]
fn heads_of_many_kinds_are_known() {
    for text in [
        "1. a\n2. b\n3. c",
        "1. a\n\n2. b\n\n\n3. c\n",
        "1. a\r\n2. b\r\n3. c\r\n",
        "1) a\n2) b\n3) c",
        "1: a\n2: b\n3: c",
        "**1.** a\n**2.** b\n**3.** c",
        "**1**. a\n**2**. b\n**3**. c",
        "### 1.\na\n### 2.\nb\n### 3.\nc",
        "### Question 1\n\na\n\n### Question 2\n\nb\n\n### Question 3\n\nc",
        "Question 1: a\nQuestion 2: b\nQuestion 3: c",
        "Input 1: a\nInput 2: b\nInput 3: c",
        "<think>\n1. x\n2. y\n3. z\n</think>\n1. a\n2. b\n3. c",
        "**Answer 1:** a\n---\n**Answer 2:** b\n---\n**Answer 3:** c\n---",
        "Here are the answers:\n\n1. a\n2. b\n3. c",
        "1. a\n2. b\n3. c\n\nLet me know if you need more!",
        "1. a\n3. c\n2. b",
        "```\n1. a\n2. b\n3. c\n```",
    ] {
        check(3, text, false, &["a", "b", "c"]);
    }
    check(2, "**1. Paris**\n**2. Rome**, of course", false, &["**Paris**", "**Rome**, of course"]);
    check(2, "1. 1.5\n2.5 is more\n10:30, too\n2. b", false, &["1.5\n2.5 is more\n10:30, too", "b"]);
}

#[test]
fn answers_of_several_lines() {
    check(2, "1. a\n   b\n\n     c\n2. d", false, &["a\nb\n\n  c", "d"]);
    check(2, "1. a\nb\n\n   c\n2. d", false, &["a\nb\n\n   c", "d"]);
    check(2, "1. Steps:\n   1. x\n   2. y\n   3. z\n2. d", false, &["Steps:\n1. x\n2. y\n3. z", "d"]);
    check(2, "1. ```\n2. x\n```\n2. d", false, &["```\n2. x\n```", "d"]);
    check(2, "1. So:\n```\n2. x\n```\n2. d", false, &["So:\n```\n2. x\n```", "d"]);
    check(2, "1. So:\n   ```\n   2. x\n   ```\n2. d", false, &["So:\n```\n2. x\n```", "d"]);
    check(2, "1. So: ```\n2. d", false, &["So: ```", "d"]);
    check(2, "1.\n2. d", false, &["!Empty", "d"]);
}

#[test]
fn lists_within_answers() {
    // Only one increasing sequence has all numbers.
    check(4, "1. a\n2. b\n3. c:\n1. x\n2. y\n4. d", false, &["a", "b", "c:\n1. x\n2. y", "d"]);
    // The list may be the items.
    check(3, "1. a\n2. b:\n1. x\n2. y\n3. c", false, &["!Double"; 3]);
    check(3, "1. a\n2. b\n3. c\n\nAgain:\n1. x\n2. y\n3. z", false, &["!Double"; 3]);
    // The answers once more, or a list in the last one.
    check(3, "1. a\n2. b\n3. c\n1. x\n2. y", false, &["!Double"; 3]);
    check(3, "1. a\n2. b\n3. c\n1. x", false, &["!Double", "b", "!Double"]);
    // Told apart by their style.
    check(2, "**1.** a:\n1. x\n2. y\n3. z\n**2.** b", false, &["a:\n1. x\n2. y\n3. z", "b"]);
    check(3, "1. a:\n1) x\n2) y\n2. b\n3. c", false, &["a:\n1) x\n2) y", "b", "c"]);
    check(2, "1. a:\n1) x\n2) y\n2. b", false, &["!Double"; 2]);
    check(2, "1. plan\n2. more\n**1.** a\n**2.** b", false, &["!Double"; 2]);
    check(3, "**1.** a:\n1. x\n2. y\n3. z\n**3.** c", false, &["!Double"; 3]);
    check(2, "Question 1: a?\nAnswer 1: b\nQuestion 2: c?\nAnswer 2: d", false, &["!Double"; 2]);
}

#[test]
fn what_is_missing_double_or_too_much() {
    check(3, "1. a\n3. c", false, &["a", "!Missing", "c"]);
    check(3, "1. a\n3. c", false, &["a", "!Missing", "c"]);
    // The second may be the third, or what was left out the second.
    check(3, "1. a\n2. b", false, &["!Missing"; 3]);
    check(3, "0. a\n1. b\n2. c", false, &["!Double"; 3]);
    check(3, "1. a\n2. b\n2. x\n3. c", false, &["a", "!Double", "c"]);
    check(3, "3. c\n1. a", false, &["!Double", "!Missing", "!Double"]);
    // The second answer may be in the first.
    check(3, "1. a\n\nAnd the second: b\n3. c", false, &["!Double", "!Missing", "c"]);
    check(3, "1. a\n 2. b\n3. c", false, &["!Double", "!Missing", "c"]);
    check(3, "1. a\n```\n2. b\n```\n3. c\n", false, &["!Double", "!Missing", "c"]);
    check(3, "1. a 2. b 3. c", false, &["!Missing"; 3]);
    check(3, "1. a\n3. c and **2.** b", false, &["a", "!Missing", "!Double"]);
    check(3, "1. a\n   Question 2\n   b\n3. c", false, &["!Double", "!Missing", "c"]);
    // Behind the last one may be a part of it.
    check(3, "1. a\n2. b\n3. c\n4. d", false, &["a", "b", "!Double"]);
    check(3, "1. a\n7. x\n2. b\n3. c", false, &["!Double"; 3]);
    check(3, "0. x\n1. a\n2. b\n3. c", false, &["a", "b", "c"]);
    check(3, "", false, &["!Missing"; 3]);
    check(3, "All three are the same.", false, &["!Missing"; 3]);
}

#[test]
fn the_last_item_of_a_text_that_is_cut() {
    check(3, "1. a\n2. b", true, &["a", "!CutOff", "!Missing"]);
    check(3, "1. a\n2. b\n3. c", true, &["a", "b", "!CutOff"]);
    check(3, "1. a\n2", true, &["!CutOff", "!Missing", "!Missing"]);
    check(2, "1. a\n```\n2. b", true, &["!CutOff", "!Missing"]);
    check(2, "2. b\n1. a", true, &["!CutOff", "b"]);
    check(3, "1. a:\n   1. x\n   2. y\n   3. z\n2. b", true, &["a:\n1. x\n2. y\n3. z", "!CutOff", "!Missing"]);
}

#[test]
fn remarks_at_the_end() {
    check(2, "1. a\n2. b\n\nI hope this helps.", false, &["a", "b"]);
    check(2, "1. a\n2. b\n---\nIf you have any questions, ask.", false, &["a", "b"]);
    check(2, "1. a\n2. b\nmore of b", false, &["a", "b\nmore of b"]);
    check(2, "1. a\n2. b\n\nThe second was hard.", false, &["a", "!Double"]);
    check(2, "1. a\n2. Dear all,\n\nI hope this finds you well", false, &["a", "!Double"]);
    check(2, "1. a\n\nmore of a\n2. b\n\nmore of b", false, &["a\n\nmore of a", "b\n\nmore of b"]);
}

#[test]
fn json_in_lines() {
    let pack = pack_of(3, Format::Lines, &Shape::Object);
    let text = "1. {\"a\": 1}\n2. ```json\n{\"b\":\n 2}\n```\n3. [3]";
    assert_eq!(read(&pack, text, false), ["{\"a\": 1}", "{\"b\":\n 2}", "!Invalid"]);
}

#[test]
fn long_and_odd_texts_are_read_in_time() {
    let pack = pack_of(3, Format::Lines, &Shape::Text);
    for text in ["```\n", "```x\n", "~~~x\n   y\n", "1. a\n", "1. ```\n\n", "1. a\n2. b\n3. c\n", "\n", "**", "#", "9"]
    {
        for is_cut in [true, false] {
            assert_eq!(pack.split(&text.repeat(50_000), is_cut).len(), 3);
        }
    }
}
