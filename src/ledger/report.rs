//! The sums of a ledger, and their JSON form, which `python/farthing/ledger.py` reads by the same names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Call, Charge, Count, Money, Outcome, Saving, UPSTREAM, Usage};

/// Names of models and tags come from users and upstreams: beyond this many, the rest share one line.
const MOST_NAMES: usize = 1000;
const OTHER: &str = "(other)";

/// Money of which a part may be unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub known: Money,
    has_known: bool,
    has_unknown: bool,
}

impl Amount {
    fn add(&mut self, amount: Option<Money>) {
        match amount {
            Some(amount) => {
                self.known += amount;
                self.has_known = true;
            }
            None => self.has_unknown = true,
        }
    }

    fn join(&mut self, other: &Self) {
        self.known += other.known;
        self.has_known |= other.has_known;
        self.has_unknown |= other.has_unknown;
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.has_unknown && !self.has_known { serializer.serialize_none() } else { self.known.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = Option::<Money>::deserialize(deserializer)?;
        let has_unknown = known.is_none();
        let known = known.unwrap_or_default();
        // A sum of nothing is known as well; it must not make what is unknown look known.
        Ok(Self { known, has_known: known != Money::ZERO, has_unknown })
    }
}

/// One model's, tag's or stage's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    pub calls: u64,
    /// Hits and joined calls.
    pub hits: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub saved_tokens: u64,
    pub spent: Amount,
    pub saved: Amount,
}

impl Line {
    fn join(&mut self, other: &Self) {
        self.calls += other.calls;
        self.hits += other.hits;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.saved_tokens += other.saved_tokens;
        self.spent.join(&other.spent);
        self.saved.join(&other.saved);
    }

    fn charge(&mut self, charge: &Charge) {
        self.prompt_tokens += charge.usage.prompt;
        self.completion_tokens += charge.usage.completion;
        self.spent.add(charge.cost);
    }

    fn save(&mut self, usage: &Usage, saved: Option<Money>) {
        self.saved_tokens += usage.total();
        self.saved.add(saved);
    }
}

