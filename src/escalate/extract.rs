//! What an answer comes to, and whether two answers come to the same.
//!
//! Sees marked answers (`\boxed{}`, `#### 42`, "the answer is"), bare numbers, letters and JSON; the rest is compared as
//! normalised text. Does not see that two sentences mean the same. Where in doubt, answers do not agree: a wrong "no"
//! costs a dearer call, a wrong "yes" the answer.

use serde_json::Value;

use super::latex::without_latex;
use super::number;

/// Bytes from the end of a long answer in which its result is looked for.
const TAIL: usize = 8 * 1024;

/// How two answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The whole texts, but for white space around them.
    Exact,
    /// The last numbers of what was extracted.
    Numeric,
    /// What was extracted, as [`normalised`].
    Normalised,
    /// JSON values; the order of fields and the way to write a number do not count.
    Json,
}

/// Whether two answers agree. `how`: None = decided by what the texts are. Empty answers agree with nothing.
pub fn agree(one: &str, other: &str, how: Option<Compare>) -> bool {
    if one.trim().is_empty() || other.trim().is_empty() {
        return false;
    }
    match how {
        Some(Compare::Exact) => one.trim() == other.trim(),
        Some(Compare::Numeric) => match (number_of(one), number_of(other)) {
            (Some(one), Some(other)) => one.is_same(&other),
            _ => false,
        },
        Some(Compare::Normalised) => normalised(&core(one)) == normalised(&core(other)),
        Some(Compare::Json) => match (json_of(one, false), json_of(other, false)) {
            (Some(one), Some(other)) => canonical(&one) == canonical(&other),
            _ => false,
        },
        None if one.trim() == other.trim() => true,
        None => match (json_of(one, true), json_of(other, true)) {
            (Some(one), Some(other)) => canonical(&one) == canonical(&other),
            (None, None) => cores_agree(&core(one), &core(other)),
            _ => literal(one).is_some_and(|one| literal(other).is_some_and(|other| one == other)),
        },
    }
}

/// What an answer comes to, in one form: canonical JSON, a letter, a number, or normalised text.
pub fn answer_of(text: &str) -> String {
    if let Some(json) = json_of(text, true) {
        return canonical(&json);
    }
    let core = core(text);
    match (lettered(&core), number::whole(&core)) {
        (Some((letter, "")), _) => letter.to_string(),
        (_, Some((number, unit))) if unit.is_empty() => number.to_string(),
        _ => normalised(&core),
    }
}

/// Lower case, without markup, punctuation and English articles, with single spaces (as SQuAD's evaluation does it,
/// Rajpurkar 2016). What tells `C++`, `x < 3` or `-5` from others stays. A text of nothing but punctuation stays as it is.
pub fn normalised(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let is_inside = before.is_alphanumeric() && characters.peek().is_some_and(|next| next.is_alphanumeric());
        match c {
            '’' | '\'' if is_inside => words.push('\''),
            '.' | ',' | ':' | '_' if is_inside => words.push(c),
            '−' | '–' => words.push('-'),
            c if is_punctuation(c) => words.push(' '),
            c => words.extend(c.to_lowercase()),
        }
        before = c;
    }
    let kept: Vec<&str> = words.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the")).collect();
    if kept.is_empty() { text.trim().to_owned() } else { kept.join(" ") }
}

fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '.' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '"'
            | '\''
            | '`'
            | '*'
            | '_'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '’'
            | '‘'
            | '“'
            | '”'
            | '„'
            | '«'
            | '»'
            | '…'
            | '。'
            | '、'
            | '，'
            | '！'
            | '？'
            | '：'
            | '；'
            | '「'
            | '」'
            | '（'
            | '）'
            | '¿'
            | '¡'
            | '।'
            | '؟'
            | '،'
    )
}

