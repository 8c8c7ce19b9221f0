//! What a prompt looks like, in numbers: one pass over its bytes, no call, no regular expression.
//!
//! Length, form and the words that ask for steps: surface marks, and no more. What they are worth is in `docs/routing.md`.

use std::sync::LazyLock;

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

/// What a word speaks for.
#[derive(Clone, Copy)]
enum Sign {
    Steps,
    Constraint,
}

/// A small open-addressed table of word hashes: a look costs a load and a comparison.
struct Signs([(u32, Option<Sign>); SLOTS]);
const SLOTS: usize = 256;

impl Signs {
    fn get(&self, hash: u32) -> Option<Sign> {
        let mut at = hash as usize % SLOTS;
        loop {
            match self.0[at] {
                (_, None) => return None,
                (known, sign) if known == hash => return sign,
                _ => at = (at + 1) % SLOTS,
            }
        }
    }
}

static SIGNS: LazyLock<Signs> = LazyLock::new(|| {
    const STEPS: [&str; 38] = [
        "analyze",
        "analyse",
        "because",
        "calculate",
        "compare",
        "compute",
        "consider",
        "contrast",
        "critique",
        "debug",
        "deduce",
        "derive",
        "design",
        "determine",
        "diagnose",
        "estimate",
        "evaluate",
        "explain",
        "how",
        "implement",
        "infer",
        "integral",
        "justify",
        "optimal",
        "optimize",
        "plan",
        "probability",
        "proof",
        "prove",
        "reason",
        "refactor",
        "solve",
        "step",
        "steps",
        "strategy",
        "theorem",
        "tradeoffs",
        "why",
    ];
    const CONSTRAINTS: [&str; 20] = [
        "always",
        "at",
        "avoid",
        "constraint",
        "each",
        "ensure",
        "every",
        "exactly",
        "except",
        "least",
        "most",
        "must",
        "never",
        "not",
        "only",
        "required",
        "requirements",
        "should",
        "unless",
        "without",
    ];
    let mut table = [(0, None); SLOTS];
    let words = STEPS.iter().map(|word| (word, Sign::Steps));
    for (word, sign) in words.chain(CONSTRAINTS.iter().map(|word| (word, Sign::Constraint))) {
        let hash = word.bytes().fold(FIRST, step);
        let mut at = hash as usize % SLOTS;
        while table[at].1.is_some() {
            at = (at + 1) % SLOTS;
        }
        table[at] = (hash, Some(sign));
    }
    Signs(table)
});

/// FNV-1a, 32 bits.
const FIRST: u32 = 0x811c_9dc5;

fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

/// The features of a prompt: usually the text of the last message of the user's.
pub fn features(text: &str, around: &Surroundings) -> Features {
    let signs = &*SIGNS;
    let bytes = text.as_bytes();
    let mut buckets = Vec::with_capacity(bytes.len() / 5);
    let (mut words, mut letters, mut lines, mut digits, mut operators) = (0_u32, 0_u32, 1_u32, 0_u32, 0_u32);
    let (mut fences, mut identifiers, mut steps, mut constraints) = (0_u32, 0_u32, 0_u32, 0_u32);
    let (mut questions, mut foreign) = (0_u32, 0_u32);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 {
            let mut hash = FIRST;
            let (start, mut has_line, mut changes) = (at, false, 0_u32);
            let mut was_lower = false;
            while let Some(&byte) = bytes.get(at) {
                match byte {
                    b'a'..=b'z' => was_lower = true,
                    b'A'..=b'Z' => {
                        changes += u32::from(was_lower);
                        was_lower = false;
                    }
                    b'0'..=b'9' => {}
                    b'_' => has_line = true,
                    0x80.. => foreign += u32::from(byte >= 0xc0),
                    _ => break,
                }
                hash = step(hash, byte.to_ascii_lowercase());
                at += 1;
            }
            words += 1;
            letters += (at - start) as u32;
            identifiers += u32::from(has_line || changes > 0 || bytes.get(at) == Some(&b'(') && at - start > 1);
            match signs.get(hash) {
                Some(Sign::Steps) => steps += 1,
                Some(Sign::Constraint) => constraints += 1,
                None => {}
            }
            buckets.push((hash as usize % BUCKETS) as u16);
            continue;
        }
        match byte {
            b'0'..=b'9' => digits += 1,
            b'=' | b'+' | b'*' | b'/' | b'^' | b'<' | b'>' | b'\\' | b'$' | b'%' | b'{' | b'}' | b'|' => operators += 1,
            b'?' => questions += 1,
            b'`' if bytes[at..].starts_with(b"```") => {
                fences += 1;
                at += 2;
            }
            b'\n' => {
                lines += 1;
                // A list: each of its points is a wish.
                let next = bytes.get(at + 1).copied().unwrap_or_default();
                constraints += u32::from(matches!(next, b'-' | b'*') || next.is_ascii_digit());
            }
            _ => {}
        }
        at += 1;
    }
    buckets.sort_unstable();
    buckets.dedup();
    let length = bytes.len() as f32;
    let share = |count: u32| if length > 0.0 { 20.0 * count as f32 / length } else { 0.0 };
    let grows = |count: f32| count.ln_1p();
    Features {
        values: [
            grows(length) - 5.0,
            grows(words as f32) - 3.5,
            if words > 0 { letters as f32 / words as f32 - 5.0 } else { 0.0 },
            grows(lines as f32 - 1.0),
            share(digits),
            share(operators),
            grows(fences as f32),
            grows(identifiers as f32),
            grows(steps as f32),
            grows(constraints as f32),
            grows(questions as f32),
            share(foreign),
            grows(around.turns.saturating_sub(1) as f32),
            grows(around.tools as f32),
            f32::from(u8::from(around.has_schema)),
            around.max_output.map_or(0.0, |tokens| grows(tokens as f32) - 6.0),
        ],
        buckets,
    }
}
