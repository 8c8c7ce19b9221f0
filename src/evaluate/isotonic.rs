//! Scores into probabilities: the non-decreasing map that fits labelled rows best (least squares).
//!
//! Pool adjacent violators (Ayer et al. 1955); between two steps the map is a straight line, so that two scores that differ
//! do not get one probability by the accident of which rows were seen.

/// See the module. Points are `(score, probability)`, both non-decreasing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Isotonic {
    points: Vec<(f64, f64)>,
}

impl Isotonic {
    /// `rows`: a score, and whether the answer was good (0 to 1). Scores that are no numbers are left out.
    pub fn fit(rows: &[(f64, f64)]) -> Self {
        /// Rows that get one probability.
        struct Block {
            score_sum: f64,
            good_sum: f64,
            rows: f64,
        }
        impl Block {
            fn mean(&self) -> f64 {
                self.good_sum / self.rows
            }
        }
        let mut rows: Vec<_> =
            rows.iter().copied().filter(|(score, good)| score.is_finite() && good.is_finite()).collect();
        rows.sort_by(|one, two| one.0.total_cmp(&two.0));
        let mut pooled: Vec<Block> = Vec::with_capacity(rows.len());
        let mut last = f64::NAN;
        for (score, good) in rows {
            let mut block = Block { score_sum: score, good_sum: good, rows: 1.0 };
            // Equal scores have one probability, and so have scores between which it would fall.
            let mut is_equal = score == last;
            while let Some(below) = pooled.pop_if(|below| is_equal || below.mean() >= block.mean()) {
                block.score_sum += below.score_sum;
                block.good_sum += below.good_sum;
                block.rows += below.rows;
                is_equal = false;
            }
            pooled.push(block);
            last = score;
        }
        Self { points: pooled.iter().map(|block| (block.score_sum / block.rows, block.mean())).collect() }
    }

    /// None when there are no points, when they do not rise, or when one is not within 0 to 1.
    pub fn from_points(points: Vec<(f64, f64)>) -> Option<Self> {
        let rises = points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1);
        let known = points.iter().all(|(score, good)| score.is_finite() && (0.0..=1.0).contains(good));
        (rises && known && !points.is_empty()).then_some(Self { points })
    }

    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// P(good) for a score; NaN where nothing is known.
    pub fn probability(&self, score: f64) -> f64 {
        let above = self.points.partition_point(|(known, _)| *known < score);
        match (above.checked_sub(1).and_then(|at| self.points.get(at)), self.points.get(above)) {
            (Some(&(low, low_good)), Some(&(high, high_good))) if high > low => {
                low_good + (high_good - low_good) * (score - low) / (high - low)
            }
            (_, Some(&(_, good))) | (Some(&(_, good)), None) => good,
            (None, None) => f64::NAN,
        }
    }
}