fn cores_agree(one: &str, other: &str) -> bool {
    if let (Some((one, rest)), Some((other, others))) = (lettered(one), lettered(other)) {
        return one == other && (rest.is_empty() || others.is_empty() || normalised(rest) == normalised(others));
    }
    if let (Some((one, unit)), Some((other, others))) = (number::whole(one), number::whole(other)) {
        return one.is_same(&other) && units_agree(&unit, &others);
    }
    match (literal(one), literal(other)) {
        (None, None) => normalised(one) == normalised(other),
        (one_literal, other_literal) => {
            one_literal.unwrap_or_else(|| one.to_owned()) == other_literal.unwrap_or_else(|| other.to_owned())
        }
    }
}

/// A value as programs write it: in quotes, or a list or a record of such. Its case, spaces and punctuation count; the kind
/// of quotes and the spaces after commas and colons do not. Quotes around the whole are taken off.
fn literal(text: &str) -> Option<String> {
    let text = text.trim();
    let is_pair = |open: char, close: char| text.len() > 1 && text.starts_with(open) && text.ends_with(close);
    for quote in ['"', '\''] {
        if is_pair(quote, quote) {
            return text.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned);
        }
    }
    let has_quotes = text.contains(['"', '\'']);
    if !has_quotes || !(text.starts_with(['[', '{', '(']) || text.ends_with([']', '}', ')'])) {
        return None;
    }
    Some(text.replace('"', "'").replace(", ", ",").replace(": ", ":"))
}

/// A unit that only one names is no contradiction, unless it counts.
fn units_agree(one: &str, other: &str) -> bool {
    let counts = |unit: &str| unit.starts_with("dozen") || unit.starts_with("score");
    if one.is_empty() || other.is_empty() {
        return !counts(one) && !counts(other);
    }
    one.trim_end_matches('s') == other.trim_end_matches('s')
}

fn number_of(text: &str) -> Option<number::Number> {
    let core = core(text);
    number::whole(&core).map(|(number, _)| number).or_else(|| number::last(&core)).or_else(|| number::last(text))
}

/// A choice by its letter: `B`, `(b)`, `B) Paris`, `B: Paris`, `B. Paris`; the letter and what follows it.
fn lettered(text: &str) -> Option<(char, &str)> {
    let text = text.trim();
    let inner = text.trim_start_matches(['(', '[', '*', '"', '\'']);
    let mut characters = inner.chars();
    let letter = characters.next().filter(char::is_ascii_alphabetic)?;
    let rest = characters.as_str();
    let tail = rest.trim_matches([')', ']', '*', '.', ':', '"', '\'', ' ']);
    if tail.is_empty() {
        return Some((letter.to_ascii_uppercase(), ""));
    }
    let is_marked = rest.starts_with([')', ']', ':', '.']) && !rest.starts_with(".)");
    let is_spaced = rest.trim_start_matches([')', ']', ':', '.', '*']).starts_with(char::is_whitespace);
    (is_marked && is_spaced && letter <= 'j' && (letter.is_ascii_lowercase() || letter <= 'J'))
        .then(|| (letter.to_ascii_uppercase(), tail))
}

/// JSON that is the whole text, or all of its one code block. `nested`: objects and lists only.
fn json_of(text: &str, nested: bool) -> Option<Value> {
    let text = after_thinking(text).trim();
    let inner = text.strip_prefix("```").and_then(|text| text.strip_suffix("```")).map_or(text, |block| {
        let (info, body) = block.split_once('\n').unwrap_or(("", block));
        if matches!(info.trim(), "" | "json" | "JSON") { body } else { block }
    });
    let value = serde_json::from_str::<Value>(inner.trim()).ok()?;
    (!nested || value.is_object() || value.is_array()).then_some(value)
}

/// Fields in order, numbers in one form.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            number::whole(&text).map_or(text, |(number, _)| number.to_string())
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields =
                fields.into_iter().map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// What comes after a reasoning model's thoughts.
pub fn after_thinking(text: &str) -> &str {
    text.rsplit_once("</think>").map_or(text, |(_, answer)| answer)
}

/// The part of a text that is the answer, without markup; the whole text if none is marked. Of long texts, the mark is
/// looked for near the end.
fn core(text: &str) -> String {
    let text = after_thinking(text).trim();
    let plain = text.replace("**", "");
    let tail = ending(&plain);
    let found = boxed(tail).or_else(|| hashed(tail)).or_else(|| announced(tail)).or_else(|| concluded(tail));
    without_latex(found.unwrap_or(&plain)).trim().trim_matches('`').trim().to_owned()
}

