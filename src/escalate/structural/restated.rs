//! Answers that say the question again and nothing else.
//!
//! Sees the question's own words, in their order. Does not see a paraphrase. Where the text of the prompt is to be worked
//! on (corrected, quoted, completed), an answer like it is what was asked for, so only questions and plain echoes count.

use std::collections::HashSet;

/// Requests that a text be given back, changed a little or not at all.
const WORK: [&str; 36] = [
    "repeat",
    "echo",
    "copy",
    "correct",
    "proofread",
    "fix",
    "edit",
    "rewrite",
    "rephrase",
    "paraphrase",
    "translat",
    "format",
    "quote",
    "extract",
    "convert",
    "reply with",
    "respond with",
    "say ",
    "print",
    "output",
    "complete",
    "continue",
    "punctuat",
    "capitali",
    "spell",
    "improve",
    "korrigier",
    "übersetz",
    "wiederhol",
    "corrige",
    "tradui",
    "traduc",
    "repite",
    "повтор",
    "исправ",
    "翻译",
];
/// Longer prompts have a text in them.
const MOST_WORDS: usize = 400;

/// How sure it is that an answer only restates; None: it does not.
pub fn severity(prompt: &str, text: &str) -> Option<f64> {
    let (asked, said) = (words(prompt), words(text));
    if !(5..=MOST_WORDS).contains(&asked.len()) || said.len() > 3 * MOST_WORDS {
        return None;
    }
    let lower = prompt.to_lowercase();
    if WORK.iter().any(|word| lower.contains(word)) {
        return None;
    }
    if asked == said {
        return Some(0.9);
    }
    // "What is the capital of France? What is the capital of France?", "You ask what ...?"
    let is_question = prompt.contains(['?', '？', '؟']) && text.contains(['?', '？', '؟']);
    if !is_question || said.len() < 8 {
        return None;
    }
    let (of_prompt, of_answer) = (triples(&asked), triples(&said));
    let common = of_prompt.intersection(&of_answer).count();
    let known: HashSet<&String> = asked.iter().collect();
    let new = said.iter().filter(|word| !known.contains(word)).count();
    let covers = 10 * common >= 8 * of_prompt.len() && 10 * common >= 7 * of_answer.len();
    (covers && 5 * new <= said.len()).then_some(0.7)
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        // Enough to know that it is too long.
        .take(4 * MOST_WORDS)
        .map(str::to_lowercase)
        .collect()
}

fn triples(words: &[String]) -> HashSet<&[String]> {
    words.windows(3).collect()
}
