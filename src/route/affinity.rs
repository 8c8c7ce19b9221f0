//! Which tier a conversation is on, so that it stays there: a switch forfeits the provider's prompt cache.
//!
//! There is no session in these APIs: a conversation is a list of messages that grows. After a routed call the hash of all
//! that was sent is remembered; a later request whose messages begin with a remembered list goes on with it. One pass over
//! the messages, a hash after each of them. An edited message, a dropped one or other tools begin another conversation, as
//! they do at the provider.

use std::time::Duration;

use moka::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::ledger::price::Rates;
use crate::question::Question;

/// Conversations in memory; one is about 100 bytes.
const CAPACITY: u64 = 65_536;
/// As long as providers keep what was not used again, and longer than most people think about a reply.
const TTL: Duration = Duration::from_secs(3600);

type Hash = [u8; 16];

/// An earlier call of the same conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub tier: usize,
    /// Messages that both have: the part that the provider may have in its cache.
    pub messages: usize,
}

/// See the module. Cheap to clone; clones share their memory.
#[derive(Clone)]
pub struct Affinity {
    tiers: Cache<Hash, usize>,
}

impl Default for Affinity {
    fn default() -> Self {
        Self::new(CAPACITY, TTL)
    }
}

impl Affinity {
    /// `capacity`: calls that are remembered; the least used are forgotten first. `ttl`: since the call.
    pub fn new(capacity: u64, ttl: Duration) -> Self {
        Self { tiers: Cache::builder().max_capacity(capacity).time_to_live(ttl).build() }
    }

    /// The tier of the longest list of messages that this request begins with. `scope`: of [`scope`]. Not for a request
    /// with `previous_response_id`: its messages are only the last ones.
    pub fn find(&self, question: &Question, scope: &[u8]) -> Option<Found> {
        let hashes = hashes(question, scope);
        hashes.iter().enumerate().rev().find_map(|(at, hash)| {
            let tier = self.tiers.get(hash)?;
            Some(Found { tier, messages: at + 1 })
        })
    }

    pub fn remember(&self, question: &Question, scope: &[u8], tier: usize) {
        if let Some(hash) = hashes(question, scope).pop() {
            self.tiers.insert(hash, tier);
        }
    }

    /// The tier that gave the answer of this id (Responses: `previous_response_id`).
    pub fn find_response(&self, id: &str, scope: &[u8]) -> Option<usize> {
        self.tiers.get(&response(id, scope))
    }

    pub fn remember_response(&self, id: &str, scope: &[u8], tier: usize) {
        self.tiers.insert(response(id, scope), tier);
    }
}

/// What keeps conversations apart that are not in their messages: the model that was asked, and the tenant.
pub fn scope(model: &str, tenant: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    part(&mut hasher, model.as_bytes());
    part(&mut hasher, tenant);
    hasher.finalize().into()
}

fn response(id: &str, scope: &[u8]) -> Hash {
    let mut hasher = Sha256::new_with_prefix(b"response");
    part(&mut hasher, scope);
    part(&mut hasher, id.as_bytes());
    short(hasher)
}

/// A hash for the messages up to each of them.
fn hashes(question: &Question, scope: &[u8]) -> Vec<Hash> {
    let mut hasher = Sha256::new_with_prefix(b"messages");
    part(&mut hasher, scope);
    // Where a message says it, it is hashed with the messages: one that comes later must not change the beginning.
    let is_said = |message: &Value| matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer"));
    let apart = if question.messages.iter().any(is_said) { "" } else { question.system.as_str() };
    part(&mut hasher, apart.as_bytes());
    hasher.update((question.tools.len() as u64).to_le_bytes());
    for tool in &question.tools {
        part(&mut hasher, tool.name.as_bytes());
        value(&mut hasher, tool.parameters.as_ref().unwrap_or(&Value::Null), Kind::Plain);
    }
    hasher.update((question.other_tools as u64).to_le_bytes());
    let after = |message| {
        value(&mut hasher, message, Kind::Message);
        short(hasher.clone())
    };
    question.messages.iter().map(after).collect()
}

fn short(hasher: Sha256) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&hasher.finalize()[..size_of::<Hash>()]);
    hash
}

fn part(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// A message or a part of one: what marks it for the provider's cache is no part of what it says.
    Message,
}

