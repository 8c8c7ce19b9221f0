//! How many tokens a text, a prompt or an answer has, counted here and without a network.
//!
//! `vocabulary.rs` says which vocabulary a model reads and counts texts with it, `prompt.rs` adds up what the API bills of
//! a request besides its texts, `answer.rs` finds the texts of an answer. What tokens cost is `ledger/price.rs`, what
//! may be spent on them `budget/`.

pub mod answer;
pub mod prompt;
pub mod vocabulary;

pub use prompt::{Prompt, chat_tokens, message_tokens, prompt_of};
pub use vocabulary::Vocabulary;

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    pub tokens: u64,
    /// Not counted exactly: the model's vocabulary is not known, or there is something in it that is no text.
    pub estimated: bool,
}
