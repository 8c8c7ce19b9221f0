//! Answers in this process' memory: moka, bounded by bytes, each entry with its own time to live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::key::{Key, KeyHasher};
use crate::store::Entry;

/// Cheap to clone; clones share the entries.
#[derive(Clone)]
pub struct MemoryStore(Cache<Key, Arc<Entry>, KeyHasher>);

struct EntryExpiry;

impl Expiry<Key, Arc<Entry>> for EntryExpiry {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(entry.stored) + entry.age_then;
        entry.about.ttl.map(|ttl| ttl.saturating_sub(age))
    }

    // An entry that is weighed anew keeps its time; a new answer has a new one. Both are in the entry.
    fn expire_after_update(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, now)
    }
}

impl MemoryStore {
    /// A store of at most `max_bytes` bytes.
    pub fn new(max_bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, entry: &Arc<Entry>| entry.weight())
            .expire_after(EntryExpiry)
            .support_invalidation_closures()
            .build_with_hasher(KeyHasher::default());
        Self(cache)
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.get(key)
    }

    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        self.0.insert(key, entry);
    }

    /// Stores an entry unless there is a younger one; returns the one that is stored now.
    pub fn put_unless_younger(&self, key: Key, entry: Arc<Entry>) -> Arc<Entry> {
        match self.get(&key).filter(|stored| stored.age() <= entry.age()) {
            Some(stored) => stored,
            None => {
                self.put(key, Arc::clone(&entry));
                entry
            }
        }
    }

    /// Weighs an entry anew, if it is still the one that is stored.
    pub fn weigh(&self, key: Key, entry: &Arc<Entry>) {
        self.0.entry(key).and_compute_with(|stored| match stored {
            Some(stored) if Arc::ptr_eq(stored.value(), entry) => Op::Put(Arc::clone(entry)),
            _ => Op::Nop,
        });
    }

    pub fn remove(&self, key: &Key) {
        self.0.invalidate(key);
    }

    pub fn clear(&self) {
        self.0.invalidate_all();
        self.0.run_pending_tasks();
    }

    /// Removes what was stored under `tag`; returns how many entries that were.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        // A scan rather than an index: invalidating is rare, storing is not, and an index has to follow every eviction.
        let keys: Vec<Key> =
            self.0.iter().filter(|(_, entry)| entry.about.tag.as_deref() == Some(tag)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.0.invalidate(key);
        }
        keys.len()
    }

    /// Keys of the entries that were used since this was last asked.
    pub fn take_used(&self) -> Vec<Key> {
        self.0.iter().filter(|(_, entry)| entry.take_used()).map(|(key, _)| *key).collect()
    }

    /// (entries, bytes), after pending evictions.
    pub fn size(&self) -> (u64, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count(), self.0.weighted_size())
    }
}
