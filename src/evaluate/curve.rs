//! Cost and quality of a router between a cheap and a dear model, at every share of calls that go to the dear one.
//!
//! The measures are RouteLLM's (Ong et al., arXiv 2406.18665, section 4): PGR, the part of the way from the cheap model's
//! quality to the dear one's; APGR, its mean over all shares (random routing: 0.5); CPT(x), the least share of dear calls
//! that reaches a PGR of x.

use serde::Serialize;

use super::random::Random;

/// One question, answered by both models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Quality of the cheap model's answer, usually 0 or 1.
    pub cheap: f64,
    pub dear: f64,
    /// What each answer cost, in any unit that is the same for all.
    pub cheap_cost: f64,
    pub dear_cost: f64,
}

/// An estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// What one router makes of one set of questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measures {
    pub apgr: Interval,
    /// Shares of dear calls; NaN where no share reaches it.
    pub cpt50: Interval,
    pub cpt80: Interval,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Calls that go to the dear model, 0 to 1.
    pub share: f64,
    pub quality: f64,
    /// Mean cost of a call.
    pub cost: f64,
}

/// Groups of equally scored questions, the first to be sent to the dear model first.
pub struct Ranking {
    order: Vec<usize>,
    /// Where each group ends in `order`.
    ends: Vec<usize>,
}

impl Ranking {
    /// `scores`: the higher, the sooner a question is sent to the dear model. NaN comes last.
    pub fn new(scores: &[f64]) -> Self {
        let score = |at: usize| if scores[at].is_nan() { f64::NEG_INFINITY } else { scores[at] };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|one, two| score(*two).total_cmp(&score(*one)));
        let mut ends: Vec<usize> = (1..order.len()).filter(|at| score(order[*at]) != score(order[*at - 1])).collect();
        ends.push(order.len());
        Self { order, ends }
    }

    /// The curve over the rows, each counted `weights` times; None = once. Between two groups it is a straight line:
    /// what an equal score cannot tell apart is drawn at random.
    fn walk(&self, rows: &[Outcome], weights: Option<&[u32]>, mut visit: impl FnMut(Point)) {
        let weight = |at: usize| weights.map_or(1.0, |weights| f64::from(weights[at]));
        let mut total = 0.0;
        let (mut quality, mut cost) = (0.0, 0.0);
        for (at, row) in rows.iter().enumerate() {
            total += weight(at);
            quality += weight(at) * row.cheap;
            cost += weight(at) * row.cheap_cost;
        }
        if total == 0.0 {
            return;
        }
        let mut sent = 0.0;
        let mut begin = 0;
        visit(Point { share: 0.0, quality: quality / total, cost: cost / total });
        for &end in &self.ends {
            for &at in &self.order[begin..end] {
                let row = rows[at];
                sent += weight(at);
                quality += weight(at) * (row.dear - row.cheap);
                cost += weight(at) * (row.dear_cost - row.cheap_cost);
            }
            begin = end;
            visit(Point { share: sent / total, quality: quality / total, cost: cost / total });
        }
    }

    /// The whole curve, from "all cheap" to "all dear".
    pub fn curve(&self, rows: &[Outcome]) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.ends.len() + 1);
        self.walk(rows, None, |point| points.push(point));
        points
    }

    /// APGR and CPT with 95 % intervals by the bootstrap over questions (percentiles of `rounds` resamples; 0 = none, and
    /// the intervals are the values themselves).
    pub fn measures(&self, rows: &[Outcome], rounds: usize, seed: u64) -> Measures {
        let values = self.once(rows, None);
        let mut drawn: [Vec<f64>; 3] = Default::default();
        let mut random = Random::new(seed);
        let mut weights = vec![0_u32; rows.len()];
        for _ in 0..rounds {
            weights.fill(0);
            for _ in 0..rows.len() {
                weights[random.below(rows.len())] += 1;
            }
            for (drawn, value) in drawn.iter_mut().zip(self.once(rows, Some(&weights))) {
                drawn.push(value);
            }
        }
        let [apgr, cpt50, cpt80] = std::array::from_fn(|at| interval(values[at], &mut drawn[at]));
        Measures { apgr, cpt50, cpt80 }
    }

    fn once(&self, rows: &[Outcome], weights: Option<&[u32]>) -> [f64; 3] {
        let mut ends: Option<(Point, Point)> = None;
        self.walk(rows, weights, |point| ends = Some(ends.map_or((point, point), |(first, _)| (first, point))));
        let Some((first, last)) = ends else { return [f64::NAN; 3] };
        let gap = last.quality - first.quality;
        if gap.abs() < 1e-12 {
            return [f64::NAN; 3];
        }
        let recovered = |point: Point| (point.quality - first.quality) / gap;
        let mut area = 0.0;
        let mut reached = [f64::NAN; 2];
        let mut before = first;
        self.walk(rows, weights, |point| {
            area += (point.share - before.share) * (recovered(point) + recovered(before)) / 2.0;
            for (target, reached) in [0.5, 0.8].into_iter().zip(&mut reached) {
                if reached.is_nan() && recovered(point) >= target {
                    let climbed = recovered(point) - recovered(before);
                    let part = if climbed > 0.0 { (target - recovered(before)) / climbed } else { 1.0 };
                    *reached = before.share + part * (point.share - before.share);
                }
            }
            before = point;
        });
        [area, reached[0], reached[1]]
    }
}

/// The value between the 2.5th and the 97.5th percentile of what was drawn.
pub fn interval(value: f64, drawn: &mut Vec<f64>) -> Interval {
    drawn.retain(|value| !value.is_nan());
    drawn.sort_by(f64::total_cmp);
    if drawn.is_empty() {
        return Interval { value, low: value, high: value };
    }
    let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
    Interval { value, low: at(0.025), high: at(0.975) }
}

/// The mean difference of two measures on the same rows, with its 95 % interval by the bootstrap.
pub fn mean_interval(values: &[f64], rounds: usize, seed: u64) -> Interval {
    let rows: Vec<(f64, f64)> = values.iter().map(|value| (*value, 1.0)).collect();
    let found = ratio_interval(&rows, rounds, seed);
    if rows.is_empty() { Interval { value: 0.0, low: 0.0, high: 0.0 } } else { found }
}

/// The sum of the first over the sum of the second, with its 95 % interval by the bootstrap over rows: both sums are drawn
/// anew, because they go up and down together. NaN where the second is not above 0.
pub fn ratio_interval(rows: &[(f64, f64)], rounds: usize, seed: u64) -> Interval {
    let ratio = |(above, below): (f64, f64)| if below > 0.0 { above / below } else { f64::NAN };
    let add = |(above, below): (f64, f64), row: (f64, f64)| (above + row.0, below + row.1);
    let mut random = Random::new(seed);
    let mut drawn: Vec<f64> = (0..if rows.is_empty() { 0 } else { rounds })
        .map(|_| ratio((0..rows.len()).map(|_| rows[random.below(rows.len())]).fold((0.0, 0.0), add)))
        .collect();
    interval(ratio(rows.iter().copied().fold((0.0, 0.0), add)), &mut drawn)
}
