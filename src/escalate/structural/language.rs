//! Answers in another language than the question's.
//!
//! Sees scripts, and eight languages in Latin script by their commonest words. Does not tell languages of another script
//! apart, nor short texts, and says nothing where the prompt, or anything said before it, has a trace of the answer's
//! language or speaks of languages at all.

/// Letters that a text must have for its script to count, and words for its language.
const LEAST_LETTERS: usize = 40;
const LEAST_WORDS: usize = 30;
const LEAST_PROMPT_WORDS: usize = 12;
/// Letters of the answer's script in the prompt that make it a script that was asked for.
const TRACE: usize = 3;
/// Bytes that are looked at.
const MOST: usize = 32 * 1024;

/// Words of prompts that want, or may want, another language. Parts of words, in lower case.
const ASKED: [&str; 62] = [
    "translat",
    "übersetz",
    "tradui",
    "traduc",
    "tradur",
    "vertaal",
    "перевод",
    "перевед",
    "翻译",
    "翻訳",
    "번역",
    "language",
    "sprache",
    "langue",
    "idioma",
    "lingua",
    "taal",
    "язык",
    "语",
    "語",
    "english",
    "englisch",
    "anglais",
    "inglés",
    "inglese",
    "inglês",
    "engels",
    "german",
    "deutsch",
    "allemand",
    "alemán",
    "tedesco",
    "french",
    "franz",
    "français",
    "francés",
    "francese",
    "spanish",
    "spanisch",
    "espagnol",
    "español",
    "spagnolo",
    "italian",
    "italien",
    "portug",
    "dutch",
    "nederlands",
    "russia",
    "русск",
    "chinese",
    "mandarin",
    "中文",
    "japan",
    "日本",
    "korean",
    "한국",
    "arabic",
    "العربية",
    "hindi",
    "greek",
    "latin",
    "polish",
];

/// How sure it is that the answer is in the wrong language; None: it is not. `prose`: the answer without its code.
pub fn severity(prompt: &str, context: &str, prose: &str) -> Option<f64> {
    let (prompt, prose) = (beginning(prompt), beginning(prose));
    let (asked, said) = (Scripts::of(prompt), Scripts::of(prose));
    let (asked_script, said_script) = (asked.main()?, said.main()?);
    if asked_script == said_script && said_script != LATIN {
        return None;
    }
    let is_wrong = if asked_script == said_script {
        is_other_latin(prompt, context, prose)
    } else {
        Scripts::of(context).counts[said_script] < TRACE
    };
    let spoken_of = || {
        let context = context.to_lowercase();
        ASKED.iter().any(|word| context.contains(word))
    };
    (is_wrong && !spoken_of()).then_some(0.8)
}

