//! Routers beside each other on one set of questions, and beside what needs no router: all cheap, all dear, at random.
//!
//! What is learned is learned on other rows than it is judged on: five folds, and of the other four at most as many labels
//! as the line says.

use std::collections::HashMap;

use serde::Serialize;

use super::curve::{Interval, Measures, Outcome, Point, Ranking, mean_interval};
use super::random::Random;
use crate::route::features::{Features, Surroundings, features};
use crate::route::learned::Weights;
use crate::route::rules;

const FOLDS: usize = 5;

/// One question.
pub struct Row {
    pub prompt: String,
    /// A subject or a task, where the data has one.
    pub group: Option<String>,
    pub outcome: Outcome,
}

/// One router's line.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub name: &'static str,
    /// Labelled rows of this traffic that it learned from.
    pub labels: usize,
    pub measures: Measures,
    /// At shares of 0, 10, ... 100 % dear calls.
    pub curve: Vec<Point>,
}

/// All lines of one set of questions.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub rows: usize,
    pub cheap_quality: Interval,
    pub dear_quality: Interval,
    /// Of the dear model's over the cheap one's, on the same rows.
    pub gain: Interval,
    pub cheap_cost: f64,
    pub dear_cost: f64,
    pub lines: Vec<Line>,
}

/// Weights that were learned from one part of the rows, and what they do on the other.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    pub fitted: usize,
    /// Of the probability that the cheap model's answer is good. What is sent to the dear model first is what gains most:
    /// its probability less this one.
    pub cheap: Weights,
    pub dear: Weights,
    pub report: Comparison,
}

/// Learns from three quarters of the rows, and reports on the last beside random, prompt length and the oracle.
pub fn learn(rows: Vec<Row>, rounds: usize, seed: u64) -> Learned {
    let mut held = rows;
    Random::new(seed).shuffle(&mut held);
    let taught = held.split_off(held.len() / 4);
    let look = |row: &Row| features(&row.prompt, &Surroundings::default());
    let looks: Vec<Features> = taught.iter().map(look).collect();
    let fit = |of: fn(&Outcome) -> f64| {
        let rows: Vec<_> = looks.iter().zip(&taught).map(|(look, row)| (look, of(&row.outcome) as f32)).collect();
        Weights::fit(&rows, seed)
    };
    let (cheap, dear) = (fit(|row| row.cheap), fit(|row| row.dear));
    let outcomes: Vec<Outcome> = held.iter().map(|row| row.outcome).collect();
    let line = |name, labels, scores: &[f64]| {
        let ranking = Ranking::new(scores);
        let curve = tenths(&ranking.curve(&outcomes));
        Line { name, labels, measures: ranking.measures(&outcomes, rounds, seed), curve }
    };
    let gain = |row: &Row| {
        let look = look(row);
        f64::from(dear.probability(&look) - cheap.probability(&look))
    };
    let lines = vec![
        line("random", 0, &vec![0.0; held.len()]),
        line("prompt length", 0, &held.iter().map(|row| row.prompt.len() as f64).collect::<Vec<_>>()),
        line("learned", taught.len(), &held.iter().map(gain).collect::<Vec<_>>()),
        line("oracle", 0, &outcomes.iter().map(|row| row.dear - row.cheap).collect::<Vec<_>>()),
    ];
    Learned { fitted: taught.len(), cheap, dear, report: comparison(&outcomes, lines, rounds, seed) }
}

/// `labels`: how many labelled rows the learned router gets, a line each; more than there are is all of them.
pub fn compare(rows: &[Row], labels: &[usize], rounds: usize, seed: u64) -> Comparison {
    let outcomes: Vec<Outcome> = rows.iter().map(|row| row.outcome).collect();
    let looks: Vec<Features> = rows.iter().map(|row| features(&row.prompt, &Surroundings::default())).collect();
    let line = |name, labels, scores: &[f64]| {
        let ranking = Ranking::new(scores);
        let curve = tenths(&ranking.curve(&outcomes));
        Line { name, labels, measures: ranking.measures(&outcomes, rounds, seed), curve }
    };
    let folds = folds(rows.len(), seed);
    let least = rows.len() - rows.len() / FOLDS;
    let mut lines = vec![
        line("random", 0, &vec![0.0; rows.len()]),
        line("prompt length", 0, &rows.iter().map(|row| row.prompt.len() as f64).collect::<Vec<_>>()),
        line("rules", 0, &looks.iter().map(|look| f64::from(rules::difficulty(look))).collect::<Vec<_>>()),
    ];
    let mut known: Vec<usize> = labels.iter().map(|count| (*count).min(least)).collect();
    known.dedup();
    for &count in &known {
        if rows.iter().any(|row| row.group.is_some()) {
            let scores = judged(&folds, count, seed, |taught, asked| {
                let means = means(rows, taught);
                asked.iter().map(|at| means.get(&rows[*at].group).copied().unwrap_or(f64::NAN)).collect()
            });
            lines.push(line("subject mean", count, &scores));
        }
        let scores = judged(&folds, count, seed, |taught, asked| {
            let fit = |of: fn(&Outcome) -> f64| {
                let taught: Vec<_> = taught.iter().map(|at| (&looks[*at], of(&outcomes[*at]) as f32)).collect();
                Weights::fit(&taught, seed)
            };
            let (cheap, dear) = (fit(|row| row.cheap), fit(|row| row.dear));
            let gain = |look| f64::from(dear.probability(look) - cheap.probability(look));
            asked.iter().map(|at| gain(&looks[*at])).collect()
        });
        lines.push(line("learned", count, &scores));
    }
    lines.push(line("oracle", 0, &outcomes.iter().map(|row| row.dear - row.cheap).collect::<Vec<_>>()));
    comparison(&outcomes, lines, rounds, seed)
}

