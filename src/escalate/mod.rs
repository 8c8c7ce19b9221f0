//! Is a draft good enough? Scorers of answers, each in its own file; here nothing is sent and nothing is spent.
//!
//! The stage that acts on it is `stages/escalate.rs`. Scores are 0 (surely bad) to 1 (surely good).

pub mod answer;
pub mod extract;
pub mod judge;
mod latex;
pub mod logprob;
pub mod number;
pub mod schema;
pub mod similarity;
pub mod strip;
pub mod structural;
