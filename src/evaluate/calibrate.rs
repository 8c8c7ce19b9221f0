//! From labelled drafts to a map (score to P(good)) and a threshold, and what a ladder with them is worth.
//!
//! Rows are split into three parts by a seed: the map is fitted to a quarter, the threshold is chosen on a half (`bound.rs`),
//! and everything that is reported comes from the last quarter. So no row is judged by what was learned from it.

use serde::Serialize;

use super::bound::{self, mean_loss};
use super::curve::{Interval, mean_interval, ratio_interval};
use super::isotonic::Isotonic;
use super::random::Random;

const ROUNDS: usize = 1000;
/// Points of the reported curve, at about equal steps of coverage.
const POINTS: usize = 10;

/// USD, or any unit that is the same for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    pub draft: f64,
    pub dear: f64,
    pub scorer: f64,
}

/// One draft and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draft {
    pub score: f64,
    /// How good it is, 0 to 1.
    pub good: f64,
    /// How good the dear answer is, 0 to 1; None = it counts as good.
    pub dear: Option<f64>,
    pub costs: Option<Costs>,
    /// It stands for the traffic. One that does not (rejected drafts are labelled more often than accepted ones) may teach
    /// the map, which is about one score at a time, but not choose or report.
    pub is_typical: bool,
}

impl Draft {
    /// What taking it instead of the dear answer loses, 0 to 1.
    pub fn loss(&self) -> f64 {
        (self.dear.unwrap_or(1.0) - self.good).clamp(0.0, 1.0)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub max_loss: f64,
    pub confidence: f64,
}

/// What a threshold does on the rows that are reported on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub threshold: f64,
    /// Accepted drafts.
    pub coverage: Interval,
    /// Of accepted drafts, over all calls.
    pub loss: Interval,
    /// The same among the accepted ones alone.
    pub risk: Interval,
}

/// The threshold, on the rows that it was chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chosen {
    pub threshold: f64,
    pub coverage: f64,
    pub loss: f64,
    pub bound: f64,
}

/// What the ladder costs beside each model alone, a call, on the rows that are reported on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bill {
    pub rows: usize,
    pub cheap: f64,
    pub dear: f64,
    pub scorer: f64,
    pub ladder: f64,
    /// What the ladder saves of "always dear"; below 0 = it costs more.
    pub saved: Interval,
    /// Escalated calls.
    pub escalated: f64,
    /// Their part of what "always dear" costs: dear calls are often the ones that escalate.
    pub escalated_cost: f64,
    /// The part of it at which the ladder costs what "always dear" costs. At 0 or below it can never pay.
    pub break_even: f64,
}

/// Mean quality a call, where the dear answers' quality is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    pub cheap: Interval,
    pub dear: Interval,
    pub ladder: Interval,
    /// The ladder's less the dear model's, on the same rows.
    pub difference: Interval,
}

/// All that is known of one rung.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    pub points: Vec<(f64, f64)>,
    pub fitted: usize,
    pub chosen_on: usize,
    pub reported: usize,
    /// Rows that choosing needs before any threshold can pass.
    pub least_rows: usize,
    /// None = none can be shown to keep the loss, or the ones that can accept nothing.
    pub chosen: Option<Chosen>,
    /// What the loss of taking every draft is below.
    pub cheap_bound: f64,
    /// What taking every draft loses.
    pub cheap_loss: Interval,
    pub at_threshold: Option<Point>,
    pub curve: Vec<Point>,
    /// At the threshold; where there is none, everything escalates.
    pub bill: Option<Bill>,
    pub quality: Option<Quality>,
}

/// See the module. `seed`: of the split and of the bootstrap.
pub fn calibrate(drafts: &[Draft], target: Target, seed: u64) -> Calibration {
    let (fit, choose, report) = split(drafts, seed);
    let map = Isotonic::fit(&fit.iter().map(|draft| (draft.score, draft.good)).collect::<Vec<_>>());
    let judged = |drafts: &[Draft]| -> Vec<(f64, f64)> {
        drafts.iter().map(|draft| (map.probability(draft.score), draft.loss())).collect()
    };
    let chosen = bound::threshold(&judged(&choose), target.max_loss, target.confidence)
        .filter(|found| found.coverage > 0.0)
        .map(|found| Chosen {
            threshold: found.threshold,
            coverage: found.coverage,
            loss: found.loss,
            bound: found.bound,
        });
    let all_lost: Vec<f64> = choose.iter().map(Draft::loss).collect();
    let is_binary = all_lost.iter().all(|loss| *loss == 0.0 || *loss == 1.0);
    let rows = judged(&report);
    let accepts = |at: usize| chosen.is_some_and(|chosen| rows[at].0 >= chosen.threshold);
    let accepted: Vec<bool> = (0..rows.len()).map(accepts).collect();
    Calibration {
        points: map.points().to_vec(),
        fitted: fit.len(),
        chosen_on: choose.len(),
        reported: report.len(),
        least_rows: bound::least_rows(target.max_loss, target.confidence),
        chosen,
        cheap_bound: bound::upper_mean(all_lost.iter().sum(), choose.len(), target.confidence, is_binary),
        cheap_loss: mean_loss(&rows.iter().map(|row| row.1).collect::<Vec<_>>()),
        at_threshold: chosen.map(|chosen| point(&rows, chosen.threshold)),
        curve: curve(&rows),
        bill: bill(&report, &accepted, seed),
        quality: quality(&report, &accepted, seed),
    }
}

