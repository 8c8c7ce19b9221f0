//! Saying the same in fewer tokens: text in, shorter text out.
//!
//! `places.rs` finds the texts of a request that may be shortened, `documents.rs` those that are marked as documents;
//! `structural` says them shorter without a change of meaning, `extractive` chooses what answers the question; `facts.rs` and
//! `negation.rs` tell what a shorter text has lost, `summary.rs` has the words by which a model is asked for one; `worth.rs`
//! says whether it pays, `order.rs` what another order of the prompt would gain. Nothing here asks anybody, remembers
//! anything or spends money: that is `stages/compress.rs`.

mod code;
mod documents;
pub mod extractive;
pub mod facts;
pub mod negation;
pub mod order;
pub mod places;
pub mod structural;
pub mod summary;
pub mod worth;
