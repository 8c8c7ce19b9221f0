//! What an answer costs, from the tokens that it used.
//!
//! A price is a user's own, or it is in the bundled list under the provider that the URL's host names and the exact id
//! of the model. Anything else is unknown, which is None: never 0, never another model's price. Tokens are all that is
//! priced; what a provider bills by the call (its own web search, its containers) is not in `usage` and not here.
//!
//! The list is `prices.json`, which `scripts/build_prices.py` writes from genai-prices and litellm (both MIT). Where the
//! two disagree, genai-prices is preferred: it dates its prices. No network here, no clock, and no float: a price is a
//! whole number of 1e-12 USD a token.

mod book;
mod hosts;
mod limits;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use self::book::Tier;
use super::{Money, Usage};

/// 1e-12 USD a token; None = not in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rates {
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// Of input that the provider has in its cache.
    pub cached: Option<u64>,
    pub cache_write: Option<u64>,
    pub audio_input: Option<u64>,
    pub audio_output: Option<u64>,
}

impl Rates {
    /// None when a price is missing that the tokens need.
    fn charge(&self, usage: &Usage) -> Option<Money> {
        let input = usage.prompt.checked_sub(usage.cached)?.checked_sub(usage.cache_write)?;
        let input = input.checked_sub(usage.audio_prompt)?;
        let output = usage.completion.checked_sub(usage.audio_completion)?;
        // Where a list has no price for writing to the provider's cache, the provider takes none for it: the tokens are
        // billed as any other input (OpenAI until GPT-5.5, DeepSeek).
        let cache_write = self.cache_write.or(self.input);
        let parts = [
            (input, self.input),
            (usage.cached, self.cached),
            (usage.cache_write, cache_write),
            (usage.audio_prompt, self.audio_input),
            (output, self.output),
            (usage.audio_completion, self.audio_output),
        ];
        parts.into_iter().filter(|(tokens, _)| *tokens > 0).try_fold(Money::ZERO, |sum, (tokens, rate)| {
            Some(sum + Money::from_pico(i128::from(tokens).saturating_mul(i128::from(rate?))))
        })
    }

    /// The dearest that text can be billed at, for one token in and one out.
    fn dearest(&self) -> Option<(u64, u64)> {
        let input = [self.input, self.cached, self.cache_write].into_iter().flatten().max()?;
        // A model without a price for its output has none: an embedding.
        Some((input, self.output.unwrap_or(0)))
    }
}

/// A user's own price for a model: what they pay, whatever the service tier, the size of the prompt and the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    rates: Rates,
}

impl ModelPrice {
    /// USD per million tokens, as decimal text. Cached tokens without a price of their own cost what input costs: the
    /// user said what a token of input costs, and said nothing of a discount.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn parse(
        input: &str,
        output: &str,
        cached_input: Option<&str>,
        cache_write: Option<&str>,
    ) -> Result<Self, String> {
        let input = parse_rate("input", input)?;
        let optional = |name, text: Option<&str>| text.map_or(Ok(input), |text| parse_rate(name, text));
        let rates = Rates {
            input: Some(input),
            output: Some(parse_rate("output", output)?),
            cached: Some(optional("cached_input", cached_input)?),
            cache_write: Some(optional("cache_write", cache_write)?),
            ..Rates::default()
        };
        Ok(Self { rates })
    }
}

/// 1e-12 USD a token, from USD per million tokens.
fn parse_rate(name: &str, text: &str) -> Result<u64, String> {
    const DECIMALS: usize = 6;
    const MOST: u64 = 1_000_000;
    let wrong = || format!("{name}: {text:?} is not a decimal number of USD from 0 to {MOST} with {DECIMALS} decimals");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = part.trim_end_matches('0');
    if !digits(whole) || !digits(part) || zeros.len() > DECIMALS {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{zeros:0<DECIMALS$}").parse().map_err(|_| wrong())?;
    let rate = whole.checked_mul(MOST).and_then(|rate| rate.checked_add(part));
    rate.filter(|rate| *rate <= MOST * MOST).ok_or_else(wrong)
}

/// The bundled prices, and a user's own before them.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    own: Arc<BTreeMap<String, ModelPrice>>,
    /// The most tokens of an answer, where the user said that.
    longest: Arc<BTreeMap<String, u64>>,
}