/// Fit, choose, report: a quarter, a half and a quarter of what is typical, and what is not to the first.
fn split(drafts: &[Draft], seed: u64) -> (Vec<Draft>, Vec<Draft>, Vec<Draft>) {
    let (mut typical, mut fit): (Vec<Draft>, Vec<Draft>) = drafts.iter().partition(|draft| draft.is_typical);
    Random::new(seed).shuffle(&mut typical);
    let quarter = typical.len() / 4;
    let report = typical.split_off(typical.len() - quarter);
    let choose = typical.split_off(quarter);
    fit.extend(typical);
    (fit, choose, report)
}

fn point(rows: &[(f64, f64)], threshold: f64) -> Point {
    let is_accepted = |row: &(f64, f64)| row.0 >= threshold;
    let share: Vec<f64> = rows.iter().map(|row| f64::from(u8::from(is_accepted(row)))).collect();
    let loss: Vec<f64> = rows.iter().map(|row| if is_accepted(row) { row.1 } else { 0.0 }).collect();
    let risk: Vec<f64> = rows.iter().filter(|row| is_accepted(row)).map(|row| row.1).collect();
    Point { threshold, coverage: mean_loss(&share), loss: mean_loss(&loss), risk: mean_loss(&risk) }
}

/// Thresholds of the grid at about equal steps of coverage, the strictest first. They depend on scores, never on losses.
fn curve(rows: &[(f64, f64)]) -> Vec<Point> {
    let mut scores: Vec<f64> = rows.iter().map(|row| row.0).filter(|score| !score.is_nan()).collect();
    scores.sort_by(|one, two| two.total_cmp(one));
    let on_grid = |score: f64| (score * bound::STEPS as f64).floor() / bound::STEPS as f64;
    let at = |step: usize| scores.get((scores.len() * step / POINTS).saturating_sub(1)).copied().map(on_grid);
    let mut thresholds: Vec<f64> = (1..=POINTS).filter_map(at).collect();
    thresholds.dedup();
    thresholds.into_iter().map(|threshold| point(rows, threshold)).collect()
}

/// None when no row has costs.
fn bill(drafts: &[Draft], accepted: &[bool], seed: u64) -> Option<Bill> {
    let known: Vec<(Costs, bool)> =
        drafts.iter().zip(accepted).filter_map(|(draft, taken)| Some((draft.costs?, *taken))).collect();
    if known.is_empty() {
        return None;
    }
    let mean = |of: &dyn Fn(&(Costs, bool)) -> f64| known.iter().map(of).sum::<f64>() / known.len() as f64;
    let escalation = |(costs, taken): &(Costs, bool)| if *taken { 0.0 } else { costs.dear };
    let ladder = |row: &(Costs, bool)| row.0.draft + row.0.scorer + escalation(row);
    let (cheap, dear, scorer) = (mean(&|row| row.0.draft), mean(&|row| row.0.dear), mean(&|row| row.0.scorer));
    let part = |of: f64| if dear > 0.0 { of / dear } else { f64::NAN };
    let saved: Vec<(f64, f64)> = known.iter().map(|row| (row.0.dear - ladder(row), row.0.dear)).collect();
    Some(Bill {
        rows: known.len(),
        cheap,
        dear,
        scorer,
        ladder: mean(&ladder),
        saved: ratio_interval(&saved, ROUNDS, seed),
        escalated: mean(&|row| f64::from(u8::from(!row.1))),
        escalated_cost: part(mean(&escalation)),
        break_even: 1.0 - part(cheap + scorer),
    })
}

/// None when no row says how good the dear answer is.
fn quality(drafts: &[Draft], accepted: &[bool], seed: u64) -> Option<Quality> {
    let known: Vec<(f64, f64, bool)> =
        drafts.iter().zip(accepted).filter_map(|(draft, taken)| Some((draft.good, draft.dear?, *taken))).collect();
    if known.is_empty() {
        return None;
    }
    let spread =
        |of: &dyn Fn(&(f64, f64, bool)) -> f64| mean_interval(&known.iter().map(of).collect::<Vec<_>>(), ROUNDS, seed);
    Some(Quality {
        cheap: spread(&|row| row.0),
        dear: spread(&|row| row.1),
        ladder: spread(&|row| if row.2 { row.0 } else { row.1 }),
        difference: spread(&|row| if row.2 { row.0 - row.1 } else { 0.0 }),
    })
}
