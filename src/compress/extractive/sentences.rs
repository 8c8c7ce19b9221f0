//! Where sentences of prose end.
//!
//! By signs, not by language: what is not surely an end is none, since half a sentence may say the opposite of the whole.
//! Lines and blocks are the business of `units.rs`.

/// In order; written before a stop that ends no sentence.
const ABBREVIATIONS: [&str; 56] = [
    "al", "approx", "apr", "art", "aug", "ave", "capt", "cf", "ch", "co", "col", "corp", "dec", "dept", "dr", "ed",
    "eds", "eg", "eq", "est", "etc", "feb", "fig", "figs", "gen", "gov", "hon", "ie", "inc", "jan", "jr", "lt", "ltd",
    "mar", "messrs", "mr", "mrs", "ms", "mt", "nos", "nov", "nr", "oct", "op", "pp", "prof", "rep", "rev", "sec",
    "sen", "sep", "sept", "sr", "st", "vol", "vs",
];

/// Calls `found` with the end of each sentence of `text`, what is behind the last stop included; the ends are behind the
/// stop and its closing quotation marks, before the space.
pub fn ends(text: &str, mut found: impl FnMut(usize)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut last = 0;
    // Behind which no code span begins, so that a text of lone backticks is not searched again and again.
    let mut open_code = usize::MAX;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'.' | b'!' | b'?' => {
                let stop = at;
                at = closed(text, at + 1);
                if is_end(text, last, stop, at) {
                    found(at);
                    last = at;
                }
            }
            b'`' if at < open_code => match code_end(bytes, at) {
                Some(end) => at = end,
                None => {
                    open_code = at;
                    at += 1;
                }
            },
            byte if byte.is_ascii() => at += 1,
            _ => {
                let letter = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
                if matches!(letter, '。' | '！' | '？' | '｡' | '।' | '॥' | '۔' | '؟' | '።' | '។') {
                    at = closed(text, at + letter.len_utf8());
                    found(at);
                    last = at;
                } else {
                    at += letter.len_utf8();
                }
            }
        }
    }
    if !text.get(last..).unwrap_or_default().trim().is_empty() {
        found(text.len());
    }
}

/// Behind the stops and closing signs that follow.
fn closed(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let is_closing = |letter: char| {
        matches!(
            letter,
            '.' | '!' | '?' | '"' | '\'' | ')' | ']' | '}' | '*' | '_' | '…' | '”' | '’' | '»' | '）' | '」' | '』'
        ) || matches!(letter, '。' | '！' | '？')
    };
    from + rest.find(|letter| !is_closing(letter)).unwrap_or(rest.len())
}

fn is_end(text: &str, start: usize, stop: usize, end: usize) -> bool {
    let behind = text.get(end..).unwrap_or_default();
    let Some(space) = behind.chars().next() else { return true };
    if !space.is_whitespace() {
        return false;
    }
    let before = text.get(start..stop).unwrap_or_default();
    // Texts that were split into words have the stop behind a space.
    if before.ends_with(char::is_whitespace) {
        return true;
    }
    let next = behind.chars().take(64).find(|letter| !letter.is_whitespace());
    if next.is_some_and(char::is_lowercase) {
        return false;
    }
    if text.as_bytes().get(stop) != Some(&b'.') || end > stop + 1 {
        return true;
    }
    let word = last_word(before);
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    // "1. First", "J. Smith", "U.S. Army", "no. 5".
    let is_item = is_number && before.trim().len() == word.len();
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    let is_numero = word.eq_ignore_ascii_case("no") && next.is_some_and(|letter| letter.is_ascii_digit());
    !(is_item || is_initial || is_numero || is_abbreviation(word))
}

/// The letters and digits that a text ends with, as far as it matters.
fn last_word(text: &str) -> &str {
    let start = text
        .char_indices()
        .rev()
        .take(16)
        .find(|(_, letter)| !letter.is_alphanumeric())
        .map_or_else(|| text.len().saturating_sub(16), |(at, letter)| at + letter.len_utf8());
    text.get(start..).unwrap_or_default()
}

fn is_abbreviation(word: &str) -> bool {
    let mut lower = [0_u8; 8];
    let Some(place) = lower.get_mut(..word.len()) else { return false };
    place.copy_from_slice(word.as_bytes());
    place.make_ascii_lowercase();
    std::str::from_utf8(place).is_ok_and(|word| ABBREVIATIONS.binary_search(&word).is_ok())
}

/// Behind the code span that begins here; it is closed by as many backticks as it is opened with.
fn code_end(bytes: &[u8], start: usize) -> Option<usize> {
    let run = |from: usize| bytes.get(from..).unwrap_or_default().iter().take_while(|byte| **byte == b'`').count();
    let opening = run(start);
    let mut at = start + opening;
    // Code within a line is short, and a text of unequal runs must not be searched to its end from each.
    let limit = (at + 400).min(bytes.len());
    while at < limit {
        if bytes.get(at) == Some(&b'`') {
            let closing = run(at);
            if closing == opening {
                return Some(at + closing);
            }
            at += closing;
        } else {
            at += 1;
        }
    }
    None
}