/// See `farthing.ledger.Savings` for the meaning of each sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub calls: u64,
    pub hits: u64,
    pub joined: u64,
    pub misses: u64,
    pub bypassed: u64,
    pub errors: u64,
    pub retries: u64,
    pub fallbacks: u64,
    pub hedges: u64,
    pub unanswered: u64,
    pub escalations: u64,
    pub shadowed: u64,
    pub shadowed_good: u64,
    pub packed: u64,
    pub checked: u64,
    pub checked_same: u64,
    pub reordered_tokens: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cached_tokens: u64,
    pub saved_prompt_tokens: u64,
    pub saved_completion_tokens: u64,
    pub spent: Money,
    pub saved: Money,
    pub overhead: Money,
    pub estimated_spent: Money,
    pub estimated_saved: Money,
    pub by_model: BTreeMap<String, Line>,
    pub by_tag: BTreeMap<String, Line>,
    pub by_stage: BTreeMap<String, Line>,
    pub unknown_prices: BTreeSet<String>,
    /// Failures of farthing's own that calls went on without, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Report {
    pub(super) fn call(&mut self, call: Call) {
        self.calls += 1;
        *match call.outcome {
            Outcome::Hit => &mut self.hits,
            Outcome::Joined => &mut self.joined,
            Outcome::Miss => &mut self.misses,
            Outcome::Bypass => &mut self.bypassed,
            Outcome::Error => &mut self.errors,
        } += 1;
        let model = call.model_answered.as_deref().unwrap_or(&call.model_asked);
        let stage = call.outcome.saving_stage();
        let usage = call.usage.as_ref().filter(|_| stage.is_some());
        let note = |line: &mut Line| {
            line.calls += 1;
            if stage.is_some() {
                line.hits += 1;
            }
            if let Some(usage) = usage {
                line.save(usage, call.saved);
            }
        };
        note(line(&mut self.by_model, model));
        note(line(&mut self.by_tag, call.tag.as_deref().unwrap_or_default()));
        if let Some(stage) = stage {
            note(line(&mut self.by_stage, stage));
        }
        if let Some(usage) = usage {
            self.saved_prompt_tokens += usage.prompt;
            self.saved_completion_tokens += usage.completion;
            let saved = call.saved.unwrap_or_default();
            self.saved += saved;
            if usage.estimated {
                self.estimated_saved += saved;
            }
            if call.saved.is_none() {
                self.unknown_price(model);
            }
        }
    }

    pub(super) fn charge(&mut self, charge: Charge) {
        self.prompt_tokens += charge.usage.prompt;
        self.completion_tokens += charge.usage.completion;
        self.cached_tokens += charge.usage.cached;
        let cost = charge.cost.unwrap_or_default();
        self.spent += cost;
        if charge.stage != UPSTREAM {
            self.overhead += cost;
        }
        if charge.usage.estimated {
            self.estimated_spent += cost;
        }
        line(&mut self.by_model, &charge.model).charge(&charge);
        line(&mut self.by_tag, charge.tag.as_deref().unwrap_or_default()).charge(&charge);
        let stage = line(&mut self.by_stage, charge.stage);
        // A stage that spends something counts the calls that it decided about.
        if charge.stage == UPSTREAM {
            stage.calls += 1;
        }
        stage.charge(&charge);
        if charge.cost.is_none() {
            self.unknown_price(&charge.model);
        }
    }

    pub(super) fn saving(&mut self, saving: &Saving) {
        let amount = saving.amount.unwrap_or_default();
        self.saved += amount;
        // What another model would have taken is never known, only what it takes for as many tokens.
        self.estimated_saved += amount;
        self.saved_prompt_tokens += saving.tokens;
        let model = saving.answered.as_ref().unwrap_or(&saving.model);
        let note = |line: &mut Line| {
            line.saved.add(saving.amount);
            line.saved_tokens += saving.tokens;
        };
        note(line(&mut self.by_model, model));
        note(line(&mut self.by_tag, saving.tag.as_deref().unwrap_or_default()));
        let stage = line(&mut self.by_stage, saving.stage);
        stage.calls += 1;
        note(stage);
        if saving.amount.is_none() {
            self.unknown_price(&saving.model);
        }
    }

    pub(super) fn count(&mut self, what: Count, times: u64) {
        *match what {
            Count::Retry => &mut self.retries,
            Count::Fallback => &mut self.fallbacks,
            Count::Hedge => &mut self.hedges,
            Count::Unanswered => &mut self.unanswered,
            Count::Escalation => &mut self.escalations,
            Count::Shadow => &mut self.shadowed,
            Count::ShadowGood => &mut self.shadowed_good,
            Count::Packed => &mut self.packed,
            Count::Checked => &mut self.checked,
            Count::CheckedSame => &mut self.checked_same,
            Count::Reordered => &mut self.reordered_tokens,
        } += times;
    }

    fn unknown_price(&mut self, model: &str) {
        if !self.unknown_prices.contains(model) {
            let model = if self.unknown_prices.len() < MOST_NAMES { model } else { OTHER };
            self.unknown_prices.insert(model.to_owned());
        }
    }

    /// Adds another ledger's sums.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.hits += other.hits;
        self.joined += other.joined;
        self.misses += other.misses;
        self.bypassed += other.bypassed;
        self.errors += other.errors;
        self.retries += other.retries;
        self.fallbacks += other.fallbacks;
        self.hedges += other.hedges;
        self.unanswered += other.unanswered;
        self.escalations += other.escalations;
        self.shadowed += other.shadowed;
        self.shadowed_good += other.shadowed_good;
        self.packed += other.packed;
        self.checked += other.checked;
        self.checked_same += other.checked_same;
        self.reordered_tokens += other.reordered_tokens;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cached_tokens += other.cached_tokens;
        self.saved_prompt_tokens += other.saved_prompt_tokens;
        self.saved_completion_tokens += other.saved_completion_tokens;
        self.spent += other.spent;
        self.saved += other.saved;
        self.overhead += other.overhead;
        self.estimated_spent += other.estimated_spent;
        self.estimated_saved += other.estimated_saved;
        for (mine, theirs) in [
            (&mut self.by_model, &other.by_model),
            (&mut self.by_tag, &other.by_tag),
            (&mut self.by_stage, &other.by_stage),
        ] {
            for (name, theirs) in theirs {
                line(mine, name).join(theirs);
            }
        }
        for model in &other.unknown_prices {
            self.unknown_price(model);
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }

    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }
}

fn line<'a>(lines: &'a mut BTreeMap<String, Line>, name: &str) -> &'a mut Line {
    let name = if lines.len() < MOST_NAMES || lines.contains_key(name) { name } else { OTHER };
    if !lines.contains_key(name) {
        lines.insert(name.to_owned(), Line::default());
    }
    // `entry` would allocate the name on every call.
    match lines.get_mut(name) {
        Some(line) => line,
        None => unreachable!("inserted above"),
    }
}
