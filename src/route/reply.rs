//! The tier that a classifier's reply names.

use serde_json::Value;

/// Bytes of a reply that are looked at.
const MOST: usize = 4096;

/// A, B, C, ... by the tier's place.
pub(super) fn letter(place: usize) -> char {
    char::from(b'A' + u8::try_from(place % 26).unwrap_or_default())
}

/// Whether letters can stand for the tiers: there are enough, and no name is a letter itself.
pub(super) fn has_letters(tiers: &[String]) -> bool {
    let is_letter = |tier: &String| tier.len() == 1 && tier.bytes().all(|byte| byte.is_ascii_alphabetic());
    tiers.len() <= 26 && !tiers.iter().any(is_letter)
}

pub(super) fn parse(text: &str, tiers: &[String]) -> Option<usize> {
    // Thoughts name many labels.
    let text = text.rsplit_once("</think>").map_or(text, |(_, rest)| rest).trim();
    let text = &text[..text.floor_char_boundary(MOST)];
    if let Some(place) = tiers.iter().position(|tier| !tier.is_empty() && tier == text) {
        return Some(place);
    }
    if let Some(said) = in_json(text) {
        return by_text(&said, tiers);
    }
    by_text(text, tiers)
}

/// The label in a JSON object, wherever it stands in the text.
fn in_json(text: &str) -> Option<String> {
    let (start, end) = (text.find('{')?, text.rfind('}')?);
    let object: Value = serde_json::from_str(text.get(start..=end)?).ok()?;
    let object = object.as_object()?;
    let named = ["tier", "label", "category", "class", "answer"].iter().find_map(|name| object.get(*name));
    let only = || object.values().next().filter(|_| object.len() == 1);
    named.or_else(only)?.as_str().map(str::to_owned)
}

fn by_text(text: &str, tiers: &[String]) -> Option<usize> {
    let exact = |tier: &String| !tier.is_empty() && tier == text.trim();
    if let Some(place) = tiers.iter().position(exact) {
        return Some(place);
    }
    let lettered = by_letter(text, tiers);
    match mentioned(text, tiers).as_slice() {
        [] => lettered,
        // "A: code" where A is another tier says two things.
        [place] => lettered.is_none_or(|other| other == *place).then_some(*place),
        _ => None,
    }
}

/// The one letter that a text is, once its dress is off; or the one that a list's item begins with.
fn by_letter(text: &str, tiers: &[String]) -> Option<usize> {
    if !has_letters(tiers) {
        return None;
    }
    let is_dress = |c: char| !c.is_alphanumeric();
    let mut rest = text.trim_matches(is_dress);
    for prefix in ["the", "label", "answer", "tier", "letter", "category", "option", "is"] {
        let Some(head) = rest.get(..prefix.len()) else { continue };
        let after = &rest[prefix.len()..];
        if head.eq_ignore_ascii_case(prefix) && after.starts_with(is_dress) {
            rest = after.trim_start_matches(is_dress);
        }
    }
    let mut letters = rest.chars();
    let first = letters.next().filter(char::is_ascii_alphabetic)?;
    if !matches!(letters.next(), None | Some(')' | '.' | ':' | ']' | '*' | '\n')) {
        return None;
    }
    let place = usize::from(first.to_ascii_uppercase() as u8 - b'A');
    (place < tiers.len()).then_some(place)
}

/// The tiers that a text names, the longer names first: "code-hard" does not name "code".
fn mentioned(text: &str, tiers: &[String]) -> Vec<usize> {
    let mut text = text.to_lowercase();
    let mut names: Vec<(usize, String)> =
        tiers.iter().map(|tier| tier.trim().to_lowercase()).enumerate().filter(|(_, name)| !name.is_empty()).collect();
    names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
    let mut found = Vec::new();
    for (place, name) in names.iter().filter(|(_, name)| name.len() <= MOST) {
        let places: Vec<usize> = text.match_indices(name.as_str()).map(|(at, _)| at).collect();
        let whole: Vec<usize> = places.into_iter().filter(|at| is_whole(&text, *at, at + name.len())).collect();
        if whole.is_empty() {
            continue;
        }
        if whole.iter().any(|at| is_denied(&text[..*at])) {
            // What it is not says nothing of what it is.
            return Vec::new();
        }
        found.push(*place);
        // Two tiers whose names differ in their case are both meant, so only shorter names must not see this one.
        let same = names.iter().filter(|(other, known)| other != place && known == name).map(|(other, _)| *other);
        found.extend(same);
        text = text.replace(name.as_str(), "\u{1}");
    }
    found
}

fn is_whole(text: &str, start: usize, end: usize) -> bool {
    // Scripts without spaces have no ends of words.
    let goes_on = |c: char| (c.is_alphanumeric() && u32::from(c) < 0x2E80) || c == '_';
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    !before.is_some_and(goes_on) && !after.is_some_and(goes_on)
}

fn is_denied(before: &str) -> bool {
    let word = before.trim_end_matches(|c: char| !c.is_alphanumeric()).rsplit(|c: char| c.is_whitespace()).next();
    word.is_some_and(|word| matches!(word, "not" | "no" | "never" | "isn't" | "isn’t" | "than"))
}

pub(super) fn confidence(top: &[(String, f64)], tiers: &[String], chosen: usize) -> Option<f64> {
    let (mut own, mut all) = (0.0, 0.0);
    for (token, logprob) in top.iter().filter(|(_, logprob)| !logprob.is_nan() && *logprob <= 0.0) {
        let Some(place) = by_token(token, tiers) else { continue };
        all += logprob.exp();
        own += if place == chosen { logprob.exp() } else { 0.0 };
    }
    (all > 0.0).then(|| own / all)
}

/// The only tier that begins with a token.
fn by_token(token: &str, tiers: &[String]) -> Option<usize> {
    let token = token.trim_matches(|c: char| !c.is_alphanumeric());
    if let Some(place) = by_letter(token, tiers).filter(|_| token.len() == 1) {
        return Some(place);
    }
    let token = token.to_lowercase();
    let mut begun = tiers.iter().enumerate().filter(|(_, tier)| tier.to_lowercase().starts_with(&token));
    let (place, _) = begun.next().filter(|_| !token.is_empty())?;
    begun.next().is_none().then_some(place)
}
