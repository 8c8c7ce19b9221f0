//! The lowest threshold whose loss is bounded, from labelled rows.
//!
//! A draft whose score reaches the threshold is accepted. The loss is the share of all calls that get an accepted bad
//! answer. Thresholds are tested from the strictest down, each with the exact binomial bound (Clopper and Pearson 1934), and
//! the last one that passes before the first that fails is taken: testing in a fixed order keeps the error of the whole at
//! that of one test (Angelopoulos et al., "Learn then Test", arXiv 2110.01052).

use super::curve::Interval;

/// What a threshold does on the rows that it was found on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub threshold: f64,
    /// Accepted drafts, 0 to 1.
    pub coverage: f64,
    /// Accepted bad answers among all calls.
    pub loss: f64,
    /// What `loss` is below, at the confidence that was asked for.
    pub bound: f64,
}

/// The lowest threshold whose loss is at most `max_loss` with probability `confidence`; None = not one can be shown to be.
///
/// `rows`: a score, and whether taking the draft costs nothing (it is good, or the dear answer is no better).
pub fn threshold(rows: &[(f64, bool)], max_loss: f64, confidence: f64) -> Option<Threshold> {
    let total = rows.len();
    let mut found = None;
    for point in descending(rows) {
        let (accepted, bad) = point.counts;
        let bound = upper(bad, total, confidence);
        if bound > max_loss {
            break;
        }
        found = Some(Threshold {
            threshold: point.threshold,
            coverage: accepted as f64 / total as f64,
            loss: bad as f64 / total as f64,
            bound,
        });
    }
    found
}

/// Risk among the accepted at each coverage, with a two-sided 95 % interval; at most `most` points, the strictest first.
pub fn risk_curve(rows: &[(f64, bool)], most: usize) -> Vec<(f64, f64, Interval)> {
    let points = descending(rows);
    let step = points.len().div_ceil(most.max(1)).max(1);
    let last = points.len().saturating_sub(1);
    let chosen = points.iter().enumerate().filter(|(at, _)| (at + 1) % step == 0 || *at == last);
    chosen
        .map(|(_, point)| {
            let (accepted, bad) = point.counts;
            let risk = bad as f64 / accepted as f64;
            let interval =
                Interval { value: risk, low: lower(bad, accepted, 0.975), high: upper(bad, accepted, 0.975) };
            (point.threshold, accepted as f64 / rows.len() as f64, interval)
        })
        .collect()
}

struct Candidate {
    threshold: f64,
    /// Accepted, and bad among them.
    counts: (usize, usize),
}

/// Every score that occurs as a threshold, the highest first.
fn descending(rows: &[(f64, bool)]) -> Vec<Candidate> {
    let mut sorted: Vec<_> = rows.iter().copied().filter(|(score, _)| !score.is_nan()).collect();
    sorted.sort_by(|one, two| two.0.total_cmp(&one.0));
    let mut found: Vec<Candidate> = Vec::new();
    let (mut accepted, mut bad) = (0, 0);
    for (score, good) in sorted {
        accepted += 1;
        bad += usize::from(!good);
        match found.last_mut() {
            Some(last) if last.threshold == score => last.counts = (accepted, bad),
            _ => found.push(Candidate { threshold: score, counts: (accepted, bad) }),
        }
    }
    found
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
