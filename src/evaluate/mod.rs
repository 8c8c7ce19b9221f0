//! What a router or a ladder is worth, measured on rows of outcomes: no model is called here, and no call is decided here.
//!
//! `curve.rs` has cost and quality at every share of dear calls, `isotonic.rs` turns scores into probabilities, `bound.rs`
//! finds the threshold whose loss is bounded, `calibrate.rs` makes a map and a threshold of labelled drafts and says what they
//! are worth, `router.rs` puts routers beside each other, `random.rs` draws the same numbers every time.

pub mod bound;
pub mod calibrate;
pub mod curve;
pub mod isotonic;
pub mod random;
pub mod router;
