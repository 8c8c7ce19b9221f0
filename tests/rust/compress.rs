//! Shorter texts say the same; what is chosen of a text is in it; what may be shortened, and whether it pays.

#[path = "compress/extractive.rs"]
mod extractive;
#[path = "compress/facts.rs"]
mod facts;
#[path = "compress/places.rs"]
mod places;
#[path = "compress/properties.rs"]
mod properties;
#[path = "compress/structural.rs"]
mod structural;
#[path = "compress/worth.rs"]
mod worth;

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
