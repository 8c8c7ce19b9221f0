//! Which model is good enough for a request, judged before anything is asked. The stage that acts on it is
//! `stages/route.rs`; here nothing is sent and nothing is spent.
//!
//! `gates.rs` rules out tiers that cannot serve. `features.rs` says what a prompt looks like (`words.rs` has the words),
//! `look.rs` what a request does; `rules.rs` chooses by it without labels, `learned.rs` fits and uses weights. `classify.rs` is what a model that
//! classifies is asked, and what its reply comes to. `affinity.rs` keeps a conversation on its tier.

pub mod affinity;
pub mod classify;
mod condition;
pub mod features;
pub mod gates;
pub mod learned;
pub mod look;
mod reply;
pub mod rules;
pub mod words;