/// The last [`TAIL`] bytes of a text, from where a word begins.
fn ending(text: &str) -> &str {
    let start = text.len().saturating_sub(TAIL);
    if start == 0 {
        return text;
    }
    let tail = &text[text.ceil_char_boundary(start)..];
    tail.find(char::is_whitespace).map_or(tail, |space| &tail[space..])
}

/// The last `\boxed{...}`.
fn boxed(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("\\boxed{")?;
    let mut depth = 1_usize;
    for (place, c) in after.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return after.get(..place);
        }
    }
    None
}

/// GSM8K's form.
fn hashed(text: &str) -> Option<&str> {
    let line = text.trim_end().lines().next_back()?;
    line.trim_start().strip_prefix("####").map(str::trim).filter(|answer| !answer.is_empty())
}

/// What follows the last "the answer is", up to the end of its sentence.
fn announced(text: &str) -> Option<&str> {
    const MARKS: [&str; 27] = [
        "answer is",
        "answer:",
        "answer :",
        "answer =",
        "antwort ist",
        "antwort lautet",
        "antwort:",
        "réponse est",
        "réponse:",
        "réponse :",
        "respuesta es",
        "respuesta:",
        "risposta è",
        "risposta:",
        "resposta é",
        "resposta:",
        "antwoord is",
        "antwoord:",
        "答案是",
        "答案为",
        "答案：",
        "答案:",
        "答えは",
        "答え：",
        "답은",
        "ответ:",
        "Ответ:",
    ];
    // Of the same length as the text.
    let lower = text.to_ascii_lowercase();
    let end = MARKS.iter().filter_map(|mark| lower.rfind(mark).map(|start| start + mark.len())).max()?;
    let tail = text.get(end..)?.trim_start_matches([':', '：', ' ', '\n', '\r', '\t', '=']);
    let line = tail.lines().next()?.trim();
    let answer = line[..end_of_sentence(line)].trim();
    let answer = answer.strip_suffix('.').unwrap_or(answer);
    (!answer.is_empty()).then_some(answer)
}

/// Where the first sentence of a line ends. A stop after one or two characters is an abbreviation's.
fn end_of_sentence(line: &str) -> usize {
    let mut length_of_word = 0_usize;
    let mut characters = line.char_indices().peekable();
    while let Some((place, c)) = characters.next() {
        let is_before_space = characters.peek().is_some_and(|(_, next)| *next == ' ');
        if c == '。' || (c == '.' && is_before_space && length_of_word > 2) {
            return place;
        }
        length_of_word = if c.is_whitespace() { 0 } else { length_of_word + 1 };
    }
    line.len()
}

/// The result of a last line such as `3 * 6 = 18 eggs`, or the one number of a last sentence such as "So she has 18 eggs".
fn concluded(text: &str) -> Option<&str> {
    const WORDS: [&str; 12] = [
        "so",
        "therefore",
        "thus",
        "hence",
        "altogether",
        "also",
        "somit",
        "insgesamt",
        "donc",
        "entonces",
        "quindi",
        "portanto",
    ];
    let line = text.trim_end().lines().next_back()?.trim();
    if let Some((left, right)) = line.rsplit_once('=')
        && left.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == ')')
        && number::whole(right.trim_matches(['$', ' ', '.'])).is_some()
    {
        return Some(right.trim_matches(['$', ' ', '.']));
    }
    let sentence = line.trim_end_matches('.').rsplit(". ").next()?.trim();
    let first = sentence.split(|c: char| !c.is_alphabetic()).next()?.to_lowercase();
    if !WORDS.contains(&first.as_str()) || number::all(sentence).len() != 1 {
        return None;
    }
    sentence
        .split_whitespace()
        .find(|word| word.contains(|c: char| c.is_ascii_digit()))
        .map(|word| word.trim_matches(|c: char| matches!(c, ',' | ';' | '!' | '(' | ')' | '"')))
}
