//! What own traffic teaches: this prompt, this rung, good or not. Kept in the cache file, or in memory where there is none.
//!
//! Escalations and shadows make labels (`stages/escalate.rs`), `farthing calibrate` reads them. They are no answers:
//! clearing the cache, or invalidating a part of it, leaves them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::ledger::Money;
use crate::store::disk::DiskStore;
use crate::store::disk::fault::Fault;

/// Labels that are kept in memory.
const MOST_IN_MEMORY: usize = 10_000;
/// Bytes that they may weigh.
const MOST_BYTES: usize = 64 << 20;
/// Bytes of a prompt's text that are kept: what comes after its beginning teaches little.
const MOST_TEXT: usize = 64 << 10;

/// How a label came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A draft was rejected, or accepted, on the way up the ladder.
    Escalation,
    /// An accepted answer was compared with a dearer model's.
    Shadow,
}

impl Kind {
    pub const NAMES: [(&'static str, Self); 2] = [("escalation", Self::Escalation), ("shadow", Self::Shadow)];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Escalation => "escalation",
            Self::Shadow => "shadow",
        }
    }
}

/// One draft, and what became of it. Money is in USD; None = not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Label {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The model that wrote the draft.
    pub model: String,
    pub rung: String,
    pub kind: Kind,
    /// SHA-256 of what was asked; as hex in JSON.
    #[serde(serialize_with = "hex")]
    pub prompt: [u8; 32],
    /// A JSON object.
    pub features: Value,
    /// The prompt itself, if the policy keeps it.
    pub text: Option<String>,
    /// All scorers together, 0 to 1.
    pub score: Option<f64>,
    /// Each scorer, 0 to 1.
    pub scores: BTreeMap<String, f64>,
    /// How good the draft turned out to be, 0 to 1.
    pub good: Option<f64>,
    /// Of the draft.
    pub cost: Option<Money>,
    /// Of the dearer answer.
    pub dear_cost: Option<Money>,
    /// Of judging it.
    pub overhead: Option<Money>,
}

impl Label {
    /// Bytes, about.
    pub fn weight(&self) -> usize {
        let features = self.features.as_object().map_or(0, |features| features.len() * 48);
        let scores: usize = self.scores.keys().map(|name| name.len() + 16).sum();
        200 + self.model.len() + self.rung.len() + features + scores + self.text.as_ref().map_or(0, String::len)
    }

    fn shorten(&mut self) {
        if let Some(text) = &mut self.text
            && text.len() > MOST_TEXT
        {
            text.truncate(text.floor_char_boundary(MOST_TEXT));
            text.shrink_to_fit();
        }
    }
}

fn hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[derive(Default)]
struct Ring {
    labels: VecDeque<Label>,
    bytes: usize,
}

/// An engine's labels.
#[derive(Default)]
pub struct Labels {
    disk: Option<Arc<DiskStore>>,
    ring: Mutex<Ring>,
}

impl Labels {
    /// `disk`: the cache file, which all who share it write to; None = memory alone.
    pub fn new(disk: Option<Arc<DiskStore>>) -> Self {
        Self { disk, ring: Mutex::default() }
    }

    /// Keeps a label; what is kept for longest makes room. Never waits for a disk.
    pub fn keep(&self, mut label: Label) {
        label.shorten();
        let refused = match &self.disk {
            Some(disk) => disk.keep_label(label),
            None => Some(label),
        };
        let Some(label) = refused else { return };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += label.weight();
        ring.labels.push_back(label);
        while ring.labels.len() > MOST_IN_MEMORY || ring.bytes > MOST_BYTES {
            let Some(oldest) = ring.labels.pop_front() else { return };
            ring.bytes = ring.bytes.saturating_sub(oldest.weight());
        }
    }

    /// All of them, the oldest first: those in the file, then those in memory. What was kept in the last second may still
    /// be on its way to the file, see [`DiskStore::flush`]. Waits for the disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn all(&self) -> Result<Vec<Label>, Fault> {
        let mut all = self.disk.as_ref().map_or_else(|| Ok(Vec::new()), |disk| disk.labels())?;
        all.extend(self.ring.lock().unwrap_or_else(PoisonError::into_inner).labels.iter().cloned());
        Ok(all)
    }
}
