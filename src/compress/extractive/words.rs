//! Terms: what words of a question and of a text are compared by.
//!
//! A term is a number made of a word in lower case without its ending, so that no word is stored; two words of one number
//! do no more than a little harm. What a term is worth is `score.rs`.

pub use super::stop::is_stop;

/// Of a question and of a text the same word is the same number, in every run.
pub type Term = u32;

/// The terms of all units of a text, one after the other.
pub struct Terms {
    terms: Vec<Term>,
    ends: Vec<usize>,
}

impl Terms {
    pub fn read<'a>(units: impl Iterator<Item = &'a str>) -> Self {
        let (mut terms, mut ends) = (Vec::new(), Vec::new());
        for unit in units {
            each(unit, |term, _| terms.push(term));
            ends.push(terms.len());
        }
        Self { terms, ends }
    }

    pub fn of(&self, unit: usize) -> &[Term] {
        let start = unit.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(unit).copied().unwrap_or(start);
        self.terms.get(start..end).unwrap_or_default()
    }

    pub fn units(&self) -> usize {
        self.ends.len()
    }

    pub fn count(&self) -> usize {
        self.terms.len()
    }
}

/// The terms of a question that say what it is about, each once, in order.
pub fn content(question: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    each(question, |term, word| {
        if !is_stop(word) && terms.len() < MOST_QUESTION {
            terms.push(term);
        }
    });
    let mut seen = std::collections::HashSet::new();
    terms.retain(|term| seen.insert(*term));
    terms
}

/// Terms of a question that are looked at.
const MOST_QUESTION: usize = 1 << 16;
/// Bytes of a word that count: longer runs (base64) are compared by their beginning.
const MOST_WORD: usize = 48;

/// Each term of a text with its word in lower case ("" for one that is not ASCII).
pub fn each(text: &str, mut found: impl FnMut(Term, &[u8])) {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut word = [0_u8; MOST_WORD];
    while let Some(byte) = bytes.get(at) {
        if byte.is_ascii_alphanumeric() {
            let (end, length) = ascii_word(bytes, at, &mut word);
            if bytes.get(end).is_none_or(u8::is_ascii) {
                let word = word.get(..length).unwrap_or_default();
                found(hash(stem(word)), word);
                at = end;
            } else {
                at = other_word(text, at, &mut found);
            }
        } else if byte.is_ascii() {
            at += 1;
        } else {
            at = other_word(text, at, &mut found);
        }
    }
}

/// Where the word that begins here ends, and how many bytes of it were written; "1,000" is "1000".
fn ascii_word(bytes: &[u8], start: usize, word: &mut [u8; MOST_WORD]) -> (usize, usize) {
    let (mut at, mut length) = (start, 0);
    while let Some(byte) = bytes.get(at) {
        if byte.is_ascii_alphanumeric() {
            if let Some(place) = word.get_mut(length) {
                *place = byte.to_ascii_lowercase();
                length += 1;
            }
        } else if !is_thousands(bytes, at) {
            break;
        }
        at += 1;
    }
    (at, length)
}

/// A comma between digits with three behind it.
pub fn is_thousands(bytes: &[u8], at: usize) -> bool {
    bytes.get(at) == Some(&b',')
        && at > 0
        && bytes.get(at - 1).is_some_and(u8::is_ascii_digit)
        && bytes.get(at + 1..at + 4).is_some_and(|group| group.iter().all(u8::is_ascii_digit))
        && !bytes.get(at + 4).is_some_and(u8::is_ascii_digit)
}

/// The run of letters from here on, of which some are not ASCII; pairs of signs where words are not spaced.
fn other_word(text: &str, start: usize, found: &mut impl FnMut(Term, &[u8])) -> usize {
    let mut hash = Hash::default();
    let mut last: Option<char> = None;
    let mut is_alone = false;
    let mut is_word = false;
    let mut end = text.len();
    for (at, letter) in text.get(start..).unwrap_or_default().char_indices() {
        if is_unspaced(letter) {
            if is_word {
                end = start + at;
                break;
            }
            if let Some(before) = last {
                found(pair(before, letter), b"");
                is_alone = false;
            } else {
                is_alone = true;
            }
            last = Some(letter);
        } else if letter.is_alphanumeric() && last.is_none() {
            is_word = true;
            letter.to_lowercase().for_each(|letter| hash.add(letter as u32));
        } else {
            end = start + at;
            break;
        }
    }
    if is_word {
        found(hash.get(), b"");
    } else if let Some(alone) = last.filter(|_| is_alone) {
        found(pair(alone, '\0'), b"");
    }
    // A sign that is no letter is passed over.
    if end == start {
        start + text.get(start..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
    } else {
        end
    }
}

/// Scripts that write no spaces between words: Thai to Khmer, kana, Han. (Hangul has spaces, but its particles stick.)
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3041}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{20000}'..='\u{3134f}')
        && letter.is_alphanumeric()
}

