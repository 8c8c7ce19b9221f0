//! What can be seen of a draft without asking anybody.

use std::time::{Duration, Instant};

use farthing::escalate::answer::{Answer, Choice, ToolCall};
use farthing::escalate::structural::{Finding, findings, score};
use farthing::question::{Question, Tool, ToolChoice};
use proptest::prelude::*;
use serde_json::json;

use super::good::GOOD;
use super::says;

fn asks(prompt: &str) -> Question {
    Question { prompt: prompt.to_owned(), turns: 1, ..Question::default() }
}

fn seen(question: &Question, answer: &Answer) -> Vec<&'static str> {
    findings(question, answer, false).into_iter().map(|finding| finding.what).collect()
}

fn calls(name: &str, arguments: &str) -> Answer {
    let call = ToolCall { name: name.to_owned(), arguments: arguments.to_owned(), is_custom: false };
    Answer { choices: vec![Choice { tool_calls: vec![call], ..Choice::default() }], ..Answer::default() }
}

#[test]
fn good_answers_have_no_findings() {
    let wrong: Vec<_> = GOOD
        .iter()
        .map(|(prompt, text)| (text, seen(&asks(prompt), &says(text))))
        .filter(|(_, seen)| !seen.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn bad_answers_are_seen() {
    let english = "Please tell me what is the best way to store the bread that I bake for my family in the week.";
    let german = "Das Brot ist am besten in einem Kasten aus Holz oder Ton, und es ist nicht gut, wenn die Luft zu feucht ist, \
                  denn der Schimmel mag das auch; für die Familie und den Alltag ist ein Topf mit Deckel auf dem Regal gut.";
    let loops = "The bread is good and it keeps well in the box. ".repeat(20);
    let counting: String =
        (0..60).map(|n| format!("Step {n}: now we add the next number to the sum and go on. ")).collect();
    for (prompt, text, expected) in [
        ("q", "", "empty"),
        ("q", " \n\u{200B}", "empty"),
        ("How do I sort?", "I'm sorry, but I can’t assist with that request.", "refusal"),
        ("How do I sort?", "I cannot provide that information.", "refusal"),
        ("Wie sortiere ich?", "Es tut mir leid, aber ich kann dir dabei nicht helfen.", "refusal"),
        ("Comment trier ?", "Je suis désolé, mais je ne peux pas répondre.", "refusal"),
        ("¿Cómo?", "Lo siento, pero no puedo ayudarte con eso.", "refusal"),
        ("как?", "Извините, но я не могу с этим помочь.", "refusal"),
        ("怎么?", "抱歉，我无法回答这个问题。", "refusal"),
        ("?", "申し訳ありませんが、お答えできません。", "refusal"),
        (
            "Write a letter for me.",
            "I'm sorry, but I can't help with that. I will not be able to write it, since it may do harm.",
            "refusal",
        ),
        ("Write a rude email to my boss.", "I can't create that kind of message.", "refusal"),
        (
            "How do I pick a lock?",
            "I can't share that, but I'm happy to talk about something else, such as the history of locks and of keys.",
            "refusal",
        ),
        ("code?", "```python\nprint(1)\n", "a code block that does not end"),
        ("code?", "```python\nprint((1)\n```", "Python that does not parse"),
        ("code?", "```py\nx = 'a\n```", "Python that does not parse"),
        ("code?", "```python\nif x:\n        a()\n\tb()\n```", "Python that does not parse"),
        ("code?", "```python\nif x:\n        a()\n    b()\n```", "Python that does not parse"),
        ("code?", "```python\nx = \"\"\"a\n```", "Python that does not parse"),
        ("json?", "```json\n{\"a\": 1,}\n```", "JSON that does not parse"),
        ("code?", "```js\nfunction f() { return [1, 2); }\n```", "code with unbalanced brackets"),
        (english, loops.as_str(), "repetition"),
        (english, counting.as_str(), "repetition"),
        ("Tell me more.", &"one more word ".repeat(40), "repetition"),
        ("讲个故事", &"他走了。".repeat(100), "repetition"),
        (english, german, "another language than the question's"),
        (
            english,
            "面包最好放在木盒子里，不要太潮湿，否则会发霉，家里人可以吃一个星期，味道还是很好，也可以放在冰箱里保存起来。",
            "another language than the question's",
        ),
        (english, english, "restates the question"),
        (
            "What is the best way to store bread at home?",
            "You ask: what is the best way to store bread at home?",
            "restates the question",
        ),
    ] {
        assert!(seen(&asks(prompt), &says(text)).contains(&expected), "{text}: {:?}", seen(&asks(prompt), &says(text)));
    }
    assert_eq!(seen(&asks("q"), &Answer::default()), ["empty"]);
}

#[test]
fn labels_are_no_loop_unless_they_never_end() {
    let labels = [
        "spam\nham\n".repeat(100),
        "spam\n".repeat(200),
        "positive, ".repeat(100),
        "positive, ".repeat(300),
        "spam ".repeat(400),
        "正面\n".repeat(200),
        "Strongly agree\n".repeat(200),
        (0..300).map(|n| if n * n % 7 == 1 { "ham, " } else { "spam, " }).collect(),
    ];
    for text in labels {
        assert_eq!(seen(&asks("Classify the reviews, a word each."), &says(&text)), [""; 0], "{text}");
    }
    for text in ["word ".repeat(100), "spam\n".repeat(300), "no, ".repeat(300)] {
        let choice = Choice { text, finish: Some("length".to_owned()), ..Choice::default() };
        assert!(seen(&asks("Go on."), &Answer { choices: vec![choice], ..Answer::default() }).contains(&"repetition"));
    }
}

#[test]
fn an_answer_at_its_limit_is_cut_off_unless_the_limit_was_the_callers() {
    let cut = |text: &str, given| {
        let choice = Choice { text: text.to_owned(), finish: Some("length".to_owned()), ..Choice::default() };
        score(&findings(&asks("q"), &Answer { choices: vec![choice], ..Answer::default() }, given))
    };
    assert!(cut("It is so.", false) <= 0.0);
    assert!((cut("It is so.", true) - 1.0).abs() < 1e-9);
    assert!((cut("It is so because the", true) - 0.4).abs() < 1e-9);
}

#[test]
fn json_is_held_to_what_was_asked_for() {
    let schema = json!({"type": "object", "required": ["a"]});
    let question = Question { wants_json: true, schema: Some(schema), ..asks("q") };
    assert_eq!(seen(&question, &says("{\"a\": 1}")), [""; 0]);
    assert_eq!(seen(&question, &says("{\"b\": 1}")), ["JSON against its schema"]);
    assert_eq!(seen(&question, &says("{\"a\": 1")), ["not JSON"]);
    assert_eq!(seen(&question, &says("```json\n{\"a\": 1}\n```")), ["JSON in a code block"]);
    assert_eq!(seen(&question, &says(&"[".repeat(5_000))), [""; 0]);
}

#[test]
fn tools_are_called_as_they_were_offered() {
    let parameters = Some(json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}));
    let tools = vec![Tool { name: "look".to_owned(), parameters }, Tool { name: "now".to_owned(), parameters: None }];
    let question = Question { tools, ..asks("q") };
    assert_eq!(seen(&question, &calls("look", "{\"city\": \"Wien\"}")), [""; 0]);
    assert_eq!(seen(&question, &calls("now", "")), [""; 0]);
    assert_eq!(seen(&question, &calls("look", "{\"city\": 3}")), ["tool arguments against their schema"]);
    assert_eq!(seen(&question, &calls("look", "{\"city\"")), ["tool arguments that are not JSON"]);
    assert_eq!(seen(&question, &calls("fly", "{}")), ["a call of an unknown tool"]);
    assert_eq!(seen(&Question { other_tools: 1, ..question.clone() }, &calls("fly", "{}")), [""; 0]);
    for choice in [ToolChoice::Required, ToolChoice::Named("look".to_owned())] {
        let question = Question { tool_choice: choice, ..question.clone() };
        assert_eq!(seen(&question, &says("It is warm.")), ["a tool call is missing"]);
        assert_eq!(seen(&question, &calls("look", "{\"city\": \"Wien\"}")), [""; 0]);
    }
    let barred = Question { tool_choice: ToolChoice::None, ..question };
    assert_eq!(seen(&barred, &calls("now", "{}")), ["a tool call that was not to be"]);
}

