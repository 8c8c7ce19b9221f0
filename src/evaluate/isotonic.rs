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
        let mut blocks: Vec<Block> = Vec::new();
        let mut last = f64::NAN;
        for (score, good) in rows {
            match blocks.last_mut().filter(|_| score == last) {
                Some(same) if same.score_sum == score * same.rows => {
                    same.good_sum += good;
                    same.rows += 1.0;
                    same.score_sum = score * same.rows;
                }
                _ => blocks.push(Block { score_sum: score, good_sum: good, rows: 1.0 }),
            }
            last = score;
        }
        let mut pooled: Vec<Block> = Vec::with_capacity(blocks.len());
        for block in blocks {
            pooled.push(block);
            while let [.., below, above] = pooled.as_slice() {
                if below.mean() < above.mean() {
                    break;
                }
                let Some(above) = pooled.pop() else { break };
                if let Some(below) = pooled.last_mut() {
                    below.score_sum += above.score_sum;
                    below.good_sum += above.good_sum;
                    below.rows += above.rows;
                }
            }
        }
        Self { points: pooled.iter().map(|block| (block.score_sum / block.rows, block.mean())).collect() }
    }

    /// # Errors
    /// None when the points do not rise.
    pub fn from_points(points: Vec<(f64, f64)>) -> Option<Self> {
        let rises = points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1);
        let finite = points.iter().all(|(score, good)| score.is_finite() && (0.0..=1.0).contains(good));
        (rises && finite).then_some(Self { points })
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
