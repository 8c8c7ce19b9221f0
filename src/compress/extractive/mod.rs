//! The parts of a text that most likely answer a question, verbatim and in their order, under a token budget.
//!
//! `units.rs` splits a text into what is kept or left out as a whole (`sentences.rs` splits prose), `json.rs` does so for
//! JSON, `words.rs` makes terms of both texts, `score.rs` says what each unit is worth for the question and `choose.rs`
//! takes the best that fit. No request, no model and no money belongs here, and no rewording: a unit is taken as it stands,
//! so that its numbers, names, links, code and negations are the original's. All of it is linear in the text (choosing
//! sorts) and gives the same result for the same input, which is what keeps a provider's prompt cache valid.

mod choose;
mod json;
mod score;
mod sentences;
mod stop;
mod units;
pub(super) mod words;

use std::ops::Range;

use choose::{Costs, Kept};
use units::Units;
use words::Terms;

/// Of so many lines a text's kind is told.
const MOST_LOOKED_AT: usize = 2_000;
/// What stands for a part that was left out: one or two tokens of both vocabularies.
pub const MARK: &str = "[…]";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extract {
    pub text: String,
    /// What was left out, as bytes of the original, in order.
    pub left_out: Vec<Range<usize>>,
}

/// The parts of `text` that most likely answer `question`, in their order, with at most `budget` tokens, the marks for what
/// was left out among them. A question without words of its own ("Summarise this.") gets what the text is mostly about, from
/// all over it. `count`: the tokens of a text. None: it fits already, or nothing sensible can be cut.
pub fn extract(text: &str, question: &str, budget: u64, count: &dyn Fn(&str) -> u64) -> Option<Extract> {
    // A token is a byte at least.
    if text.len() as u64 <= budget || budget == 0 {
        return None;
    }
    if let Some(container) = json::container(text) {
        return json::extract(text, &container, question, budget, count);
    }
    if is_program(text) {
        return None;
    }
    let units = units::split(text);
    if units.len() < 2 {
        return None;
    }
    let tokens: Vec<u64> = units.spans().map(|span| count(&text[span])).collect();
    if fits(text, &tokens, budget, count) {
        return None;
    }
    let terms = Terms::read(units.spans().map(|span| &text[span]));
    let scores = score::score(&units, &terms, &tokens, question);
    // With a line's end, or a space before it, it may be one more; what is chosen is counted as a whole in the end.
    let mark = count(&format!(" {MARK}\n"));
    let costs = Costs { tokens: &tokens, mark, base: mark };
    let mut kept = choose::choose(&units, &terms, &scores, &costs, budget);
    loop {
        if kept.is_empty() {
            return None;
        }
        let extract = write(text, &units, &kept);
        let over = count(&extract.text).saturating_sub(budget);
        if over == 0 {
            // Marks may cost more than the little that they stand for.
            return (extract.text.len() < text.len()).then_some(extract);
        }
        kept.shorten(&units, &tokens, over);
    }
}

/// Whether lines of it are parts of something that is not there without them: code, or settings that are told by their
/// indentation.
fn is_program(text: &str) -> bool {
    let lines: Vec<&str> = text.split('\n').collect();
    let (mut all, mut deep) = (0_usize, 0_usize);
    for line in lines.iter().filter(|line| !line.trim().is_empty()).take(MOST_LOOKED_AT) {
        all += 1;
        let trimmed = line.trim_start();
        let is_key = trimmed.split_once(':').is_some_and(|(key, rest)| {
            key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.\"' ".contains(&byte))
                && key.split(' ').count() < 3
                && (rest.is_empty() || rest.starts_with(' '))
        });
        deep += usize::from(trimmed.len() < line.trim_end_matches('\r').len() && (is_key || trimmed.starts_with("- ")));
    }
    crate::compress::structural::is_program(&lines) || (deep >= 3 && deep * 3 >= all)
}

/// Parts may have more tokens than their whole, rarely and by little.
fn fits(text: &str, tokens: &[u64], budget: u64, count: &dyn Fn(&str) -> u64) -> bool {
    let sum: u64 = tokens.iter().sum();
    sum <= budget || (sum / 4 * 3 <= budget && count(text) <= budget)
}

/// What is kept, with a mark for each gap. A gap that ends with a line's end keeps that, and so do paragraphs their distance.
fn write(text: &str, units: &Units, kept: &Kept) -> Extract {
    let mut extract = Extract { text: String::new(), left_out: Vec::new() };
    let mut gap: Option<Range<usize>> = None;
    for (index, span) in units.spans().enumerate() {
        if kept.has(index) {
            close(text, gap.take(), &mut extract);
            extract.text.push_str(&text[span]);
        } else {
            gap = Some(gap.map_or(span.start, |gap| gap.start)..span.end);
        }
    }
    close(text, gap, &mut extract);
    extract
}

fn close(text: &str, gap: Option<Range<usize>>, extract: &mut Extract) {
    let Some(gap) = gap else { return };
    if !extract.text.is_empty() && !extract.text.ends_with(char::is_whitespace) {
        extract.text.push(' ');
    }
    extract.text.push_str(MARK);
    if gap.end < text.len() {
        let left_out = &text[gap.clone()];
        let ends =
            left_out.bytes().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).filter(|byte| *byte == b'\n');
        extract.text.push_str(["", "\n", "\n\n"][ends.take(2).count()]);
    }
    extract.left_out.push(gap);
}