fn comparison(outcomes: &[Outcome], lines: Vec<Line>, rounds: usize, seed: u64) -> Comparison {
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64;
    let spread = |of: fn(&Outcome) -> f64| mean_interval(&outcomes.iter().map(of).collect::<Vec<_>>(), rounds, seed);
    Comparison {
        rows: outcomes.len(),
        cheap_quality: spread(|row| row.cheap),
        dear_quality: spread(|row| row.dear),
        gain: spread(|row| row.dear - row.cheap),
        cheap_cost: mean(|row| row.cheap_cost),
        dear_cost: mean(|row| row.dear_cost),
        lines,
    }
}

fn folds(rows: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    Random::new(seed).shuffle(&mut order);
    (0..FOLDS).map(|fold| order.iter().copied().skip(fold).step_by(FOLDS).collect()).collect()
}

/// The scores of all rows, each from a router that was taught with `count` rows of the other folds.
fn judged(folds: &[Vec<usize>], count: usize, seed: u64, teach: impl Fn(&[usize], &[usize]) -> Vec<f64>) -> Vec<f64> {
    let mut scores = vec![f64::NAN; folds.iter().map(Vec::len).sum()];
    for (at, asked) in folds.iter().enumerate() {
        let others = folds.iter().enumerate().filter(|(other, _)| *other != at);
        let mut taught: Vec<usize> = others.flat_map(|(_, fold)| fold.iter().copied()).collect();
        Random::new(seed + 1 + at as u64).shuffle(&mut taught);
        taught.truncate(count);
        for (row, score) in asked.iter().zip(ranks(teach(&taught, asked))) {
            scores[*row] = score;
        }
    }
    scores
}

/// Scores of different routers are not on one scale: what counts is the place within the fold.
fn ranks(scores: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |at: usize| if scores[at].is_nan() { f64::NEG_INFINITY } else { scores[at] };
    order.sort_by(|one, two| score(*one).total_cmp(&score(*two)));
    let mut ranks = vec![0.0; scores.len()];
    let mut at = 0;
    while at < order.len() {
        let mut end = at + 1;
        while end < order.len() && score(order[end]) == score(order[at]) {
            end += 1;
        }
        for row in &order[at..end] {
            ranks[*row] = (at + end) as f64 / (2 * order.len()) as f64;
        }
        at = end;
    }
    ranks
}

/// The mean gain of the dear model by group.
fn means(rows: &[Row], taught: &[usize]) -> HashMap<Option<String>, f64> {
    let mut sums: HashMap<Option<String>, (f64, f64)> = HashMap::new();
    for at in taught {
        let sum = sums.entry(rows[*at].group.clone()).or_default();
        sum.0 += rows[*at].outcome.dear - rows[*at].outcome.cheap;
        sum.1 += 1.0;
    }
    sums.into_iter().map(|(group, (gain, count))| (group, gain / count)).collect()
}

/// The curve at every tenth of dear calls.
fn tenths(curve: &[Point]) -> Vec<Point> {
    let at = |share: f64| {
        let above = curve.partition_point(|point| point.share < share).min(curve.len().saturating_sub(1));
        let (low, high) = (curve[above.saturating_sub(1)], curve[above]);
        let wide = high.share - low.share;
        let part = if wide > 0.0 { (share - low.share) / wide } else { 1.0 };
        let between = |low: f64, high: f64| low + part * (high - low);
        Point { share, quality: between(low.quality, high.quality), cost: between(low.cost, high.cost) }
    };
    if curve.is_empty() { Vec::new() } else { (0..=10).map(|tenth| at(f64::from(tenth) / 10.0)).collect() }
}
