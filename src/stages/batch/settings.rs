//! The policy's `[batch]`, as the stage needs it.

use std::collections::HashSet;
use std::time::Duration;

use crate::batch::Format;
use crate::config::BatchConfig;
use crate::error::{Error, Result};

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By the names that calls use.
    models: HashSet<String>,
    /// None: calls wait for nobody, but for those of one `map`.
    pub window: Option<Duration>,
    pub max_items: usize,
    pub max_prompt_tokens: u64,
    pub max_answer_tokens: u64,
    /// None: JSON where the server takes a schema.
    pub format: Option<Format>,
    pub vote: u32,
    pub check: f64,
    pub always: bool,
}

impl Settings {
    /// # Errors
    /// [`Error::Config`]
    pub fn new(config: &BatchConfig) -> Result<Self> {
        let format = match config.format.as_str() {
            "auto" => None,
            "json" => Some(Format::Json),
            "lines" => Some(Format::Lines),
            other => return Err(Error::Config(format!("batch.format is not known: {other}"))),
        };
        Ok(Self {
            models: config.models.iter().cloned().collect(),
            window: (config.window_ms > 0).then(|| Duration::from_millis(config.window_ms)),
            max_items: config.max_items,
            max_prompt_tokens: config.max_prompt_tokens,
            max_answer_tokens: config.max_answer_tokens,
            format,
            vote: config.vote,
            check: config.check,
            always: config.always,
        })
    }

    /// Whether calls to this name may be packed.
    pub fn has(&self, model: &str) -> bool {
        self.models.contains(model)
    }
}
