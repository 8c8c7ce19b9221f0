//! What a router is worth: the measures against their definitions, the bounds against published tables.

use farthing::evaluate::bound::{least_rows, lower, mean_loss, threshold, upper, upper_mean};
use farthing::evaluate::calibrate::{Costs, Draft, Target, calibrate};
use farthing::evaluate::curve::{Outcome, Ranking};
use farthing::evaluate::isotonic::Isotonic;
use farthing::evaluate::random::Random;
use farthing::evaluate::router::{Row, learn};
use farthing::route::features::{Surroundings, features};
use farthing::route::learned::Weights;
use proptest::prelude::*;

fn rows(pairs: &[(u8, u8)]) -> Vec<Outcome> {
    let row = |&(cheap, dear): &(u8, u8)| Outcome {
        cheap: f64::from(cheap),
        dear: f64::from(dear),
        cheap_cost: 1.0,
        dear_cost: 10.0,
    };
    pairs.iter().map(row).collect()
}

#[test]
fn a_router_that_knows_nothing_is_at_one_half() {
    let rows = rows(&[(0, 1), (1, 1), (0, 0), (1, 0), (0, 1)]);
    let measures = Ranking::new(&[7.0; 5]).measures(&rows, 0, 0);
    assert!((measures.apgr.value - 0.5).abs() < 1e-12);
    assert!((measures.cpt50.value - 0.5).abs() < 1e-12);
    assert!((measures.cpt80.value - 0.8).abs() < 1e-12);
}

#[test]
fn a_perfect_router_sends_what_gains_first() {
    // Two of four gain: half the calls bring all of it.
    let rows = rows(&[(0, 1), (1, 1), (0, 1), (0, 0)]);
    let measures = Ranking::new(&[1.0, 0.0, 1.0, 0.0]).measures(&rows, 200, 1);
    assert!((measures.apgr.value - 0.75).abs() < 1e-12);
    assert!((measures.cpt50.value - 0.25).abs() < 1e-12);
    assert!(measures.apgr.low <= 0.75 && 0.75 <= measures.apgr.high);
}

#[test]
fn the_curve_runs_from_cheap_to_dear() {
    let rows = rows(&[(0, 1), (1, 1), (0, 1), (0, 0)]);
    let curve = Ranking::new(&[3.0, 1.0, 2.0, f64::NAN]).curve(&rows);
    let seen: Vec<_> = curve.iter().map(|point| (point.share, point.quality, point.cost)).collect();
    assert_eq!(seen[0], (0.0, 0.25, 1.0));
    assert_eq!(seen[2], (0.5, 0.75, 5.5));
    assert_eq!(seen[4], (1.0, 0.75, 10.0));
}

#[test]
fn exact_bounds() {
    // No failure in n: 1 - (1 - confidence)^(1/n); the "rule of three".
    for n in [10_usize, 100, 1000] {
        let exact = 1.0 - 0.05_f64.powf(1.0 / n as f64);
        assert!((upper(0, n, 0.95) - exact).abs() < 1e-9, "{n}");
    }
    // A two-sided 95 % interval of 10 in 100 (any table of the binomial): 0.0490 to 0.1762.
    assert!((upper(10, 100, 0.975) - 0.1762).abs() < 5e-5);
    assert!((lower(10, 100, 0.975) - 0.0490).abs() < 5e-5);
    assert!((upper(50_000, 100_000, 0.95) - 0.502_6).abs() < 1e-3);
    assert_eq!((upper(5, 5, 0.95), lower(0, 5, 0.95)), (1.0, 0.0));
}

#[test]
fn a_threshold_needs_rows_enough_for_its_promise() {
    let good: Vec<_> = (0..100).map(|at| (f64::from(at) / 100.0, 0.0)).collect();
    // 100 good answers do not show that fewer than 1 % are bad, 1,000 do.
    assert_eq!(threshold(&good, 0.01, 0.95), None);
    let good: Vec<_> = (0..1000).map(|at| (f64::from(at) / 1000.0, 0.0)).collect();
    let found = threshold(&good, 0.01, 0.95).unwrap();
    assert_eq!((found.threshold, found.coverage, found.loss), (0.0, 1.0, 0.0));
}

