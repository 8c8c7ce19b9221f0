//! What a prompt looks like, in numbers: one pass over its bytes, no call, no regular expression.
//!
//! Length, form and the words that ask for steps: surface marks, and no more. What they are worth is in `docs/routing.md`.

use super::words::{self, FIRST, Words, step};

/// Places of [`Features::values`], by name.
pub const NAMES: [&str; COUNT] = [
    "length",
    "words",
    "word_length",
    "lines",
    "digits",
    "operators",
    "fences",
    "identifiers",
    "steps",
    "constraints",
    "questions",
    "foreign",
    "turns",
    "tools",
    "schema",
    "output",
];
pub const COUNT: usize = 16;

/// Hashed words: as many places as the learned router has weights for.
pub const BUCKETS: usize = 4096;

/// What is known of a request besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Messages of the user's, this one included.
    pub turns: usize,
    pub tools: usize,
    /// A JSON schema is asked for.
    pub has_schema: bool,
    /// Tokens that the answer may have; None = not said.
    pub max_output: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// In the order of [`NAMES`], scaled so that a usual prompt is within a few units of 0.
    pub values: [f32; COUNT],
    /// Words by their hash, each once, in ascending order.
    pub buckets: Vec<u16>,
}

/// What was counted in a text and around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub characters: u32,
    pub words: u32,
    pub lines: u32,
    pub code_fences: u32,
    pub identifiers: u32,
    /// Names of programming languages and the like.
    pub code_names: u32,
    /// Words of programmers that others use too.
    pub code_words: u32,
    pub digits: u32,
    pub operators: u32,
    pub steps: u32,
    /// Words that ask for more than one step of thought by themselves.
    pub reasoning_words: u32,
    pub constraints: u32,
    pub questions: u32,
    /// Letters beyond ASCII.
    pub foreign_letters: u32,
    /// Messages of the user's.
    pub turns: u32,
    pub tools: u32,
    pub has_schema: bool,
    /// Tokens that the answer may have; None = not said.
    pub max_output: Option<u64>,
}

/// One pass over a text.
#[derive(Debug, Default)]
pub struct Scan {
    pub features: Features,
    pub counts: Counts,
    /// Words that each language has among its commonest, in the order of `language::WORDS`.
    pub languages: [u32; 8],
}

/// The features of a prompt: usually the text of the last message of the user's.
pub fn features(text: &str, around: &Surroundings) -> Features {
    scan(text, around).features
}

/// [`features`], with what they were made from.
pub fn scan(text: &str, around: &Surroundings) -> Scan {
    let known = Words::get();
    let bytes = text.as_bytes();
    let mut buckets = Vec::with_capacity(bytes.len() / 5);
    let mut counts = Counts { lines: 1, ..Counts::default() };
    let mut languages = [0; 8];
    let mut letters = 0_u32;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            let mut hash = FIRST;
            let (start, mut has_line, mut changes) = (at, false, 0_u32);
            let (mut was_lower, foreign_before) = (false, counts.foreign_letters);
            while let Some(&byte) = bytes.get(at) {
                match byte {
                    b'a'..=b'z' => was_lower = true,
                    b'A'..=b'Z' => {
                        changes += u32::from(was_lower);
                        was_lower = false;
                    }
                    b'0'..=b'9' => {}
                    b'_' => has_line = true,
                    0x80.. => counts.foreign_letters += u32::from(byte >= 0xc0),
                    _ => break,
                }
                hash = step(hash, byte.to_ascii_lowercase());
                at += 1;
            }
            counts.words += 1;
            letters += (at - start) as u32;
            counts.identifiers += u32::from(has_line || changes > 0 || bytes.get(at) == Some(&b'(') && at - start > 1);
            let word = known.of(hash);
            count_marks(&mut counts, word.marks);
            if word.languages != 0 {
                for (language, count) in languages.iter_mut().enumerate() {
                    *count += u32::from(word.languages >> language & 1);
                }
            }
            let is_sign = at == start + 1 && (bytes[at..].starts_with(b"++") || bytes[at..].starts_with(b"#"));
            counts.code_names += u32::from(is_sign && matches!(bytes[start], b'c' | b'C'));
            if counts.foreign_letters > foreign_before && word.marks == 0 {
                count_inner(&mut counts, known, &bytes[start..at]);
            }
            buckets.push((hash as usize % BUCKETS) as u16);
            continue;
        }
        match byte {
            b'0'..=b'9' => counts.digits += 1,
            b'=' | b'+' | b'*' | b'/' | b'^' | b'<' | b'>' | b'\\' | b'$' | b'%' | b'{' | b'}' | b'|' => {
                counts.operators += 1;
            }
            b'?' => counts.questions += 1,
            b'`' if bytes[at..].starts_with(b"```") => {
                counts.code_fences += 1;
                at += 2;
            }
            b'\n' => {
                counts.lines += 1;
                // A list: each of its points is a wish.
                let next = bytes.get(at + 1).copied().unwrap_or_default();
                counts.constraints += u32::from(matches!(next, b'-' | b'*') || next.is_ascii_digit());
            }
            _ => {}
        }
        at += 1;
    }
    buckets.sort_unstable();
    buckets.dedup();
    counts.characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    counts.turns = u32::try_from(around.turns).unwrap_or(u32::MAX);
    counts.tools = u32::try_from(around.tools).unwrap_or(u32::MAX);
    counts.has_schema = around.has_schema;
    counts.max_output = around.max_output;
    let values = values(&counts, bytes.len() as f32, letters);
    Scan { features: Features { values, buckets }, counts, languages }
}

fn count_marks(counts: &mut Counts, marks: u8) {
    let one = |mark: u8| u32::from(marks & mark != 0);
    counts.steps += one(words::STEPS);
    // A word is a step or a wish, never both.
    counts.constraints += one(words::CONSTRAINT);
    counts.code_names += one(words::CODE_NAME);
    counts.code_words += one(words::CODE_WORD);
    counts.reasoning_words += one(words::REASONING);
}

/// Names of code between letters of a script that has no spaces, where the whole run counts as one word.
fn count_inner(counts: &mut Counts, known: Words, word: &[u8]) {
    for part in word.split(|byte| *byte >= 0x80).filter(|part| part.len() > 2) {
        let hash = part.iter().fold(FIRST, |hash, byte| step(hash, byte.to_ascii_lowercase()));
        counts.code_names += u32::from(known.of(hash).marks & words::CODE_NAME != 0);
    }
}

fn values(counts: &Counts, length: f32, letters: u32) -> [f32; COUNT] {
    let share = |count: u32| if length > 0.0 { 20.0 * count as f32 / length } else { 0.0 };
    let grows = |count: f32| count.ln_1p();
    [
        grows(length) - 5.0,
        grows(counts.words as f32) - 3.5,
        if counts.words > 0 { letters as f32 / counts.words as f32 - 5.0 } else { 0.0 },
        grows(counts.lines as f32 - 1.0),
        share(counts.digits),
        share(counts.operators),
        grows(counts.code_fences as f32),
        grows(counts.identifiers as f32),
        grows(counts.steps as f32),
        grows(counts.constraints as f32),
        grows(counts.questions as f32),
        share(counts.foreign_letters),
        grows(counts.turns.saturating_sub(1) as f32),
        grows(counts.tools as f32),
        f32::from(u8::from(counts.has_schema)),
        counts.max_output.map_or(0.0, |tokens| grows(tokens as f32) - 6.0),
    ]
}
