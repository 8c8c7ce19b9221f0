//! A tier by the surface of a prompt, for those who have no labels yet: conditions, and fixed weights.
//!
//! The weights of the text are a ridge regression of the dear model's gain over four pairs of models on LLMRouter's
//! questions (4,598, twelve tasks). They do not carry far: on questions of another kind they are near random
//! (`docs/routing.md` has the table), as every router without labels of the traffic at hand is. The others are set by
//! hand, for the data had nothing to fit them with; so are the conditions of the well-known names of tiers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::condition::Compiled;
pub use super::condition::Condition;
use super::features::{COUNT, Counts, Features, NAMES};
use super::look::Look;

/// In the order of `features::NAMES`.
const WEIGHTS: [f32; COUNT] = [
    0.48, -0.23, -0.23, 0.05, -0.13, -0.11, 0.4, -0.41, 0.62, -0.01, -0.68, -0.19, // the text
    0.1, 0.3, 0.1, 0.1, // its surroundings
];

/// 0 (looks easy) to 1 (looks hard).
pub fn difficulty(look: &Features) -> f32 {
    weighted(&WEIGHTS, look)
}

fn weighted(weights: &[f32; COUNT], look: &Features) -> f32 {
    let sum: f32 = weights.iter().zip(look.values).map(|(weight, value)| weight * value).sum();
    1.0 / (1.0 + (-sum).exp())
}

/// What the policy says of the rules.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesConfig {
    /// In place of those that are built in, by the names of `features::NAMES`.
    pub weights: BTreeMap<String, f64>,
    /// Difficulties at which the next tier begins: ascending, 0 to 1, one fewer than there are tiers. Empty: equal parts,
    /// without the tiers `trivial` and `code`, which are reached by their conditions; a tier `reasoning` begins at 0.65 or
    /// above.
    pub thresholds: Vec<f64>,
    /// The first that holds decides. They replace the conditions of the well-known names.
    pub when: Vec<Condition>,
}

/// Where a request belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub tier: usize,
    /// 0 to 1. By difficulty: how far from the next border, as a share of the farthest that the tier goes (0: on the
    /// border). By a well-known name: 1 - 2^-(marks that speak for it). By a condition of the policy's: 1. Not a
    /// probability.
    pub confidence: f64,
    pub reasons: Vec<String>,
}

/// Names of tiers that have conditions of their own.
#[derive(Clone, Debug, Default)]
struct WellKnown {
    trivial: Option<usize>,
    code: Option<usize>,
    reasoning: Option<usize>,
}

/// Compiled from [`RulesConfig`].
#[derive(Clone, Debug)]
pub struct Rules {
    weights: [f32; COUNT],
    when: Vec<Compiled>,
    known: WellKnown,
    /// Tiers on the scale of difficulty, and where each but the first begins.
    scale: Vec<usize>,
    borders: Vec<f64>,
}

impl Rules {
    /// `tiers`: their names, from cheap to dear.
    ///
    /// # Errors
    /// What is wrong with the policy, and a hint.
    pub fn new(config: &RulesConfig, tiers: &[String]) -> Result<Self, String> {
        if tiers.is_empty() {
            return Err("rules: there are no tiers\nhint: name at least one".to_owned());
        }
        let when =
            config.when.iter().map(|condition| Compiled::new(condition, tiers)).collect::<Result<Vec<_>, _>>()?;
        let named = |name: &str| tiers.iter().position(|tier| tier == name).filter(|_| when.is_empty());
        let known = WellKnown { trivial: named("trivial"), code: named("code"), reasoning: named("reasoning") };
        let (scale, borders) = scale(config, tiers, &known, &when)?;
        Ok(Self { weights: weights(config)?, when, known, scale, borders })
    }

    pub fn choose(&self, look: &Look) -> Verdict {
        for condition in &self.when {
            if let Some(reasons) = condition.reasons(look) {
                return Verdict { tier: condition.tier, confidence: 1.0, reasons };
            }
        }
        self.by_name(&look.counts).unwrap_or_else(|| self.by_difficulty(&look.features))
    }

    fn by_name(&self, counts: &Counts) -> Option<Verdict> {
        let marks = [
            (self.known.trivial, trivial(counts)),
            (self.known.code, code(counts)),
            (self.known.reasoning, reasoning(counts)),
        ];
        let mut best: Option<(usize, f64)> = None;
        for (tier, marks) in marks {
            let Some(tier) = tier.filter(|_| marks >= ENOUGH) else { continue };
            if best.is_none_or(|(_, most)| marks > most) {
                best = Some((tier, marks));
            }
        }
        let (tier, marks) = best?;
        Some(Verdict { tier, confidence: 1.0 - (-marks).exp2(), reasons: counted(counts) })
    }

    fn by_difficulty(&self, features: &Features) -> Verdict {
        let difficulty = f64::from(weighted(&self.weights, features));
        let place = self.borders.iter().filter(|border| difficulty >= **border).count();
        let below = place.checked_sub(1).and_then(|at| self.borders.get(at)).copied();
        let above = self.borders.get(place).copied();
        let (distance, farthest) = match (below, above) {
            (Some(below), Some(above)) => ((difficulty - below).min(above - difficulty), (above - below) / 2.0),
            (Some(below), None) => (difficulty - below, 1.0 - below),
            (None, Some(above)) => (above - difficulty, above),
            (None, None) => (1.0, 1.0),
        };
        let confidence = if farthest > 0.0 { (distance / farthest).clamp(0.0, 1.0) } else { 0.0 };
        let tier = self.scale.get(place).copied().unwrap_or_default();
        Verdict { tier, confidence, reasons: vec![format!("difficulty {difficulty:.2}")] }
    }
}

