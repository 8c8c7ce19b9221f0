//! The lowest threshold whose loss is bounded, from labelled rows.
//!
//! A draft whose P(good) reaches the threshold is accepted. The loss is what accepted drafts lose, over all calls: with
//! losses of 0 and 1, the share of calls that get an accepted bad answer. Thresholds are a grid that is fixed before any row
//! is seen, tested from the strictest down; the last one that passes before the first that fails is taken. Testing in a fixed
//! order keeps the error of the whole at that of one test (fixed sequence testing, Angelopoulos et al., "Learn then Test",
//! arXiv 2110.01052). Losses of 0 and 1 are tested with the exact binomial (Clopper and Pearson 1934), losses between them
//! with Hoeffding-Bentkus (Bates et al., arXiv 2101.02703; Bentkus 2004).

use super::curve::Interval;

/// Steps of the grid: thresholds are 0, 0.001, ... 1.
pub const STEPS: usize = 1000;

/// What a threshold does on some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub threshold: f64,
    /// Accepted drafts, 0 to 1.
    pub coverage: f64,
    /// Of accepted drafts, over all calls.
    pub loss: f64,
    /// What `loss` is below, at the confidence that was asked for.
    pub bound: f64,
}

/// The lowest threshold of the grid whose loss is at most `max_loss` with probability `confidence`; None = not one can be
/// shown to be.
///
/// `rows`: P(good), 0 to 1, and what taking the draft would lose, 0 to 1. They must be others than those that the map to
/// P(good) was fitted to. A P(good) that is no number is never accepted.
pub fn threshold(rows: &[(f64, f64)], max_loss: f64, confidence: f64) -> Option<Threshold> {
    let total = rows.len();
    let is_binary = are_binary(rows.iter().map(|row| row.1));
    let mut sorted: Vec<_> = rows.iter().copied().filter(|(probability, _)| !probability.is_nan()).collect();
    sorted.sort_by(|one, two| two.0.total_cmp(&one.0));
    let mut left = sorted.into_iter().peekable();
    let (mut accepted, mut lost) = (0_usize, 0.0);
    let mut found: Option<Threshold> = None;
    for step in (0..=STEPS).rev() {
        let threshold = step as f64 / STEPS as f64;
        let before = accepted;
        while let Some((_, loss)) = left.next_if(|(probability, _)| *probability >= threshold) {
            accepted += 1;
            lost += loss;
        }
        // The same drafts have the same bound.
        let bound = match found {
            Some(last) if accepted == before => last.bound,
            _ => upper_mean(lost, total, confidence, is_binary),
        };
        if bound > max_loss {
            break;
        }
        let of_all = |sum: f64| if total == 0 { 0.0 } else { sum / total as f64 };
        found = Some(Threshold { threshold, coverage: of_all(accepted as f64), loss: of_all(lost), bound });
    }
    found
}

/// Rows without one loss that are needed to show that the loss is at most `max_loss`: the least n with
/// (1 - max_loss)^n <= 1 - confidence. 299 for 0.01 at 95 %.
pub fn least_rows(max_loss: f64, confidence: f64) -> usize {
    let rows = ((1.0 - confidence).ln() / (1.0 - max_loss).ln()).ceil();
    // A rounding error in the logarithms must not promise what the bound then refuses.
    let least = if rows.is_finite() { rows.max(1.0) as usize } else { 1 };
    if upper(0, least, confidence) > max_loss { least + 1 } else { least }
}

/// The mean of losses (0 to 1) with its two-sided 95 % interval; NaN of nothing.
pub fn mean_loss(losses: &[f64]) -> Interval {
    let (sum, total) = (losses.iter().sum::<f64>(), losses.len());
    if total == 0 {
        return Interval { value: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let is_binary = are_binary(losses.iter().copied());
    let high = upper_mean(sum, total, 0.975, is_binary);
    let low = 1.0 - upper_mean(total as f64 - sum, total, 0.975, is_binary);
    Interval { value: sum / total as f64, low: low.max(0.0), high }
}

fn are_binary(mut losses: impl Iterator<Item = f64>) -> bool {
    losses.all(|loss| loss == 0.0 || loss == 1.0)
}

/// The upper bound of a mean of `total` losses between 0 and 1 whose sum is `sum`.
pub fn upper_mean(sum: f64, total: usize, confidence: f64, is_binary: bool) -> f64 {
    if is_binary {
        return upper(sum.round() as usize, total, confidence);
    }
    if total == 0 || sum >= total as f64 {
        return 1.0;
    }
    let seen = sum / total as f64;
    bisect(|mean| mean <= seen || hoeffding_bentkus(seen, total, mean) > 1.0 - confidence)
}

/// P(a mean at or below `seen`), at most, when losses between 0 and 1 have the mean `mean`, which is above `seen`.
fn hoeffding_bentkus(seen: f64, total: usize, mean: f64) -> f64 {
    let part = |share: f64, of: f64| if share <= 0.0 { 0.0 } else { share * (share / of).ln() };
    let divergence = part(seen, mean) + part(1.0 - seen, 1.0 - mean);
    let hoeffding = (-(total as f64) * divergence).exp();
    // The sum is rounded in some order: a hair above a whole number is that number.
    let hits = (seen * total as f64 - 1e-9).ceil().max(0.0) as usize;
    let bentkus = std::f64::consts::E * at_most(hits, total, mean);
    hoeffding.min(bentkus).min(1.0)
}

/// The upper Clopper-Pearson bound of a share of which `hits` of `total` were seen.
pub fn upper(hits: usize, total: usize, confidence: f64) -> f64 {
    if hits >= total {
        return 1.0;
    }
    // The share at which so few hits, or fewer, have the probability 1 - confidence.
    bisect(|share| at_most(hits, total, share) > 1.0 - confidence)
}

/// The lower one.
pub fn lower(hits: usize, total: usize, confidence: f64) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    bisect(|share| 1.0 - at_most(hits - 1, total, share) < 1.0 - confidence)
}

/// The share at which `holds` turns false.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// P(at most `hits` of `total`) when each has the probability `share`.
fn at_most(hits: usize, total: usize, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    if share >= 1.0 {
        return if hits >= total { 1.0 } else { 0.0 };
    }
    let odds = share / (1.0 - share);
    // The largest term may be anywhere: sum in logarithms, from the first term up.
    let mut log_term = total as f64 * (1.0 - share).ln();
    let mut log_sum = log_term;
    for hit in 1..=hits {
        log_term += ((total - hit + 1) as f64 / hit as f64 * odds).ln();
        let (high, low) = if log_sum > log_term { (log_sum, log_term) } else { (log_term, log_sum) };
        log_sum = high + (low - high).exp().ln_1p();
    }
    log_sum.exp().min(1.0)
}
