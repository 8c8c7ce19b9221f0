//! The policy as the core sees it. Python checks what users write; this only reads the checked form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::context::Mode;
use crate::error::{Error, Result};
use crate::route::affinity;
use crate::route::classify::Classifier;
use crate::route::rules::RulesConfig;

/// Written by `Policy.to_core()`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub cache: Option<CacheConfig>,
    #[serde(default)]
    pub models: BTreeMap<String, ModelConfig>,
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    #[serde(default)]
    pub budgets: Vec<BudgetConfig>,
    #[serde(default)]
    pub strict: bool,
    #[serde(default)]
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    #[serde(default)]
    pub fallback: Option<FallbackConfig>,
    /// It names functions of the user's, as "hook:NUMBER".
    #[serde(skip)]
    pub has_hooks: bool,
    #[serde(default)]
    pub route: Option<RouteConfig>,
    #[serde(default)]
    pub escalate: Option<EscalateConfig>,
    #[serde(default)]
    pub batch: Option<BatchConfig>,
    #[serde(default)]
    pub compress: Option<CompressConfig>,
}

/// Which model a call goes to. Functions of the user's stand as "hook:NUMBER".
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Name, model or alias; from cheap to dear.
    pub tiers: Vec<(String, String)>,
    pub default: String,
    pub by: Vec<String>,
    /// 0 to 1: below it, the next of `by` is asked.
    pub confidence: f64,
    pub rules: RulesConfig,
    pub llm: Option<Classifier>,
    pub learned: Option<serde_json::Value>,
    pub affinity: affinity::Mode,
    /// Seconds.
    pub affinity_ttl: f64,
    /// Seconds that a function, or the asked model, may take.
    pub timeout: f64,
    pub baseline: Option<String>,
}

/// When an answer is good enough, and who is asked when it is not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalateConfig {
    pub ladder: Vec<String>,
    pub thresholds: Option<Vec<f64>>,
    /// With weights.
    pub scorers: Vec<(String, f64)>,
    pub judge: Option<JudgeConfig>,
    pub agreement: Option<AgreementConfig>,
    /// Seconds that a function, a judge or another answer may take.
    pub timeout: f64,
    /// Seconds.
    pub deadline: Option<f64>,
    /// USD, decimal text.
    pub max_cost: Option<String>,
    /// By rung; "" = all others.
    pub calibration: BTreeMap<String, RungCalibration>,
    /// Share of the accepted drafts, 0 to 1.
    pub shadow: f64,
    /// "features", "text", "off".
    pub labels: String,
    pub baseline: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeConfig {
    pub model: String,
    pub rubric: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementConfig {
    pub models: Vec<String>,
    pub samples: usize,
    pub compare: Option<String>,
}

/// What `farthing calibrate` found for a rung.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RungCalibration {
    /// Scores and P(good), both rising.
    pub points: Vec<(f64, f64)>,
    /// Of P(good).
    pub threshold: Option<f64>,
}

/// Which calls may share a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// The names that calls use.
    pub models: Vec<String>,
    /// How long a call waits for others; 0 = it does not.
    pub window_ms: u64,
    /// Questions in one request.
    pub max_items: usize,
    pub max_prompt_tokens: u64,
    pub max_answer_tokens: u64,
    /// "auto", "json", "lines".
    pub format: String,
    /// How often each question is asked; odd.
    pub vote: u32,
    /// Share of the packed questions that are asked alone too, 0 to 1.
    pub check: f64,
    /// Also where it does not pay.
    pub always: bool,
}

/// Which texts are said in fewer tokens, and how. Functions of the user's stand as "hook:NUMBER".
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressConfig {
    /// The names that calls use.
    pub models: Vec<String>,
    /// Characters of a text.
    pub min_chars: usize,
    /// Of the prompt: see `crate::compress::places::Part`.
    pub parts: Vec<String>,
    /// In the order in which they are tried.
    pub methods: Vec<String>,
    /// Share of the tokens that "extractive" leaves, 0 to 1.
    pub keep: f64,
    /// Messages of the user's at the end that are no history, from 1.
    pub keep_turns: usize,
    pub summarise: Option<SummariseConfig>,
    /// Lists of equal JSON objects become tables.
    pub tables: bool,
    pub recoverable: bool,
    /// Seconds that a function or a model may take.
    pub timeout: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummariseConfig {
    pub model: String,
    /// Share of the tokens that is to be left, 0 to 1.
    pub keep: f64,
    /// Share of the facts that may be lost, 0 to 1.
    pub max_lost: f64,
    /// Calls that are expected to read it.
    pub uses: u64,
}

/// What an upstream may be given to do. Its keys and headers stay where requests are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    pub base_url: String,
    pub concurrency: Option<u32>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
}

/// When another upstream is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackConfig {
    /// Seconds over all attempts; None = no end.
    pub deadline: Option<f64>,
    pub breaker: BreakerConfig,
    pub hedge: Option<HedgeConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// Share of the calls within the window.
    pub failures: f64,
    /// Seconds.
    pub window: f64,
    pub minimum: usize,
    /// Seconds.
    pub rest: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 0.5, window: 30.0, minimum: 10, rest: 15.0 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HedgeConfig {
    pub percentile: f64,
    pub minimum: usize,
}

/// What may be spent. Amounts are decimal texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    pub name: String,
    /// USD.
    pub limit: String,
    pub per: Vec<String>,
    pub tag: Option<String>,
    pub model: Option<String>,
    pub action: String,
    /// The model that takes over.
    pub to: Option<String>,
    /// The share of the limit that is warned of, 0 to 1.
    pub at: Option<String>,
}

/// The exact cache.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Bytes in memory.
    pub max_bytes: u64,
    /// A file below the memory; None = memory alone.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Bytes in the file.
    #[serde(default)]
    pub max_disk_bytes: u64,
    /// Seconds; None = no end.
    pub ttl: Option<f64>,
    pub mode: String,
    pub deterministic_only: bool,
    pub scope: Option<String>,
    pub ignore_headers: Vec<String>,
    /// Sets this cache apart from others with the same settings.
    pub name: Option<String>,
}

/// What the user knows of a model: a price of their own, USD per million tokens, as decimal text; None = the bundled one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub input: Option<String>,
    pub output: Option<String>,
    pub cached_input: Option<String>,
    pub cache_write: Option<String>,
    /// Tokens of an answer.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// Tokens of prompt and answer.
    #[serde(default)]
    pub context: Option<u64>,
    #[serde(default)]
    pub can: BTreeSet<String>,
    #[serde(default)]
    pub cannot: BTreeSet<String>,
}

impl ModelConfig {
    /// Whether it says what the model can do, and not only what it costs.
    pub fn is_about_abilities(&self) -> bool {
        self.context.is_some() || !self.can.is_empty() || !self.cannot.is_empty()
    }
}

impl Config {
    /// # Errors
    /// [`Error::Config`] when `text` is not what `Policy.to_core()` writes.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text).map_err(|error| Error::Config(format!("policy: {error}")))?;
        Ok(Self { has_hooks: text.contains("\"hook:"), ..config })
    }
}

impl CacheConfig {
    /// # Errors
    /// [`Error::Config`] for a mode that does not exist.
    pub fn mode(&self) -> Result<Mode> {
        Mode::from_name(&self.mode).ok_or_else(|| Error::Config(format!("unknown cache mode: {}", self.mode)))
    }

    pub fn ttl(&self) -> Option<Duration> {
        self.ttl.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}