/// JSON, so that the order of names and fields that are null do not matter. As deep as the reader lets it be.
fn value(hasher: &mut Sha256, json: &Value, kind: Kind) {
    match json {
        Value::Null => hasher.update(b"n"),
        Value::Bool(flag) => hasher.update(if *flag { b"t" } else { b"f" }),
        Value::Number(number) => {
            hasher.update(b"d");
            part(hasher, number.to_string().as_bytes());
        }
        Value::String(text) => string(hasher, text),
        Value::Array(items) => {
            hasher.update(b"a");
            hasher.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| value(hasher, item, kind));
        }
        Value::Object(map) => object(hasher, map, kind),
    }
}

fn string(hasher: &mut Sha256, text: &str) {
    hasher.update(b"s");
    part(hasher, text.as_bytes());
}

fn object(hasher: &mut Sha256, map: &Map<String, Value>, kind: Kind) {
    let is_said = |name: &str, value: &Value| !value.is_null() && (kind == Kind::Plain || name != "cache_control");
    let mut fields: Vec<_> = map.iter().filter(|(name, value)| is_said(name, value)).collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    hasher.update(b"o");
    hasher.update((fields.len() as u64).to_le_bytes());
    for (name, field) in fields {
        part(hasher, name.as_bytes());
        match only_text(field).filter(|_| kind == Kind::Message && name == "content") {
            Some(text) => string(hasher, text),
            None => value(hasher, field, kind),
        }
    }
}

/// The text of a content that is one part of text: what a plain content becomes where a mark for the provider's cache is
/// put on it.
fn only_text(content: &Value) -> Option<&str> {
    let [part] = content.as_array()?.as_slice() else { return None };
    let part = part.as_object()?;
    let mut others = part
        .iter()
        .filter(|(name, value)| !matches!(name.as_str(), "type" | "text" | "cache_control") && !value.is_null());
    let is_text = matches!(part.get("type")?.as_str()?, "text" | "input_text");
    part.get("text")?.as_str().filter(|_| is_text && others.next().is_none())
}

/// What may change the tier within a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    #[default]
    Stay,
    /// A dearer tier may be taken, a cheaper one not.
    Rise,
    /// Each request goes where it is sent; to a cheaper tier only if that is cheaper without the provider's cache.
    Off,
}

/// The tier to take, and why, where it is not simply the one that was chosen. `earlier`: of the conversation.
/// `stay_is_cheaper`: of the earlier and the chosen tier; asked only where it matters.
pub fn settle(
    mode: Mode,
    earlier: Option<usize>,
    chosen: usize,
    stay_is_cheaper: impl FnOnce(usize, usize) -> bool,
) -> (usize, Option<&'static str>) {
    let Some(earlier) = earlier.filter(|earlier| *earlier != chosen) else { return (chosen, None) };
    match mode {
        Mode::Stay => (earlier, Some("the conversation stays on its tier")),
        Mode::Rise if chosen > earlier => (chosen, Some("the conversation rises")),
        Mode::Rise => (earlier, Some("the conversation does not go down")),
        Mode::Off if chosen < earlier && stay_is_cheaper(earlier, chosen) => {
            (earlier, Some("a switch would forfeit more of the prompt cache than it saves"))
        }
        Mode::Off => (chosen, None),
    }
}

/// 1e-12 USD a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    pub input: u64,
    /// Of tokens that the provider has in its cache.
    pub cached_input: u64,
    pub output: u64,
}

impl Prices {
    /// None when the price of input is not known. Without a price for cached tokens there is no discount to lose.
    pub fn of(rates: &Rates) -> Option<Self> {
        let input = rates.input?;
        Some(Self { input, cached_input: rates.cached.unwrap_or(input), output: rates.output.unwrap_or(0) })
    }
}

/// Whether the next call costs no more at the earlier model, which reads the `prefix_tokens` from its cache, than at the
/// chosen one, which reads all anew. Of this call only: how long a conversation will be, nobody knows.
pub fn stay_is_cheaper(
    prefix_tokens: u64,
    new_tokens: u64,
    output_tokens: u64,
    earlier: Prices,
    chosen: Prices,
) -> bool {
    // The product of two u64 fits, and a sum of three such cannot be reached by what is ever billed.
    let cost = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
    let sum = |parts: [u128; 3]| parts.into_iter().fold(0, u128::saturating_add);
    let stay = [
        cost(prefix_tokens, earlier.cached_input),
        cost(new_tokens, earlier.input),
        cost(output_tokens, earlier.output),
    ];
    let switch =
        [cost(prefix_tokens, chosen.input), cost(new_tokens, chosen.input), cost(output_tokens, chosen.output)];
    sum(stay) <= sum(switch)
}
