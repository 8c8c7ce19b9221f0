//! The tokens of one answer, as the upstream counted them. What they cost is `price.rs`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::exchange::Endpoint;

/// Tokens. `prompt` includes `cached`, `cache_write` and `audio_prompt`; `completion` includes `reasoning` and
/// `audio_completion`, as OpenAI counts.
/// As JSON it is what cache files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
    /// Of the prompt, read from the upstream's own cache.
    pub cached: u64,
    /// Of the prompt, written to the upstream's own cache.
    pub cache_write: u64,
    pub reasoning: u64,
    pub audio_prompt: u64,
    pub audio_completion: u64,
    /// The tier that the answer was billed at.
    pub service_tier: Option<Arc<str>>,
    /// Not counted by the upstream.
    pub estimated: bool,
}

impl Usage {
    /// `service_tier` is the body's own word. None when the upstream did not say what it used.
    pub fn new(endpoint: Endpoint, counts: &Counts, service_tier: Option<&str>) -> Option<Self> {
        // The Responses API has names of its own; gateways mix the two, so both are looked for, the endpoint's first.
        let (prompt, completion) = if endpoint == Endpoint::Responses {
            (counts.input_tokens.or(counts.prompt_tokens), counts.output_tokens.or(counts.completion_tokens))
        } else {
            (counts.prompt_tokens.or(counts.input_tokens), counts.completion_tokens.or(counts.output_tokens))
        };
        if prompt.0.is_none() && completion.0.is_none() {
            return None;
        }
        let (prompt, completion) = (prompt.0.unwrap_or(0), completion.0.unwrap_or(0));
        let (of_prompt, of_input) = (&counts.prompt_tokens_details, &counts.input_tokens_details);
        let (of_completion, of_output) = (&counts.completion_tokens_details, &counts.output_tokens_details);
        // OpenAI; DeepSeek; Moonshot; gateways in front of Anthropic.
        let cached = (of_prompt.cached_tokens)
            .or(of_input.cached_tokens)
            .or(counts.prompt_cache_hit_tokens)
            .or(counts.cached_tokens)
            .or(counts.cache_read_input_tokens);
        let cache_write = (of_prompt.cache_write_tokens)
            .or(of_input.cache_write_tokens)
            .or(of_prompt.cache_creation_tokens)
            .or(counts.cache_creation_input_tokens);
        let reasoning = of_completion.reasoning_tokens.or(of_output.reasoning_tokens);
        let audio_prompt = of_prompt.audio_tokens.or(of_input.audio_tokens);
        let audio_completion = of_completion.audio_tokens.or(of_output.audio_tokens);
        // A part is never more than the whole, or the rest of the whole would be charged below zero.
        let cached = cached.at_most(prompt);
        let cache_write = cache_write.at_most(prompt - cached);
        Some(Self {
            prompt,
            completion,
            cached,
            cache_write,
            reasoning: reasoning.at_most(completion),
            audio_prompt: audio_prompt.at_most(prompt - cached - cache_write),
            audio_completion: audio_completion.at_most(completion),
            service_tier: service_tier.map(Into::into),
            estimated: false,
        })
    }

    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// A body's `usage` under the names that are in use.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counts {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    #[serde(deserialize_with = "loose")]
    prompt_tokens_details: Details,
    #[serde(deserialize_with = "loose")]
    completion_tokens_details: Details,
    #[serde(deserialize_with = "loose")]
    input_tokens_details: Details,
    #[serde(deserialize_with = "loose")]
    output_tokens_details: Details,
    prompt_cache_hit_tokens: Count,
    cached_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

impl Counts {
    /// What an odd `usage` says, as far as it can be read.
    pub fn read(usage: &Value) -> Self {
        loose(usage).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_creation_tokens: Count,
    audio_tokens: Count,
    reasoning_tokens: Count,
}

/// A number of tokens, where there is one. Some servers write it as `12.0`; what is no number is none.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<u64>);

impl Count {
    fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    fn at_most(self, most: u64) -> u64 {
        self.0.unwrap_or(0).min(most)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        loose(deserializer)
    }
}

/// Reads what `T` can be made of; everything else is as if it were not there.
#[expect(private_bounds, reason = "for what is here")]
pub fn loose<'de, T: Loose, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(LooseVisitor(PhantomData))
}

trait Loose: Default {
    fn number(_: f64) -> Self {
        Self::default()
    }

    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        IgnoredAny::deserialize(MapAccessDeserializer::new(map)).map(|_| Self::default())
    }
}

impl Loose for Count {
    fn number(count: f64) -> Self {
        // Exact: no count comes near 2^53.
        Self((0.0..1e15).contains(&count).then_some(count as u64))
    }
}

impl Loose for Details {
    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl Loose for Counts {
    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: Loose> Visitor<'de> for LooseVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<T, E> {
        Ok(T::number(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::object(map)
    }
}
