//! How sure the model was of its own tokens.
//!
//! Sees doubt, not error: a model that is wrong and sure of it gets a high score.

use std::fmt;

use super::answer::TokenProbability;

/// Logprobs below this count as this: servers write -9999 or minus infinity for "not among the likeliest", and a single
/// such mark must not decide the mean.
const FLOOR: f64 = -20.0;

/// See the module. All are 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// The geometric mean of the tokens' probabilities: exp of the mean logprob.
    pub mean: f64,
    /// The least probability of a token.
    pub minimum: f64,
    /// The mean of the likeliest token's probability less the second's. Where the second is not told, the least that it
    /// can be: `2 p - 1`, not below 0.
    pub margin: f64,
}

/// For the receipt.
impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "logprobs: mean {:.3}, minimum {:.3}, margin {:.3}", self.mean, self.minimum, self.margin)
    }
}

/// None: no logprobs came.
pub fn confidence(tokens: &[TokenProbability]) -> Option<Confidence> {
    let (mut count, mut sum, mut least, mut margins) = (0.0, 0.0, 0.0_f64, 0.0);
    for token in tokens.iter().filter(|token| !token.logprob.is_nan()) {
        let logprob = clamp(token.logprob);
        count += 1.0;
        sum += logprob;
        least = least.min(logprob);
        margins += margin(token);
    }
    (count > 0.0).then(|| Confidence { mean: (sum / count).exp(), minimum: least.exp(), margin: margins / count })
}

/// The plain mean of the three: each sees doubt that the others do not. The mean alone drowns one doubtful token in many
/// sure ones, the minimum alone falls with the length of an answer whatever its worth. What was measured of it is in
/// docs/stages/escalate.md; the weights are equal because nothing was tuned.
pub fn score(confidence: &Confidence) -> f64 {
    (confidence.mean + confidence.minimum + confidence.margin) / 3.0
}

/// A logprob within what a probability can be.
fn clamp(logprob: f64) -> f64 {
    logprob.clamp(FLOOR, 0.0)
}

fn margin(token: &TokenProbability) -> f64 {
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let known = token.top.iter().map(|(_, logprob)| *logprob).filter(|logprob| !logprob.is_nan());
    let mut count = 0_usize;
    for logprob in known {
        count += 1;
        if logprob > first {
            second = first;
            first = logprob;
        } else if logprob > second {
            second = logprob;
        }
    }
    if count >= 2 {
        return clamp(first).exp() - clamp(second).exp();
    }
    (2.0 * clamp(token.logprob).exp() - 1.0).max(0.0)
}