fn pair(first: char, second: char) -> Term {
    let mut hash = Hash::default();
    hash.add(first as u32);
    hash.add(second as u32);
    hash.get()
}

fn hash(word: &[u8]) -> Term {
    let mut hash = Hash::default();
    word.iter().for_each(|byte| hash.add(u32::from(*byte)));
    hash.get()
}

/// FNV-1a, with its bits mixed at the end so that any of them may choose a place in a table.
#[derive(Clone, Copy)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub fn add(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x0100_0000_01b3);
    }

    pub fn get(self) -> Term {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }
}

/// A word without the endings that English puts to it (the plural as in Harman 1991, "How effective is suffixing?", then
/// -ed and -ing, then a last e). Words of other languages that end so lose the same on both sides.
fn stem(word: &[u8]) -> &[u8] {
    if word.len() < 4 || word.iter().any(u8::is_ascii_digit) {
        return word;
    }
    let cut = |word: &'_ [u8], by: usize| word.len().saturating_sub(by);
    let mut end = match word {
        [.., b's', b's', b'e', b's'] | [.., b'x' | b'z', b'e', b's'] | [.., b'c' | b's', b'h', b'e', b's'] => {
            cut(word, 2)
        }
        // "ies" and "y" meet in "i".
        [_, _, .., b'i', b'e', b's'] => cut(word, 2),
        [.., b's' | b'u' | b'i', b's'] => word.len(),
        [.., b's'] => cut(word, 1),
        _ => word.len(),
    };
    let part = |end: usize| word.get(..end).unwrap_or(word);
    let is_word = |stem: &[u8]| stem.len() >= 3 && stem.iter().any(|letter| b"aeiouy".contains(letter));
    for suffix in [&b"ing"[..], b"ed"] {
        if let Some(stem) = part(end).strip_suffix(suffix)
            && is_word(stem)
        {
            end = stem.len();
            if let [.., a, b] = stem
                && a == b
                && !b"lsz".contains(a)
            {
                end -= 1;
            }
            break;
        }
    }
    match part(end) {
        [_, _, _, .., b'e' | b'y' | b'i'] => part(end - 1),
        stem => stem,
    }
}

/// Counts by term in a table that does not grow: terms that share a place share a count, and no text makes it slow.
pub struct Table {
    counts: Vec<u32>,
    mask: usize,
}

impl Table {
    /// For about so many different terms.
    pub fn new(terms: usize) -> Self {
        let size = terms.saturating_mul(2).clamp(1 << 10, 1 << 22).next_power_of_two();
        Self { counts: vec![0; size], mask: size - 1 }
    }

    pub fn get(&self, term: Term) -> u32 {
        self.counts.get(term as usize & self.mask).copied().unwrap_or(0)
    }

    pub fn set(&mut self, term: Term, value: u32) {
        if let Some(place) = self.counts.get_mut(term as usize & self.mask) {
            *place = value;
        }
    }
}

/// Which terms were seen, in a table that does not grow either.
pub struct Seen {
    bits: Vec<u64>,
    mask: usize,
}

impl Seen {
    /// For about so many different terms.
    pub fn new(terms: usize) -> Self {
        let size = (terms / 8).clamp(1 << 4, 1 << 18).next_power_of_two();
        Self { bits: vec![0; size], mask: size - 1 }
    }

    pub fn has(&self, term: Term) -> bool {
        self.bits.get((term >> 6) as usize & self.mask).is_some_and(|bits| bits >> (term & 63) & 1 == 1)
    }

    pub fn add(&mut self, term: Term) {
        if let Some(bits) = self.bits.get_mut((term >> 6) as usize & self.mask) {
            *bits |= 1 << (term & 63);
        }
    }
}
