//! Where stored answers live: one file or folder a store. Which answers are stored is decided in `stages/cache.rs`.

pub mod disk;
pub mod memory;

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::exchange::Endpoint;
use crate::ledger::{Money, Usage};

/// Headers of the upstream that a stored answer keeps; the rest (rate limits, cookies, dates) was about that one call.
const KEPT_HEADERS: [&str; 5] =
    ["content-type", "x-request-id", "openai-model", "openai-version", "openai-processing-ms"];

/// What is known of a stored answer besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub endpoint: Endpoint,
    pub usage: Option<Usage>,
    pub model_answered: Option<Arc<str>>,
    /// USD that the call was charged when it was made; None when the price is unknown.
    pub cost: Option<Money>,
    pub tag: Option<Arc<str>>,
    pub ttl: Option<Duration>,
    /// The call asked for this time to live; else it is its policy's, and another policy may have a shorter one.
    pub is_own_ttl: bool,
    /// Whether the request asked for the same answer each time (temperature 0, a seed).
    pub is_deterministic: bool,
}

/// A stored answer.
pub struct Entry {
    pub about: About,
    /// The plain JSON body, also when the answer came as a stream.
    pub body: Bytes,
    /// The kept headers as lines: a map of them would take more room than most answers.
    head: Box<[u8]>,
    /// When it came into this process' memory, and how old it was then.
    pub stored: Instant,
    pub age_then: Duration,
    /// Used since the disk was last told of it.
    used: AtomicBool,
    /// Objects that the front end built from this answer, so that there is one cache and one bound.
    slots: Mutex<Vec<Slot>>,
    /// Bytes that the slots stand for.
    slot_bytes: AtomicU32,
}

type Slot = (u32, Arc<dyn Any + Send + Sync>);

impl Entry {
    pub fn new(about: About, body: Bytes, headers: &HeaderMap) -> Self {
        let mut kept = Vec::with_capacity(160);
        for (name, value) in headers.iter().filter(|(name, _)| KEPT_HEADERS.contains(&name.as_str())) {
            // A stream is kept as the plain answer that it amounts to.
            let streamed = *name == header::CONTENT_TYPE && value.as_bytes().starts_with(b"text/event-stream");
            let value = if streamed { b"application/json" } else { value.as_bytes() };
            for part in [name.as_str().as_bytes(), b":", value, b"\n"] {
                kept.extend_from_slice(part);
            }
        }
        Self::from_parts(about, body, kept.into(), Duration::ZERO)
    }

    /// An entry as it was kept somewhere else, `age` ago.
    pub fn from_parts(about: About, body: Bytes, head: Box<[u8]>, age: Duration) -> Self {
        Self {
            about,
            body,
            head,
            stored: Instant::now(),
            age_then: age,
            used: AtomicBool::new(false),
            slots: Mutex::default(),
            slot_bytes: AtomicU32::new(0),
        }
    }

    /// Names and values of the headers that are kept.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }

    pub fn age(&self) -> Duration {
        self.stored.elapsed() + self.age_then
    }

    /// The kept headers, as [`Self::from_parts`] takes them.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Notes a use, for whoever evicts what was not used for long.
    pub fn set_used(&self) {
        // Looked at first, so that a hot entry's line is not written over and over by many threads.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether the entry may still be used by a caller who accepts answers up to `limit` old.
    pub fn is_fresh(&self, limit: Option<Duration>) -> bool {
        let age = self.age();
        self.about.ttl.is_none_or(|ttl| age < ttl) && limit.is_none_or(|limit| age < limit)
    }

    /// What the front end left here under `name`.
    pub fn slot(&self, name: u32) -> Option<Arc<dyn Any + Send + Sync>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().find(|(slot, _)| *slot == name).map(|(_, object)| Arc::clone(object))
    }

    /// Leaves an object of about `bytes` bytes; the store has to weigh the entry anew afterwards.
    pub fn fill_slot(&self, name: u32, object: Arc<dyn Any + Send + Sync>, bytes: usize) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.iter().any(|(slot, _)| *slot == name) {
            return;
        }
        slots.push((name, object));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let sum = self.slot_bytes.load(Ordering::Relaxed).saturating_add(bytes);
        self.slot_bytes.store(sum, Ordering::Relaxed);
    }

    /// Bytes that this entry takes in memory, its key and its place in the store included.
    pub fn weight(&self) -> u32 {
        /// The entry itself, its key, and moka's bookkeeping for it.
        const FIXED: usize = size_of::<Entry>() + 512;
        let bytes = FIXED + self.body.len() + self.head.len();
        u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(self.slot_bytes.load(Ordering::Relaxed))
    }
}