/// The promise itself: over many draws from a world whose risk is known, the bound is broken in at most the share agreed.
#[test]
fn the_bound_holds_as_often_as_it_says() {
    let mut random = Random::new(5);
    let mut uniform = move || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (mut found, mut broken) = (0, 0);
    for _ in 0..400 {
        // P(bad) = 0.3 (1 - score): the loss of accepting all scores >= t is 0.15 (1 - t)^2.
        let rows: Vec<_> = (0..600)
            .map(|_| {
                let score = uniform();
                (score, f64::from(u8::from(uniform() < 0.3 * (1.0 - score))))
            })
            .collect();
        if let Some(chosen) = threshold(&rows, 0.05, 0.9) {
            found += 1;
            broken += u32::from(0.15 * (1.0 - chosen.threshold).powi(2) > 0.05);
        }
    }
    assert!(found > 390 && broken <= 50, "{broken} of {found}");
}

#[test]
fn rows_that_a_promise_needs() {
    assert_eq!(least_rows(0.01, 0.95), 299);
    assert_eq!(least_rows(0.05, 0.95), 59);
    for max_loss in [0.001, 0.01, 0.05, 0.3, 0.999] {
        let least = least_rows(max_loss, 0.95);
        assert!(upper(0, least, 0.95) <= max_loss, "{max_loss}");
        assert!(least == 1 || upper(0, least - 1, 0.95) > max_loss, "{max_loss}");
    }
}

#[test]
fn partial_losses_have_a_bound_of_their_own() {
    // Hoeffding-Bentkus of losses that happen to be whole is never below the exact one, and not far above it.
    for (bad, total) in [(0, 300), (3, 300), (40, 1000)] {
        let exact = upper(bad, total, 0.95);
        let bound = upper_mean(bad as f64, total, 0.95, false);
        assert!(exact <= bound + 1e-12 && bound < exact + 0.01, "{bad} of {total}: {exact} {bound}");
    }
    // Sure losses of 0.01 each are far from rounded ones.
    assert!(upper_mean(10.0, 1000, 0.95, false) < 0.02);
    assert_eq!(upper_mean(0.0, 0, 0.95, false), 1.0);
    assert_eq!(upper_mean(5.0, 5, 0.95, false), 1.0);
    let mean = mean_loss(&[0.5; 100]);
    assert!(mean.low < 0.5 && 0.5 < mean.high && mean.high < 0.7);
    assert!(mean_loss(&[]).value.is_nan());
}

/// The same promise when losses are between 0 and 1.
#[test]
fn the_bound_of_partial_losses_holds() {
    let mut random = Random::new(6);
    let mut uniform = move || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (mut found, mut broken) = (0, 0);
    for _ in 0..200 {
        // A loss between 0 and 0.6 (1 - score): its mean is 0.3 (1 - score), as above.
        let rows: Vec<_> = (0..600)
            .map(|_| {
                let score = uniform();
                (score, uniform() * 0.6 * (1.0 - score))
            })
            .collect();
        if let Some(chosen) = threshold(&rows, 0.05, 0.9) {
            found += 1;
            broken += u32::from(0.15 * (1.0 - chosen.threshold).powi(2) > 0.05);
        }
    }
    assert!(found > 190 && broken <= 25, "{broken} of {found}");
}

#[test]
fn a_score_that_is_no_number_is_never_accepted() {
    let rows: Vec<_> = (0..600).map(|_| (f64::NAN, 1.0)).chain((0..600).map(|_| (1.0, 0.0))).collect();
    let found = threshold(&rows, 0.01, 0.95).unwrap();
    assert_eq!((found.threshold, found.coverage, found.loss), (0.0, 0.5, 0.0));
    assert_eq!(threshold(&[], 0.01, 0.95), None);
}

#[test]
fn weights_that_are_written_are_the_ones_that_were_reported_on() {
    let row = |at: usize| {
        let hard = at.is_multiple_of(2);
        let prompt = format!("{} number {at}", if hard { "Prove theorem" } else { "Name the capital of country" });
        let outcome = Outcome { cheap: f64::from(u8::from(!hard)), dear: 1.0, cheap_cost: 1.0, dear_cost: 10.0 };
        Row { prompt, group: None, outcome }
    };
    let learned = learn((0..400).map(row).collect(), 50, 0);
    assert_eq!((learned.fitted, learned.report.rows), (300, 100));
    let text = serde_json::to_string(&learned.cheap).unwrap();
    let again: Weights = serde_json::from_str(&text).unwrap();
    assert_eq!(again, learned.cheap);
    let good = |prompt: &str| again.probability(&features(prompt, &Surroundings::default()));
    assert!(good("Name the capital of France") > 0.8 && good("Prove theorem 7") < 0.2);
    assert_eq!(learn(Vec::new(), 10, 0).report.rows, 0);
}

