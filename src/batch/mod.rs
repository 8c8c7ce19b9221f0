//! Several independent questions in one request, and the one answer split into each question's own.
//!
//! Here is text only: how a pack is written, how its answer is read, how big packs get and whether one pays. Nothing is
//! sent, nothing waits and nothing is charged; which calls may share a pack is the business of the stage. What a model
//! writes is never put right by a guess: an answer that may be another question's is a [`Flaw`], and its question has to be
//! asked alone.

mod heads;
mod json;
mod lines;
mod order;
mod pack;
mod scan;
mod schema;
mod sequence;
mod shape;
pub mod sizes;
pub mod worth;

pub use pack::{Pack, pack};
pub use shape::Shape;
pub use sizes::packs;
pub use worth::{Rates, Sizes, Worth, worth};

/// How the answers of a pack are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object, by a `response_format` with a JSON schema: for models that keep to one.
    Json,
    /// Numbered items in plain text: for all others.
    Lines,
}

/// Why an item's answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the pack has no answer for it")]
    Missing,
    /// Given twice, or it cannot be told where it begins or ends.
    #[error("the pack has more than one answer for it, or it cannot be told from its neighbours")]
    Double,
    #[error("the pack's answer breaks off within it")]
    CutOff,
    #[error("its answer is empty")]
    Empty,
    #[error("its answer is the question")]
    Echo,
    #[error("its answer is not of the form that was asked for")]
    Invalid,
}
