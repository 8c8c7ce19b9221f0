//! The facts of a text that a shorter one may lose: numbers, names, links and code.
//!
//! By signs only, so that a model's summary can be checked without another model: what is found is worth looking for in the
//! summary, and a text has facts besides these. How many may be lost is not decided here.

use std::collections::{BTreeSet, HashSet};

use super::extractive::words::{is_stop, is_thousands};

/// Each fact once, as it is compared: numbers without separators of thousands, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub numbers: BTreeSet<String>,
    /// Words with a capital that begin no sentence, as far as they stand side by side; words in capitals or with a capital
    /// or a digit within.
    pub names: BTreeSet<String>,
    /// Addresses of pages and of mail.
    pub links: BTreeSet<String>,
    /// What stands in fences or backticks, calls, and words with a low line.
    pub code: BTreeSet<String>,
}

impl Facts {
    pub fn count(&self) -> usize {
        self.numbers.len() + self.names.len() + self.links.len() + self.code.len()
    }
}

/// The facts of `original` that `shortened` has not. A name or a piece of code is there if all of its words are.
pub fn lost(original: &str, shortened: &str) -> Facts {
    let mut facts = facts(original);
    let kept = self::facts(shortened);
    let words: HashSet<String> = words(shortened).collect();
    let is_lost = |fact: &String| !self::words(fact).all(|word| words.contains(&word));
    facts.numbers.retain(|number| !kept.numbers.contains(number));
    facts.links.retain(|link| !kept.links.contains(link));
    facts.names.retain(is_lost);
    facts.code.retain(is_lost);
    facts
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

pub fn facts(text: &str) -> Facts {
    let mut reader = Reader { facts: Facts::default(), name: String::new(), number: None, is_start: true };
    let mut fence: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let sign = ["```", "~~~"].into_iter().find(|sign| trimmed.starts_with(sign));
        match (fence, sign) {
            (Some((open, start)), Some(sign)) if sign == open => {
                reader.code(text.get(start..at).unwrap_or_default());
                fence = None;
            }
            (Some(_), _) => {}
            // "```x``` and more" is code within a line.
            (None, Some(sign)) if !trimmed.get(3..).unwrap_or_default().contains('`') => {
                fence = Some((sign, at + line.len()));
            }
            (None, _) => reader.line(line),
        }
        at += line.len();
    }
    if let Some((_, start)) = fence {
        reader.code(text.get(start..).unwrap_or_default());
    }
    reader.facts
}

/// Units that differ by little in writing and by much in what they say. As they are written: "mW" is not "MW".
const UNITS: [&str; 45] = [
    "%", "‰", "°", "C", "F", "K", "ng", "µg", "mcg", "mg", "g", "kg", "t", "lb", "lbs", "oz", "ml", "mL", "cl", "l",
    "L", "nm", "µm", "mm", "cm", "m", "km", "mi", "ft", "in", "ms", "s", "min", "h", "d", "KB", "MB", "GB", "TB", "mW",
    "W", "kW", "MW", "kWh", "MWh",
];

struct Reader {
    facts: Facts,
    /// That is being read.
    name: String,
    /// The word before, if it was a number.
    number: Option<String>,
    /// Of a sentence, where a capital says nothing.
    is_start: bool,
}

impl Reader {
    fn code(&mut self, code: &str) {
        self.end_name();
        self.is_start = false;
        if !code.trim().is_empty() {
            self.facts.code.insert(code.trim().to_owned());
        }
    }

    fn line(&mut self, line: &str) {
        self.is_start = true;
        let mut parts = line.split('`').peekable();
        while let Some(prose) = parts.next() {
            prose.split_whitespace().for_each(|chunk| self.chunk(chunk));
            // The last backtick of an odd number opens nothing.
            if let Some(code) = parts.next() {
                if parts.peek().is_some() {
                    self.code(code);
                } else {
                    code.split_whitespace().for_each(|chunk| self.chunk(chunk));
                }
            }
        }
        self.end_name();
    }