fn beginning(text: &str) -> &str {
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const LATIN: usize = 0;

/// Letters of each script, by Unicode's blocks. Chinese characters and kana are one: Japanese has both.
struct Scripts {
    counts: [usize; 11],
}

impl Scripts {
    fn of(text: &str) -> Self {
        let mut counts = [0; 11];
        for script in text.chars().filter_map(script) {
            counts[script] += 1;
        }
        Self { counts }
    }

    /// The script of four fifths of the letters. Those of one that writes words or syllables count double.
    fn main(&self) -> Option<usize> {
        let weight = |script: usize| self.counts[script] * if matches!(script, HAN | HANGUL) { 2 } else { 1 };
        let all: usize = (0..self.counts.len()).map(weight).sum();
        (0..self.counts.len()).find(|script| all >= LEAST_LETTERS && 5 * weight(*script) >= 4 * all)
    }
}

const HAN: usize = 8;
const HANGUL: usize = 9;

fn script(c: char) -> Option<usize> {
    if !c.is_alphabetic() {
        return None;
    }
    Some(match u32::from(c) {
        0x41..=0x24F | 0x1E00..=0x1EFF => LATIN,
        0x370..=0x3FF | 0x1F00..=0x1FFF => 1,
        0x400..=0x52F => 2,
        0x590..=0x5FF => 3,
        0x600..=0x77F | 0xFB50..=0xFDFF | 0xFE70..=0xFEFF => 4,
        0x900..=0x97F => 5,
        0x980..=0xDFF => 6,
        0xE00..=0xE7F => 7,
        0x3040..=0x30FF | 0x3400..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF => HAN,
        0x1100..=0x11FF | 0xAC00..=0xD7AF => HANGUL,
        _ => 10,
    })
}

/// The commonest words of languages in Latin script, in the order of [`CODES`].
pub const WORDS: [&[&str]; 8] = [
    &[
        "the", "and", "of", "to", "is", "in", "that", "it", "for", "with", "as", "are", "this", "be", "you", "or",
        "by", "not",
    ],
    &[
        "der", "die", "und", "das", "ist", "nicht", "ein", "eine", "zu", "den", "mit", "von", "für", "auf", "sich",
        "auch", "es", "im",
    ],
    &[
        "le", "la", "les", "et", "des", "est", "une", "un", "du", "dans", "que", "pour", "qui", "pas", "sur", "avec",
        "vous", "ce",
    ],
    &[
        "el", "la", "los", "las", "y", "de", "que", "en", "una", "un", "es", "por", "con", "para", "del", "se", "más",
        "como",
    ],
    &[
        "il", "la", "di", "che", "e", "è", "un", "una", "per", "non", "del", "della", "con", "sono", "gli", "nel",
        "si", "anche",
    ],
    &["o", "a", "os", "as", "de", "que", "e", "não", "um", "uma", "para", "com", "do", "da", "em", "é", "dos", "mais"],
    &[
        "de", "het", "een", "en", "van", "is", "dat", "niet", "te", "zijn", "voor", "met", "op", "die", "ook", "aan",
        "er", "wordt",
    ],
    &[
        "i", "w", "na", "się", "nie", "jest", "że", "do", "z", "to", "jak", "są", "od", "przez", "dla", "oraz",
        "który", "po",
    ],
];

/// Of the languages of [`WORDS`] (ISO 639-1).
pub const CODES: [&str; 8] = ["en", "de", "fr", "es", "it", "pt", "nl", "pl"];
/// Of the scripts that [`script`] tells apart; Latin and the rest have none.
const SCRIPTS: [&str; 11] =
    ["", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "indic", "thai", "han", "hangul", ""];

/// The language of a text, or its script where that is not Latin; "" = not known. `counts`: how many of its `words` are
/// in each list of [`WORDS`]. Looks at the beginning of the text only.
pub fn name(text: &str, counts: &[u32; WORDS.len()], words: u32) -> &'static str {
    const LEAST: usize = 4;
    const BYTES: usize = 2048;
    if !text.is_ascii() {
        let scripts = Scripts::of(&text[..text.floor_char_boundary(BYTES)]);
        let all: usize = scripts.counts.iter().sum();
        let main = (0..SCRIPTS.len()).find(|script| all >= LEAST && 2 * scripts.counts[*script] > all);
        match main {
            Some(LATIN) => {}
            Some(script) => return SCRIPTS[script],
            None => return "",
        }
    }
    let best = (0..counts.len()).max_by_key(|language| counts[*language]).unwrap_or_default();
    let is_alone = (0..counts.len()).all(|other| other == best || 3 * counts[other] <= 2 * counts[best]);
    let is_known = counts[best] >= 2 && 5 * u64::from(counts[best]) >= u64::from(words) && is_alone;
    if is_known { CODES[best] } else { "" }
}

/// How many of a text's words are of each language, and how many words it has.
fn profile(text: &str) -> ([usize; WORDS.len()], usize) {
    let mut counts = [0; WORDS.len()];
    let mut words = 0;
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        words += 1;
        let word = word.to_lowercase();
        for (count, known) in counts.iter_mut().zip(WORDS) {
            *count += usize::from(known.contains(&word.as_str()));
        }
    }
    (counts, words)
}

/// The language of a fifth of the words, if no other has two thirds as many.
fn latin(text: &str, least: usize) -> Option<usize> {
    let (counts, words) = profile(text);
    let (best, count) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    let is_alone = counts.iter().enumerate().all(|(other, known)| other == best || 3 * known <= 2 * count);
    (words >= least && 5 * count >= words && is_alone).then_some(best)
}

fn is_other_latin(prompt: &str, context: &str, prose: &str) -> bool {
    // "Summarise: La ville est ...": what is asked stands first or last, and the text between may be in any language.
    let mut parts = prompt.split(['\n', ':']).filter(|part| !part.trim().is_empty());
    let first = parts.next().unwrap_or_default();
    let last = parts.next_back().unwrap_or(first);
    let (Some(asked), Some(said)) = (latin(first, LEAST_PROMPT_WORDS), latin(prose, LEAST_WORDS)) else {
        return false;
    };
    if asked == said || latin(last, LEAST_PROMPT_WORDS) != Some(asked) {
        return false;
    }
    // An English prompt about a French text may well be answered in French, and the other way round.
    let is_own = |word: &str| {
        let word = word.to_lowercase();
        WORDS.iter().enumerate().all(|(language, words)| words.contains(&word.as_str()) == (language == said))
    };
    !context.split(|c: char| !c.is_alphabetic()).any(is_own)
}
