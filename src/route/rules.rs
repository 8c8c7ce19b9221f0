//! How hard a prompt looks, from its surface alone: fixed weights over [`Features`], for those who have no labels yet.

use super::features::{COUNT, Features};

/// In the order of `features::NAMES`.
const WEIGHTS: [f32; COUNT] = [0.0; COUNT];
const BIAS: f32 = 0.0;

/// 0 (looks easy) to 1 (looks hard).
pub fn difficulty(look: &Features) -> f32 {
    let sum: f32 = WEIGHTS.iter().zip(look.values).map(|(weight, value)| weight * value).sum();
    1.0 / (1.0 + (-(BIAS + sum)).exp())
}
