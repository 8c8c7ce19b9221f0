//! What every stage may know about the call it works for. Cheap to clone, so that a stage can hand it to a task.
//! The request itself is not here, nor anything that only one stage needs.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::patience::{Limits, Patience};
use crate::receipt::Receipt;
use crate::upstream::Sender;

/// How the exact cache is used by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    On,
    Off,
    /// Answers from the cache, stores nothing.
    ReadOnly,
    /// Stores, and never answers from the cache.
    WriteOnly,
    /// Asks again and replaces what is stored.
    Refresh,
}

impl Mode {
    pub const NAMES: [(&'static str, Self); 5] = [
        ("on", Self::On),
        ("off", Self::Off),
        ("read_only", Self::ReadOnly),
        ("write_only", Self::WriteOnly),
        ("refresh", Self::Refresh),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }

    pub fn reads(self) -> bool {
        matches!(self, Self::On | Self::ReadOnly)
    }

    pub fn writes(self) -> bool {
        matches!(self, Self::On | Self::WriteOnly | Self::Refresh)
    }
}

/// One call's surroundings.
#[derive(Clone)]
pub struct Context {
    pub ledger: Arc<Ledger>,
    pub receipt: Arc<Receipt>,
    pub sender: Arc<dyn Sender>,
    pub limits: Limits,
    /// Shared by everybody who waits for the same work; the stage that shares the work replaces it.
    pub patience: Arc<Patience>,
    pub mode: Mode,
    /// How old an answer may be, and how long a stored one lives; None = what the policy says.
    pub ttl: Option<Duration>,
    pub tag: Option<Arc<str>>,
}
