//! The ladder as the policy has it, ready for use.

use std::sync::Arc;
use std::time::Duration;

use super::learning::Keep;
use crate::config::EscalateConfig;
use crate::error::{Error, Result};
use crate::escalate::extract::Compare;
use crate::evaluate::isotonic::Isotonic;
use crate::ledger::Money;
use crate::route::gates::Capabilities;

/// See the module.
pub struct Ladder {
    pub rungs: Vec<Rung>,
    /// In the order of what they cost.
    pub scorers: Vec<Weighted>,
    pub judge: Option<Judge>,
    pub others: Vec<String>,
    /// How often the rung itself is asked again.
    pub samples: usize,
    pub compare: Comparison,
    pub timeout: Duration,
    pub deadline: Option<Duration>,
    pub max_cost: Option<Money>,
    /// Share of the accepted drafts, 0 to 1.
    pub shadow: f64,
    pub keep: Keep,
}

/// One model of the ladder.
pub struct Rung {
    pub name: Arc<str>,
    /// A draft that scores as much is taken. The last rung's is never asked for.
    pub threshold: f64,
    /// From scores to P(good); None = the score itself is compared.
    pub map: Option<Isotonic>,
    pub capabilities: Capabilities,
}

pub struct Judge {
    pub model: String,
    pub rubric: Option<String>,
}

/// How answers are compared.
pub enum Comparison {
    Texts(Option<Compare>),
    /// A function of the user's.
    Hook(u64),
}

pub struct Weighted {
    pub name: Arc<str>,
    pub weight: f64,
    pub scorer: Scorer,
}

/// In the order of what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scorer {
    Structural,
    Logprob,
    Reference,
    Hook(u64),
    Agreement,
    Judge,
}

impl Ladder {
    /// # Errors
    /// [`Error::Config`]: what `Policy.to_core()` does not write.
    pub fn new(config: &EscalateConfig, capabilities: impl Fn(&str) -> Capabilities) -> Result<Self> {
        let last = config.ladder.len().saturating_sub(1);
        let rung = |(at, name): (usize, &String)| {
            let calibration = config.calibration.get(name).or_else(|| config.calibration.get(""));
            let given = config.thresholds.as_ref().and_then(|all| all.get(at).or_else(|| all.first()));
            let threshold = given.copied().or_else(|| calibration.and_then(|found| found.threshold));
            let threshold = match threshold {
                Some(threshold) => threshold,
                None if at == last => 0.0,
                None => return Err(Error::Config(format!("escalate: no threshold for {name}"))),
            };
            let points = calibration.map(|found| found.points.clone()).filter(|points| !points.is_empty());
            let map = points.map(|points| {
                Isotonic::from_points(points)
                    .ok_or_else(|| Error::Config(format!("escalate: the calibration of {name} does not rise")))
            });
            let capabilities = capabilities(name);
            Ok(Rung { name: name.as_str().into(), threshold, map: map.transpose()?, capabilities })
        };
        let rungs = config.ladder.iter().enumerate().map(rung).collect::<Result<Vec<_>>>()?;
        let scorer = |(name, weight): &(String, f64)| {
            let scorer = match name.as_str() {
                "structural" => Scorer::Structural,
                "logprob" => Scorer::Logprob,
                "reference" => Scorer::Reference,
                "agreement" => Scorer::Agreement,
                "judge" => Scorer::Judge,
                other => Scorer::Hook(hook(other)?),
            };
            let name = if matches!(scorer, Scorer::Hook(_)) { "callable".into() } else { name.as_str().into() };
            Ok(Weighted { name, weight: *weight, scorer })
        };
        let mut scorers = config.scorers.iter().map(scorer).collect::<Result<Vec<_>>>()?;
        // Functions stay in the order of the policy: a later one is told what an earlier one said.
        scorers.sort_by_key(|weighted| weighted.scorer.rank());
        let functions = scorers.iter_mut().filter(|weighted| matches!(weighted.scorer, Scorer::Hook(_)));
        for (weighted, number) in functions.zip(1..).skip(1) {
            weighted.name = format!("{} {number}", weighted.name).into();
        }
        let agreement = config.agreement.as_ref();
        let compare = match agreement.and_then(|agreement| agreement.compare.as_deref()) {
            None => Comparison::Texts(None),
            Some("exact") => Comparison::Texts(Some(Compare::Exact)),
            Some("numeric") => Comparison::Texts(Some(Compare::Numeric)),
            Some("normalised") => Comparison::Texts(Some(Compare::Normalised)),
            Some("json") => Comparison::Texts(Some(Compare::Json)),
            Some(other) => Comparison::Hook(hook(other)?),
        };
        let max_cost = config.max_cost.as_deref().map(|text| {
            Money::parse(text).ok_or_else(|| Error::Config(format!("escalate.max_cost is not an amount: {text}")))
        });
        Ok(Self {
            rungs,
            scorers,
            judge: config
                .judge
                .as_ref()
                .map(|judge| Judge { model: judge.model.clone(), rubric: judge.rubric.clone() }),
            others: agreement.map(|agreement| agreement.models.clone()).unwrap_or_default(),
            samples: agreement.map_or(0, |agreement| agreement.samples),
            compare,
            timeout: seconds(config.timeout),
            deadline: config.deadline.map(seconds),
            max_cost: max_cost.transpose()?,
            shadow: config.shadow,
            keep: Keep::from_name(&config.labels)
                .ok_or_else(|| Error::Config(format!("escalate.labels: {}", config.labels)))?,
        })
    }

    /// Whether a function of the user's scores or compares.
    pub fn calls_functions(&self) -> bool {
        let scores = self.scorers.iter().any(|weighted| matches!(weighted.scorer, Scorer::Hook(_)));
        scores || matches!(self.compare, Comparison::Hook(_))
    }

    /// Whether scores of this rung are turned into P(good).
    pub fn has_map(&self, name: &str) -> bool {
        self.rungs.iter().any(|rung| *rung.name == *name && rung.map.is_some())
    }

    pub fn uses(&self, scorer: Scorer) -> bool {
        self.scorers.iter().any(|weighted| weighted.scorer == scorer)
    }
}

impl Scorer {
    fn rank(self) -> u8 {
        match self {
            Self::Structural => 0,
            Self::Logprob => 1,
            Self::Reference => 2,
            Self::Hook(_) => 3,
            Self::Agreement => 4,
            Self::Judge => 5,
        }
    }
}

impl Rung {
    /// A score as it is compared with the threshold.
    pub fn calibrated(&self, score: f64) -> f64 {
        self.map.as_ref().map_or(score, |map| map.probability(score))
    }
}

/// The number in "hook:NUMBER".
///
/// # Errors
/// [`Error::Config`]
pub fn hook(text: &str) -> Result<u64> {
    let number = text.strip_prefix("hook:").and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::Config(format!("policy: neither known nor a function: {text}")))
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
