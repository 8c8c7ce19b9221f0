//! The policy's `[compress]`, as the stage needs it.

use std::collections::HashSet;
use std::time::Duration;

use crate::compress::places::Part;
use crate::config::CompressConfig;
use crate::error::{Error, Result};
use crate::stages::escalate::ladder::hook;

/// A way to say a text shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Structural,
    Extractive,
    Summarise,
    Hook(u64),
}

impl Method {
    /// Whether what it makes of a text may be for one question.
    pub fn asks(self) -> bool {
        matches!(self, Self::Extractive | Self::Hook(_))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Structural => "structural",
            Self::Extractive => "extractive",
            Self::Summarise => "summarise",
            Self::Hook(_) => "callable",
        }
    }
}

/// Who is asked for a summary.
#[derive(Clone, Debug)]
pub struct Summarise {
    /// Model or alias.
    pub model: String,
    /// Share of the tokens that is to be left, 0 to 1.
    pub keep: f64,
    /// Share of the facts that may be lost, 0 to 1.
    pub max_lost: f64,
    /// Calls that are expected to read it.
    pub uses: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By the names that calls use.
    models: HashSet<String>,
    /// Characters of a text that is worth a look.
    pub min_chars: usize,
    pub parts: Vec<Part>,
    /// Messages of the user's at the end that are no history.
    pub turns: usize,
    /// In the order in which they are tried.
    pub methods: Vec<Method>,
    /// Share of the tokens that `extractive` leaves, 0 to 1.
    pub keep: f64,
    pub summarise: Option<Summarise>,
    /// "structural" writes lists of equal JSON objects as tables.
    pub tables: bool,
    pub recoverable: bool,
    pub timeout: Duration,
}

impl Settings {
    /// # Errors
    /// [`Error::Config`]
    pub fn new(config: &CompressConfig) -> Result<Self> {
        let part = |name: &String| {
            Part::from_name(name).ok_or_else(|| Error::Config(format!("compress.parts is not known: {name}")))
        };
        let method = |name: &String| {
            Ok(match name.as_str() {
                "structural" => Method::Structural,
                "extractive" => Method::Extractive,
                "summarise" => Method::Summarise,
                other => Method::Hook(hook(other)?),
            })
        };
        Ok(Self {
            models: config.models.iter().cloned().collect(),
            min_chars: config.min_chars,
            parts: config.parts.iter().map(part).collect::<Result<_>>()?,
            turns: config.keep_turns,
            methods: config.methods.iter().map(method).collect::<Result<_>>()?,
            keep: config.keep,
            summarise: config.summarise.as_ref().map(|given| Summarise {
                model: given.model.clone(),
                keep: given.keep,
                max_lost: given.max_lost,
                uses: given.uses,
            }),
            tables: config.tables,
            recoverable: config.recoverable,
            timeout: Duration::try_from_secs_f64(config.timeout).unwrap_or(Duration::MAX),
        })
    }

    /// Whether calls to this name may be shortened.
    pub fn has(&self, model: &str) -> bool {
        self.models.contains(model)
    }
}