impl PriceTable {
    /// The list is read when the first answer is charged by it.
    pub fn bundled() -> Self {
        Self::default()
    }

    pub fn with_overrides(self, own: BTreeMap<String, ModelPrice>) -> Self {
        Self { own: Arc::new(own), ..self }
    }

    /// The most tokens that a model's answer has, by its name.
    #[must_use]
    pub fn with_longest(self, longest: BTreeMap<String, u64>) -> Self {
        Self { longest: Arc::new(longest), ..self }
    }

    /// What `usage` of `model` costs at `url`. A user's own price is meant for the model wherever it is served.
    pub fn charge(&self, url: &str, model: &str, usage: &Usage, unix_seconds: i64) -> Option<Money> {
        if let Some(own) = self.own.get(model) {
            return own.rates.charge(usage);
        }
        let provider = hosts::provider(url)?;
        let tier = Tier::named(usage.service_tier.as_deref())?;
        let period = book::bundled().period(provider.name, &provider.model_id(model), unix_seconds)?;
        period.rates(tier, usage.prompt)?.charge(usage)
    }

    /// At the user's own price only.
    pub fn charge_own(&self, model: &str, usage: &Usage) -> Option<Money> {
        self.own.get(model)?.rates.charge(usage)
    }

    /// The standard rates of a model for prompts of a usual size, to compare models by. `names`: of the model, the best
    /// known first. None: the price is unknown.
    pub fn rates(&self, url: &str, names: &[&str], unix_seconds: i64) -> Option<Rates> {
        if let Some(own) = names.iter().find_map(|name| self.own.get(*name)) {
            return Some(own.rates);
        }
        let provider = hosts::provider(url)?;
        let model = provider.model_id(names.first()?);
        book::bundled().period(provider.name, &model, unix_seconds)?.rates(Tier::Standard, 0).copied()
    }

    /// The most that an attempt can cost which takes in `prompt` tokens of text and puts out `output`, whichever price turns
    /// out to apply. `names`: of the model, the best known first. None: the price is unknown.
    pub fn most(
        &self,
        url: &str,
        names: &[&str],
        sizes: (u64, u64),
        tier: Option<&str>,
        unix_seconds: i64,
    ) -> Option<Money> {
        /// A call that begins now may be billed at the price of an hour from now.
        const SOON: i64 = 3600;
        let (prompt, output) = sizes;
        let cost = |(input_rate, output_rate): (u64, u64)| {
            let part = |tokens: u64, rate: u64| Money::from_pico(i128::from(tokens).saturating_mul(i128::from(rate)));
            part(prompt, input_rate) + part(output, output_rate)
        };
        if let Some(own) = names.iter().find_map(|name| self.own.get(*name)) {
            return own.rates.dearest().map(cost);
        }
        let provider = hosts::provider(url)?;
        let model = provider.model_id(names.first()?);
        let tiers = Tier::possible(tier)?;
        let mut most: Option<Money> = None;
        for at in [unix_seconds, unix_seconds.saturating_add(SOON)] {
            let period = book::bundled().period(provider.name, &model, at)?;
            // Past a threshold everything costs more, as a rule: the prompt may be on either side of it.
            for rates in tiers.iter().flat_map(|tier| period.all_rates(*tier, prompt)) {
                most = most.max(rates.dearest().map(cost));
            }
        }
        most
    }

    /// The most tokens of an answer of this model; None = unknown.
    pub fn max_output(&self, url: &str, names: &[&str]) -> Option<u64> {
        if let Some(most) = names.iter().find_map(|name| self.longest.get(*name)).copied() {
            return Some(most);
        }
        let provider = hosts::provider(url)?;
        limits::max_output(provider.name, &provider.model_id(names.first()?))
    }

    /// When the bundled prices were right.
    pub fn date() -> &'static str {
        book::bundled().date
    }
}
