//! Weights for [`Features`], fitted to labelled rows: logistic regression over the features and the hashed words.
//!
//! Fitted by AdaGrad (Duchi, Hazan, Singer 2011) over the rows in a fixed random order, so that the same rows give the same
//! weights; each word's weight is drawn to 0 (L2), for there are more words than rows. What it predicts is the probability
//! that the cheap model's answer is bad.

use serde::{Deserialize, Serialize};

use super::features::{BUCKETS, COUNT, Features};
use crate::evaluate::random::Random;

const EPOCHS: usize = 20;
const RATE: f32 = 0.1;
/// How strongly a weight is drawn to 0, in rows: as much as so many rows speak against it.
const DRAW_FEATURE: f32 = 1.0;
const DRAW_WORD: f32 = 4.0;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    bias: f32,
    features: Vec<f32>,
    words: Vec<f32>,
}

impl Weights {
    /// `rows`: what a prompt looks like, and what is to be foretold of it (0 to 1). `seed`: of the order.
    pub fn fit(rows: &[(&Features, f32)], seed: u64) -> Self {
        let mut weights = Self { bias: 0.0, features: vec![0.0; COUNT], words: vec![0.0; BUCKETS] };
        let (mut bias_seen, mut features_seen, mut words_seen) = (1e-6_f32, [1e-6_f32; COUNT], vec![1e-6_f32; BUCKETS]);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut random = Random::new(seed);
        let count = rows.len().max(1) as f32;
        for _ in 0..EPOCHS {
            random.shuffle(&mut order);
            for &at in &order {
                let (row, outcome) = rows[at];
                let error = weights.probability(row) - outcome;
                let move_by = |weight: &mut f32, seen: &mut f32, gradient: f32| {
                    *seen += gradient * gradient;
                    *weight -= RATE * gradient / seen.sqrt();
                };
                move_by(&mut weights.bias, &mut bias_seen, error);
                for ((weight, seen), value) in weights.features.iter_mut().zip(&mut features_seen).zip(row.values) {
                    let gradient = error * value + DRAW_FEATURE / count * *weight;
                    move_by(weight, seen, gradient);
                }
                let scale = scale(row);
                for &word in &row.buckets {
                    let word = usize::from(word);
                    let gradient = error * scale + DRAW_WORD / count * weights.words[word];
                    move_by(&mut weights.words[word], &mut words_seen[word], gradient);
                }
            }
        }
        weights
    }

    /// Read from a file: whether there is a weight for each feature and each word.
    pub fn is_whole(&self) -> bool {
        self.features.len() == COUNT && self.words.len() == BUCKETS
    }

    /// The probability of what was taught: of a file of `farthing calibrate --router`, that the model's answer to such a
    /// prompt is good.
    pub fn probability(&self, row: &Features) -> f32 {
        let features: f32 = self.features.iter().zip(row.values).map(|(weight, value)| weight * value).sum();
        let words: f32 = row.buckets.iter().map(|word| self.words[usize::from(*word)]).sum();
        1.0 / (1.0 + (-(self.bias + features + words * scale(row))).exp())
    }
}

/// So that a long prompt does not speak louder than a short one.
fn scale(row: &Features) -> f32 {
    if row.buckets.is_empty() { 0.0 } else { 1.0 / (row.buckets.len() as f32).sqrt() }
}
