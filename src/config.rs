//! The policy as the core sees it. Python checks what users write; this only reads the checked form.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::context::Mode;
use crate::error::{Error, Result};

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
#[derive(Clone, Debug, Deserialize)]
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

/// A user's own price: USD per million tokens, as decimal text.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub input: String,
    pub output: String,
    pub cached_input: Option<String>,
    pub cache_write: Option<String>,
    /// Tokens of an answer.
    #[serde(default)]
    pub max_output: Option<u64>,
}

impl Config {
    /// # Errors
    /// [`Error::Config`] when `text` is not what `Policy.to_core()` writes.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Config(format!("policy: {error}")))
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
