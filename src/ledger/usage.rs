//! The tokens of one answer, as the upstream counted them. What they cost is `price.rs`.

use std::sync::Arc;

use serde_json::Value;

use crate::exchange::Endpoint;

/// Tokens. `prompt` includes `cached`, `cache_write` and `audio_prompt`; `completion` includes `reasoning` and
/// `audio_completion`, as OpenAI counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Reads a body's `usage`; `service_tier` is the body's own word. None when the upstream did not say what it used.
    pub fn new(endpoint: Endpoint, usage: &Value, service_tier: Option<&str>) -> Option<Self> {
        // The Responses API has names of its own; gateways mix the two, so both are looked for, the endpoint's first.
        let (input, output) = match endpoint {
            Endpoint::Responses => (["input_tokens", "prompt_tokens"], ["output_tokens", "completion_tokens"]),
            _ => (["prompt_tokens", "input_tokens"], ["completion_tokens", "output_tokens"]),
        };
        let first = |names: &[&str]| names.iter().find_map(|path| count(at(usage, path)));
        let prompt = first(&input);
        let completion = first(&output);
        if prompt.is_none() && completion.is_none() {
            return None;
        }
        let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
        // OpenAI; DeepSeek; Moonshot; gateways in front of Anthropic.
        let cached = first(&[
            "prompt_tokens_details/cached_tokens",
            "input_tokens_details/cached_tokens",
            "prompt_cache_hit_tokens",
            "cached_tokens",
            "cache_read_input_tokens",
        ]);
        let cache_write = first(&[
            "prompt_tokens_details/cache_write_tokens",
            "input_tokens_details/cache_write_tokens",
            "prompt_tokens_details/cache_creation_tokens",
            "cache_creation_input_tokens",
        ]);
        let reasoning =
            first(&["completion_tokens_details/reasoning_tokens", "output_tokens_details/reasoning_tokens"]);
        let audio_prompt = first(&["prompt_tokens_details/audio_tokens", "input_tokens_details/audio_tokens"]);
        let audio_completion = first(&["completion_tokens_details/audio_tokens", "output_tokens_details/audio_tokens"]);
        // A part is never more than the whole, or the rest of the whole would be charged below zero.
        let cached = cached.unwrap_or(0).min(prompt);
        let cache_write = cache_write.unwrap_or(0).min(prompt - cached);
        Some(Self {
            prompt,
            completion,
            cached,
            cache_write,
            reasoning: reasoning.unwrap_or(0).min(completion),
            audio_prompt: audio_prompt.unwrap_or(0).min(prompt - cached - cache_write),
            audio_completion: audio_completion.unwrap_or(0).min(completion),
            service_tier: service_tier.map(Into::into),
            estimated: false,
        })
    }

    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// The value at a path of names.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').try_fold(value, |value, name| value.get(name))
}

/// A count; some servers write it as `12.0`.
fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_f64().filter(|count| (0.0..1e15).contains(count)).map(|count| count as u64))
}
