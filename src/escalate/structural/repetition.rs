//! Models that got stuck: the same words, lines or sentences over and over.
//!
//! Sees a text whose end repeats one piece, and prose most of whose runs of eight words came before. Does not see a text
//! that says the same in other words. Choruses, tables, rulers, lists of labels and columns of numbers are no findings.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Bytes from the end in which a loop is looked for.
const TAIL: usize = 32 * 1024;
/// Words in a run.
const RUN: usize = 8;
/// Runs that there must be, and the share of different ones below which a text is a loop.
const LEAST_RUNS: usize = 120;
const LEAST_NEW: f64 = 0.3;
/// Words that a label has at most, and labels in a list of the same ones.
const FEW: usize = 2;
/// Requests for repetition, in the words of several languages.
const ASKED: [&str; 16] = [
    "repeat",
    " times",
    "over and over",
    "wiederhol",
    " mal ",
    "répèt",
    "répét",
    " fois",
    "repite",
    "repita",
    "veces",
    "ripeti",
    " vezes",
    "повтор",
    "重复",
    "繰り返",
];

/// How sure it is that a text is a loop; None: it is not. `prose`: the text without its code and its tables. `is_cut`: it
/// ran into its limit; a list of the same label, or of two, comes to its end, and a model that got stuck does not.
pub fn severity(text: &str, prose: &str, context: &str, is_cut: bool) -> Option<f64> {
    let loops = is_loop(text, is_cut) || is_worn(prose, is_cut);
    let asked = || {
        let context = context.to_lowercase();
        ASKED.iter().any(|word| context.contains(word))
    };
    (loops && !asked()).then_some(0.9)
}

/// Whether the end of a text is one piece many times. Linear: the Z function of the reversed text.
fn is_loop(text: &str, is_cut: bool) -> bool {
    let text = text.trim_end();
    let start = text.len().saturating_sub(TAIL);
    let tail = &text.as_bytes()[start..];
    let reversed: Vec<u8> = tail.iter().rev().copied().collect();
    let lengths = prefixes(&reversed);
    // Pieces that were looked at, and how far they repeat. A piece made of such a one says nothing new, and each that is
    // not is several times as long as those before: few are.
    let mut known: Vec<(usize, usize)> = Vec::new();
    for period in 1..=reversed.len() / 4 {
        let repeated = lengths.get(period).copied().unwrap_or(0) + period;
        let is_made_of = |(shorter, end): &(usize, usize)| period % shorter == 0 && *end >= period;
        if repeated < 4 * period || 5 * repeated < tail.len() || known.iter().any(is_made_of) {
            continue;
        }
        let unit = reversed.get(..period).unwrap_or_default();
        if repeated >= least(unit) && (is_cut || !is_of_labels(unit)) {
            return true;
        }
        known.push((period, repeated));
    }
    false
}

/// Whether a piece is made of one label or of two. `unit`: reversed, which its words do not mind.
fn is_of_labels(unit: &[u8]) -> bool {
    /// Of scripts without blanks, a word may be a whole sentence: that has more characters, or the full stop.
    const LONGEST: usize = 4;
    const STOP: [u8; 3] = [0x82, 0x80, 0xE3];
    let mut different = HashSet::new();
    // The first bytes of characters from U+1000 on are from 0xE1 on.
    let is_sentence = |word: &[u8]| word.iter().filter(|byte| **byte >= 0xE1).count() > LONGEST;
    unit.split(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).all(|word| {
        different.insert(word);
        different.len() <= FEW && !is_sentence(word) && !word.starts_with(&STOP)
    })
}

/// Bytes that so many of a piece must fill to be a loop. `unit`: reversed, its letters are as good.
fn least(unit: &[u8]) -> usize {
    let letters = unit.iter().filter(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii()).count();
    if letters == 0 {
        // Rulers, dots, zeros.
        return usize::MAX;
    }
    let words = unit.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    let has_line = unit.contains(&b'\n');
    let has_cells = unit.contains(&b'|') || unit.contains(&b'"') || unit.contains(&b'{');
    match (has_line, words) {
        _ if has_cells => usize::MAX,
        // One label a line.
        (true, ..=3) => 200 * unit.len(),
        (true, _) => (6 * unit.len()).max(300),
        // A list of labels in a line.
        (false, _) if unit.contains(&b',') && words <= 2 => 200 * unit.len(),
        (false, ..=3) => (12 * unit.len()).max(150),
        (false, _) => (6 * unit.len()).max(300),
    }
}

/// For each place, how many bytes from there on are as at the beginning (Gusfield 1997).
fn prefixes(text: &[u8]) -> Vec<usize> {
    let mut lengths = vec![0; text.len()];
    let (mut left, mut right) = (0, 0);
    for at in 1..text.len() {
        let mut length = if at < right { lengths[at - left].min(right - at) } else { 0 };
        while at + length < text.len() && text[length] == text[at + length] {
            length += 1;
        }
        if at + length > right {
            (left, right) = (at, at + length);
        }
        lengths[at] = length;
    }
    lengths
}

/// Whether most runs of words came before. Numbers do not count, so that a loop that counts is one, too.
fn is_worn(prose: &str, is_cut: bool) -> bool {
    let words: Vec<&str> = prose
        .lines()
        // Shorter lines are labels and verses.
        .filter(|line| line.split_whitespace().nth(4).is_some() || line.chars().count() > 40)
        .filter(|line| !is_list(line))
        .flat_map(|line| line.split(|c: char| !c.is_alphabetic()))
        .filter(|word| !word.is_empty())
        .collect();
    let different: HashSet<&&str> = words.iter().collect();
    if different.len() <= FEW && !is_cut {
        return false;
    }
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut runs = 0_usize;
    for run in words.windows(RUN) {
        runs += 1;
        seen.insert(hasher.hash_one(run));
    }
    #[allow(clippy::cast_precision_loss)]
    let share = seen.len() as f64 / runs.max(1) as f64;
    runs >= LEAST_RUNS && share < LEAST_NEW
}

/// Labels with separators between them, in one line.
fn is_list(line: &str) -> bool {
    let separators = line.matches([',', ';', '|', '/', '、', '，']).count();
    separators >= 4 && line.split_whitespace().count() <= FEW * (separators + 1)
}