fn weights(config: &RulesConfig) -> Result<[f32; COUNT], String> {
    let mut weights = WEIGHTS;
    for (name, weight) in &config.weights {
        let at = NAMES
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("weights: unknown feature: {name:?}\nhint: known are {}", NAMES.join(", ")))?;
        if weight.is_nan() || weight.abs() > 1e6 {
            return Err(format!("weights: {name} is out of range: {weight}\nhint: usual weights are from -1 to 1"));
        }
        weights[at] = *weight as f32;
    }
    Ok(weights)
}

/// Most prompts are of a difficulty around 0.5; a tier with a condition of its own is reached by difficulty only where that
/// is clearly above.
const REASONING_FROM: f64 = 0.65;

/// The tiers on the scale, and the borders between them.
fn scale(
    config: &RulesConfig,
    tiers: &[String],
    known: &WellKnown,
    when: &[Compiled],
) -> Result<(Vec<usize>, Vec<f64>), String> {
    let borders = &config.thresholds;
    if borders.is_empty() {
        let is_apart = |tier: &usize| {
            let is_asked = when.iter().any(|condition| condition.tier == *tier);
            let is_named = matches!(tiers[*tier].as_str(), "trivial" | "code");
            known.trivial == Some(*tier) || known.code == Some(*tier) || (is_asked && is_named)
        };
        let mut scale: Vec<usize> = (0..tiers.len()).filter(|tier| !is_apart(tier)).collect();
        if scale.is_empty() {
            scale = (0..tiers.len()).collect();
        }
        let parts = scale.len();
        let mut borders = Vec::with_capacity(parts);
        let mut from: f64 = 0.0;
        for (part, tier) in scale.iter().enumerate().skip(1) {
            // Never below the border before it, wherever that was moved to.
            from = from.max(part as f64 / parts as f64);
            if known.reasoning == Some(*tier) {
                from = from.max(REASONING_FROM);
            }
            borders.push(from);
        }
        return Ok((scale, borders));
    }
    if borders.len() + 1 != tiers.len() {
        return Err(format!(
            "thresholds: {} for {} tiers: {borders:?}\nhint: give one fewer than there are tiers",
            borders.len(),
            tiers.len()
        ));
    }
    let is_ascending = borders.windows(2).all(|two| two[0] <= two[1]);
    if !is_ascending || !borders.iter().all(|border| (0.0..=1.0).contains(border)) {
        return Err(format!("thresholds: not ascending from 0 to 1: {borders:?}\nhint: such as [0.3, 0.6]"));
    }
    Ok(((0..tiers.len()).collect(), borders.clone()))
}

/// Marks that a tier with a well-known name needs.
const ENOUGH: f64 = 1.5;

/// A fence is a mark, a name of code is one; a word or an identifier that others use as well is half.
fn code(counts: &Counts) -> f64 {
    let up_to = |count: u32, most: u32| f64::from(count.min(most));
    1.5 * up_to(counts.code_fences, 2)
        + up_to(counts.code_names, 3)
        + 0.5 * up_to(counts.code_words, 3)
        + 0.5 * up_to(counts.identifiers, 6)
}

/// Words of reasoning are a mark each; steps, wishes and figures are parts of one.
fn reasoning(counts: &Counts) -> f64 {
    let up_to = |count: u32, most: u32| f64::from(count.min(most));
    let is_sum = counts.digits >= 3 && counts.words >= 15 && counts.questions > 0;
    up_to(counts.reasoning_words, 4)
        + 0.5 * up_to(counts.steps, 4)
        + 0.25 * up_to(counts.constraints, 4)
        + 0.25 * up_to(counts.operators, 4)
        + if is_sum { 1.0 } else { 0.0 }
}

/// Short, one line, alone, and nothing in it that asks for more. Later in a conversation "yes, do it" may be anything.
fn trivial(counts: &Counts) -> f64 {
    const WORDS: u32 = 8;
    const LETTERS: u32 = 60;
    let is_short = (1..=WORDS).contains(&counts.words)
        // A script without spaces says more with a letter.
        && counts.characters + 2 * counts.foreign_letters <= LETTERS
        && counts.lines == 1;
    let is_alone = counts.turns <= 1 && counts.tools == 0 && !counts.has_schema;
    let asks = counts.steps
        + counts.reasoning_words
        + counts.operators
        + counts.code_names
        + counts.code_fences
        + counts.identifiers
        + counts.code_words / 2;
    if !is_short || !is_alone || asks > 0 {
        return 0.0;
    }
    ENOUGH + 1.5 * f64::from(WORDS - counts.words) / f64::from(WORDS)
}

/// The counts that are not 0 and say something of a prompt.
fn counted(counts: &Counts) -> Vec<String> {
    let told = [
        ("words", counts.words),
        ("code_fences", counts.code_fences),
        ("identifiers", counts.identifiers),
        ("code_names", counts.code_names),
        ("code_words", counts.code_words),
        ("reasoning_words", counts.reasoning_words),
        ("steps", counts.steps),
        ("constraints", counts.constraints),
        ("digits", counts.digits),
        ("operators", counts.operators),
    ];
    told.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect()
}