    /// What stands between two spaces.
    fn chunk(&mut self, chunk: &str) {
        let is_sign = |letter: char| {
            !letter.is_alphanumeric()
                && !matches!(letter, '_' | '/' | '@' | '#' | '&' | '=' | '-' | '−' | '%' | '‰' | '°')
        };
        let bare = chunk.trim_matches(is_sign);
        let is_mail = || bare.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
        let letters = || bare.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if bare.contains("://") || bare.starts_with("www.") || is_mail() {
            self.end_name();
            self.facts.links.insert(bare.trim_end_matches('/').to_owned());
            self.is_start = false;
        } else if letters() && (bare.contains('_') || chunk.contains("()")) {
            self.code(bare);
        } else {
            // A sign before a word parts it from the name before it, and so does one behind it.
            if !chunk.starts_with(char::is_alphanumeric) {
                self.end_name();
            }
            self.words(bare);
            if !chunk.ends_with(char::is_alphanumeric) {
                self.end_name();
            }
        }
        if chunk
            .trim_end_matches(['"', '\'', ')', ']', '*', '”', '’'])
            .ends_with(['.', '!', '?', ':', '。', '！', '？'])
        {
            self.is_start = true;
        } else if chunk.chars().any(char::is_alphanumeric) {
            self.is_start = false;
        }
    }

    fn words(&mut self, chunk: &str) {
        let bytes = chunk.as_bytes();
        let mut start = None;
        for (at, letter) in chunk.char_indices().chain([(chunk.len(), ' ')]) {
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            // "1,000", "3.14", "10:30".
            let is_joint = at > 0 && matches!(letter, '.' | ',' | ':') && is_digit(at - 1) && is_digit(at + 1);
            if letter.is_alphanumeric() || is_joint {
                start.get_or_insert(at);
            } else if let Some(start) = start.take() {
                // Below zero, if it is not a range, a date or a name of several parts.
                let is_below = chunk.get(..start).is_some_and(|before| matches!(before, "-" | "−" | "+-"));
                self.word(chunk.get(start..at).unwrap_or_default(), is_below);
            }
            if matches!(letter, '%' | '‰' | '°') {
                self.unit(&letter.to_string());
            }
        }
    }

    fn word(&mut self, word: &str, is_below: bool) {
        if word.starts_with(|letter: char| letter.is_ascii_digit()) {
            self.end_name();
            let end = word.find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, '.' | ',' | ':'));
            let number = word.get(..end.unwrap_or(word.len())).unwrap_or_default();
            let digits =
                number.char_indices().filter(|(at, _)| !is_thousands(number.as_bytes(), *at)).map(|(_, letter)| letter);
            let sign = if is_below { "-" } else { "" };
            let read: String = sign.chars().chain(digits).collect();
            self.facts.numbers.insert(read.clone());
            self.number = Some(read);
            // "5mg"
            self.unit(word.get(number.len()..).unwrap_or_default());
            return;
        }
        self.unit(word);
        self.number = None;
        let mut letters = word.chars();
        let is_capital = letters.next().is_some_and(char::is_uppercase);
        let is_mixed = letters.any(|letter| letter.is_uppercase() || letter.is_ascii_digit());
        // What a sentence begins with need not be one, nor is "I"; "Said" is one in "Port Said".
        let goes_on = || !self.name.is_empty() && word != "I";
        if is_mixed || (is_capital && !self.is_start && (goes_on() || !is_stop(word.to_lowercase().as_bytes()))) {
            if !self.name.is_empty() {
                self.name.push(' ');
            }
            self.name.push_str(&word.to_lowercase());
        } else {
            self.end_name();
        }
        self.is_start = false;
    }

    /// A number is another one with another unit.
    fn unit(&mut self, word: &str) {
        if UNITS.contains(&word)
            && let Some(number) = self.number.take()
        {
            self.facts.numbers.insert(format!("{number} {word}"));
        }
    }

    fn end_name(&mut self) {
        if !self.name.is_empty() {
            self.facts.names.insert(std::mem::take(&mut self.name));
        }
    }
}
