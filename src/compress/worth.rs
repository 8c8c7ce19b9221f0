//! Whether shortening pays, in money, before anything is asked and after the answer.
//!
//! What a provider has in its cache is cheap as it is, and dear once it is another text: that is counted here.

use crate::ledger::Money;
use crate::ledger::price::Rates;

/// Tokens from which providers keep a prompt's beginning in their cache (OpenAI, prompt caching).
pub const LEAST_CACHED: u64 = 1024;
/// Tokens of the words around a text that a model is to shorten.
const INSTRUCTION: u64 = 120;

/// What a token of input costs where the provider has it in its cache, in 1e-12 USD; None = there is no discount.
pub fn discounted(rates: Option<&Rates>) -> Option<u64> {
    let rates = rates?;
    rates.cached.filter(|cached| rates.input.is_some_and(|input| *cached < input))
}

/// Whether a beginning of a prompt that comes again costs less in the end: shorter than the provider caches, each call
/// pays for all of it.
pub fn prefix_pays(before: u64, after: u64, rates: Option<&Rates>) -> bool {
    let (Some(rates), Some(cached)) = (rates, discounted(rates)) else { return after < before };
    if before < LEAST_CACHED || after >= LEAST_CACHED {
        return after < before;
    }
    let input = rates.input.unwrap_or_default();
    u128::from(after) * u128::from(input) < u128::from(before) * u128::from(cached)
}

/// What a model would do with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Tokens of the text, and of what is wished for.
    pub before: u64,
    pub after: u64,
    /// Calls that it is read by.
    pub uses: u64,
}

impl Summary {
    /// Uses from which on what is saved is more than the one call costs; None: never. `reader`: prices of the model that
    /// reads the text; `writer`: of the one that shortens it. Where a price is unknown, tokens are compared.
    ///
    /// What is read again is in the provider's cache, where it has one: only the first use saves the full price.
    pub fn break_even(&self, reader: Option<&Rates>, writer: Option<&Rates>) -> Option<u64> {
        let prices = || {
            let (reader, writer) = (reader?, writer?);
            let input = reader.input?;
            Some((input, discounted(Some(reader)).unwrap_or(input), writer.input?, writer.output?))
        };
        let (first, later, reads, writes) = prices().unwrap_or((1, 1, 1, 1));
        let asked = self.before.saturating_add(INSTRUCTION);
        let cost = u128::from(asked) * u128::from(reads) + u128::from(self.after) * u128::from(writes);
        let less = u128::from(self.before.checked_sub(self.after)?);
        let rest = match cost.checked_sub(less * u128::from(first)) {
            // A gain of nothing is none.
            Some(rest) => rest.checked_div(less * u128::from(later))? + 1,
            None => 0,
        };
        u64::try_from(rest + 1).ok()
    }

    /// Whether as many uses as are expected are enough.
    pub fn pays(&self, reader: Option<&Rates>, writer: Option<&Rates>) -> bool {
        self.break_even(reader, writer).is_some_and(|least| self.uses >= least)
    }
}

/// Whether tokens that are not sent, those of the tool taken off, are worth another beginning of the prompt: what the provider
/// has in its cache begins with the tools. `prefix`: tokens of that.
pub fn tool_pays(saved: u64, prefix: u64, rates: Option<&Rates>) -> bool {
    let lost = match (rates.and_then(|rates| rates.input), discounted(rates)) {
        (Some(input), Some(cached)) if input > 0 => {
            let again = written(rates, true).unwrap_or(input);
            u128::from(prefix) * u128::from(again.saturating_sub(cached)) / u128::from(input)
        }
        _ => 0,
    };
    u128::from(saved) > lost
}

/// What a token of input costs that the provider has not in its cache. `writes`: it puts it there.
fn written(rates: Option<&Rates>, writes: bool) -> Option<u64> {
    let rates = rates?;
    rates.cache_write.filter(|_| writes).or(rates.input)
}

/// What tokens cost more because the provider has not found them in its cache.
pub fn undiscounted(tokens: u64, rates: Option<&Rates>) -> Money {
    let discount =
        rates.and_then(|rates| rates.input).zip(discounted(rates)).map_or(0, |(input, cached)| input - cached);
    Money::from_pico(i128::from(tokens).saturating_mul(i128::from(discount)))
}

/// What tokens that were not sent would have cost. `cached`: those that the provider had in its cache; `writes`: it puts the
/// others there.
pub fn saved(new: u64, cached: u64, writes: bool, rates: Option<&Rates>) -> Option<Money> {
    let new_rate = written(rates, writes)?;
    let cached_rate = discounted(rates).or(rates?.input)?;
    let part = |tokens: u64, rate: u64| Money::from_pico(i128::from(tokens).saturating_mul(i128::from(rate)));
    Some(part(new, new_rate) + part(cached, cached_rate))
}
