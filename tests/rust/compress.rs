//! A text is made shorter, and what is left of it is still what was written.

#[path = "compress/extractive.rs"]
mod extractive;
#[path = "compress/facts.rs"]
mod facts;
#[path = "compress/properties.rs"]
mod properties;

use farthing::compress::extractive::{Extract, extract};

/// Words and signs, so that examples can be counted by eye.
pub fn tokens(text: &str) -> u64 {
    let mut count = 0;
    let mut is_word = false;
    for letter in text.chars() {
        count += u64::from(!(letter.is_whitespace() || letter.is_alphanumeric() && is_word));
        is_word = letter.is_alphanumeric();
    }
    count
}

/// As an application calls it.
pub fn cut(text: &str, question: &str, budget: u64) -> Option<Extract> {
    extract(text, question, budget, &tokens)
}