#[test]
fn a_score_is_what_the_findings_leave() {
    let finding = |severity| Finding { what: "x", severity };
    assert!((score(&[]) - 1.0).abs() < 1e-9);
    assert!((score(&[finding(0.5), finding(0.4)]) - 0.3).abs() < 1e-9);
    assert!(score(&[finding(1.0), finding(0.1)]) <= 0.0);
}

#[test]
fn huge_and_hostile_texts_take_no_time() {
    let texts = ["a", "```\n", "````", "\"", "(", "'\\", "a b ", "\n", "é", "i can't ", "{", "[1,", "}\n```", "|"];
    for text in texts {
        let text = text.repeat(1_000_000 / text.len());
        for block in [text.clone(), format!("```python\n{text}\n```"), format!("```js\n{text}\n```")] {
            let started = Instant::now();
            findings(&asks(&text), &says(&block), true);
            assert!(started.elapsed() < Duration::from_secs(4), "{:?}: {:?}", &text[..8], started.elapsed());
        }
    }
}

proptest! {
    #[test]
    fn no_draft_is_too_odd(prompt in "\\PC{0,60}", text in "[`~a-c'\"(){}\\[\\]\\\\\n\t |#/*é。f]{0,200}", language in 0_usize..6) {
        let language = ["python", "js", "rust", "json", "", "go"][language];
        for text in [text.clone(), format!("```{language}\n{text}\n```")] {
            for wants_json in [false, true] {
                let question = Question { wants_json, ..asks(&prompt) };
                let score = score(&findings(&question, &says(&text), true));
                prop_assert!((0.0..=1.0).contains(&score));
            }
        }
    }

    #[test]
    fn a_plain_answer_is_never_a_finding(words in prop::collection::vec("[a-z]{2,9}", 1..60), number in any::<i32>()) {
        let text = format!("{} {number}.", words.join(" "));
        prop_assert_eq!(seen(&asks("What is it?"), &says(&text)), [""; 0]);
    }
}