fn draft(score: f64, good: f64, is_typical: bool) -> Draft {
    Draft { score, good, dear: None, costs: None, is_typical }
}

#[test]
fn what_is_not_typical_teaches_the_map_alone() {
    let mut drafts: Vec<_> = (0..400).map(|at| draft(f64::from(at) / 400.0, 1.0, true)).collect();
    drafts.extend((0..1000).map(|_| draft(0.0, 0.0, false)));
    let found = calibrate(&drafts, Target { max_loss: 0.05, confidence: 0.95 }, 0);
    assert_eq!((found.fitted, found.chosen_on, found.reported), (1100, 200, 100));
    assert_eq!(found.cheap_loss.value, 0.0);
    assert!(found.points[0].1 < 0.01);
}

/// Calls of 1 to 1,000 that each save exactly 90 %: however the rows are drawn, it is 90 %.
#[test]
fn the_interval_of_a_saving_that_is_the_same_for_every_row_is_a_point() {
    let drafts: Vec<Draft> = (0..400)
        .map(|at| {
            let dear = 10_f64.powf(f64::from(at % 4));
            Draft { costs: Some(Costs { draft: dear / 10.0, dear, scorer: 0.0 }), ..draft(1.0, 1.0, true) }
        })
        .collect();
    let found = calibrate(&drafts, Target { max_loss: 0.1, confidence: 0.95 }, 0);
    let saved = found.bill.map(|bill| bill.saved).expect("a bill");
    for value in [saved.value, saved.low, saved.high] {
        assert!((value - 0.9).abs() < 1e-9, "{saved:?}");
    }
}

proptest! {
    #[test]
    fn calibrating_never_panics_and_what_it_chooses_is_on_the_grid(
        rows in prop::collection::vec((0.0..=1.0_f64, 0.0..=1.0_f64, prop::option::of(0.0..=1.0_f64), any::<bool>()), 0..80),
        max_loss in 0.01..0.9_f64,
        seed in any::<u64>(),
    ) {
        let drafts: Vec<_> = rows
            .into_iter()
            .map(|(score, good, dear, is_typical)| Draft { dear, ..draft(score, good, is_typical) })
            .collect();
        let found = calibrate(&drafts, Target { max_loss, confidence: 0.95 }, seed);
        prop_assert_eq!(found.fitted + found.chosen_on + found.reported, drafts.len());
        if let Some(chosen) = found.chosen {
            prop_assert!(chosen.bound <= max_loss && chosen.coverage > 0.0);
            prop_assert!((chosen.threshold * 1000.0).round() / 1000.0 == chosen.threshold);
        }
        prop_assert!(found.points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
    }

    #[test]
    fn isotonic_never_falls(rows in prop::collection::vec((-5.0..5.0_f64, 0..2_u8), 1..60)) {
        let rows: Vec<_> = rows.into_iter().map(|(score, good)| (score, f64::from(good))).collect();
        let map = Isotonic::fit(&rows);
        let mut last = 0.0;
        for step in -60..60 {
            let good = map.probability(f64::from(step) / 10.0);
            prop_assert!((0.0..=1.0).contains(&good) && good >= last - 1e-12);
            last = good;
        }
        // Least squares keeps the mean over the rows within each block, and so over all of them.
        let again = Isotonic::from_points(map.points().to_vec());
        prop_assert_eq!(again, Some(map));
    }

    #[test]
    fn apgr_of_a_reversed_router_mirrors(pairs in prop::collection::vec((0..2_u8, 0..2_u8, -3.0..3.0_f64), 2..50)) {
        let outcomes = rows(&pairs.iter().map(|(cheap, dear, _)| (*cheap, *dear)).collect::<Vec<_>>());
        let scores: Vec<_> = pairs.iter().map(|row| row.2).collect();
        let reversed: Vec<_> = scores.iter().map(|score| -score).collect();
        let one = Ranking::new(&scores).measures(&outcomes, 0, 0).apgr.value;
        let two = Ranking::new(&reversed).measures(&outcomes, 0, 0).apgr.value;
        prop_assert!(one.is_nan() && two.is_nan() || (one + two - 1.0).abs() < 1e-9);
    }
}
