//! Which vocabulary a model reads, and how many of its tokens a text has.
//!
//! The vocabularies are in the library, packed; one is unpacked when the first text is counted with it, which takes some
//! tens of milliseconds and megabytes. No network, no cache of texts.

use std::borrow::Cow;

use super::TokenCount;

/// A text is counted in pieces of at most so many bytes.
const PIECE: usize = 32 << 10;
/// So many pieces may end where no word ends: such a text (a run of one letter, base64) costs 500 times the time.
const MOST_CUTS: u32 = 8;
/// Beyond this many bytes, or that many cuts, the rest is taken to be like what was counted.
const MOST_BYTES: usize = 8 << 20;
/// Models that read o200k_base; by the beginning of their names, so that snapshots are among them.
const O200K: [&str; 11] =
    ["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-6", "chatgpt-4o", "o1", "o3", "o4", "gpt-oss", "codex-mini"];
/// Models that read cl100k_base. Looked for after the others: "gpt-4" is the beginning of "gpt-4o" as well.
const CL100K: [&str; 6] = ["gpt-4", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002"];

/// A vocabulary that is in the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    Cl100k,
    O200k,
}

impl Vocabulary {
    /// None for a model whose vocabulary is not known here: other makers', for the most part.
    pub fn of_model(model: &str) -> Option<Self> {
        let name = model.to_ascii_lowercase();
        // Gateways write the maker before the name: "openai/gpt-4o". A fine-tuned model is "ft:base:organisation::id".
        let name = name.rsplit_once('/').map_or(&*name, |(_, name)| name);
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let begins = |known: &str| {
            // "o1" and "o1-mini", not "o1234".
            let rest = name.strip_prefix(known);
            rest.is_some_and(|rest| known.ends_with('-') || !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        if O200K.iter().any(|known| begins(known)) {
            Some(Self::O200k)
        } else if CL100K.iter().any(|known| begins(known)) {
            Some(Self::Cl100k)
        } else {
            None
        }
    }

    /// Tokens of a text. What looks like a special token ("<|endoftext|>") is text, as it is in a request.
    pub fn count(self, text: &str) -> TokenCount {
        let Some(bpe) = tiktoken::get_encoding(self.name()) else {
            // Not in this build: OpenAI's rule of thumb.
            return TokenCount { tokens: (text.len() as u64).div_ceil(4), estimated: true };
        };
        let (mut tokens, mut at, mut cuts) = (0, 0, 0);
        while at < text.len() {
            let rest = &text[at..];
            if cuts == MOST_CUTS || at >= MOST_BYTES {
                let whole = (u128::from(tokens) * text.len() as u128).div_ceil(at as u128);
                return TokenCount { tokens: u64::try_from(whole).unwrap_or(u64::MAX), estimated: true };
            }
            let end = piece_end(rest).unwrap_or_else(|| {
                cuts += 1;
                rest.floor_char_boundary(PIECE)
            });
            tokens += bpe.count(&rest[..end]) as u64;
            at += end;
        }
        TokenCount { tokens, estimated: cuts > 0 }
    }

    /// The number of the one token that a short text is; None: it is several, or the vocabulary is not in this build.
    pub fn token(self, text: &str) -> Option<u32> {
        match tiktoken::get_encoding(self.name())?.encode(text).as_slice() {
            [token] => Some(*token),
            _ => None,
        }
    }

    /// The tokens themselves, and back; for tests.
    #[doc(hidden)]
    pub fn round_trip(self, text: &str) -> (usize, Cow<'static, str>) {
        let Some(bpe) = tiktoken::get_encoding(self.name()) else { return (0, Cow::Borrowed("")) };
        let tokens = bpe.encode(text);
        (tokens.len(), Cow::Owned(String::from_utf8_lossy(&bpe.decode(&tokens)).into_owned()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        }
    }
}

/// Where a text may be cut so that its parts have the tokens of the whole, as far on as a piece may go. Both vocabularies
/// are applied to words, and no word goes on from a letter to a space or a stop. None: there is no such place.
fn piece_end(text: &str) -> Option<usize> {
    if text.len() <= PIECE {
        return Some(text.len());
    }
    let window = &text[..text.floor_char_boundary(PIECE)];
    let mut after = text[window.len()..].chars().next()?;
    for (at, letter) in window.char_indices().rev() {
        let is_letter = letter.is_ascii_alphabetic() || matches!(letter, 'ぁ'..='ゖ' | '一'..='鿿' | '가'..='힣');
        if is_letter && matches!(after, ' ' | '\n' | '.' | ',' | '。' | '、' | '，') {
            return Some(at + letter.len_utf8());
        }
        after = letter;
    }
    None
}
