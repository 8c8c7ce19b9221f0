//! Which model is good enough for a request, judged before anything is asked. The stage that acts on it is
//! `stages/route.rs`; here nothing is sent and nothing is spent.
//!
//! `features.rs` says what a prompt looks like, `learned.rs` fits and uses weights for it, `rules.rs` has weights that
//! need no labels.

pub mod features;
pub mod learned;
pub mod rules;
