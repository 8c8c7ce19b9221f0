//! How much a dear model looks worth for a prompt, from its surface alone: fixed weights, for those who have no labels yet.
//!
//! The weights of the text are a ridge regression of the dear model's gain over four pairs of models on LLMRouter's
//! questions (4,598, twelve tasks). They do not carry far: on questions of another kind they are near random
//! (`docs/routing.md` has the table), as every router without labels of the traffic at hand is. The others are set by
//! hand, for the data had nothing to fit them with.

use super::features::{COUNT, Features};

/// In the order of `features::NAMES`.
const WEIGHTS: [f32; COUNT] = [
    0.48, -0.23, -0.23, 0.05, -0.13, -0.11, 0.4, -0.41, 0.62, -0.01, -0.68, -0.19, // the text
    0.1, 0.3, 0.1, 0.1, // its surroundings
];

/// 0 (looks easy) to 1 (looks hard).
pub fn difficulty(look: &Features) -> f32 {
    let sum: f32 = WEIGHTS.iter().zip(look.values).map(|(weight, value)| weight * value).sum();
    1.0 / (1.0 + (-sum).exp())
}
