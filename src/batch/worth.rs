//! Whether a pack pays: what its questions share is sent once, and the pack itself costs an instruction, fences and ids.
//!
//! An estimate made before anything is sent. What was saved in the end is said by the `usage` of the answer.

use crate::ledger::Money;
use crate::ledger::price;

/// Tokens from which providers keep a prompt's beginning in their cache.
const LEAST_CACHED: u64 = 1024;

/// 1e-12 USD a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub input: u64,
    /// Of input that the provider has in its cache; None = it gives no discount.
    pub cached: Option<u64>,
    pub output: u64,
}

impl Rates {
    /// Of a model's prices. None: one is missing that a pack needs.
    pub fn of(price: &price::Rates) -> Option<Self> {
        Some(Self { input: price.input?, cached: price.cached, output: price.output? })
    }
}

/// What a pack has to do with, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What all its calls begin with: everything but the user's last message.
    pub prefix: u64,
    pub items: u64,
    /// The instruction and all fences.
    pub overhead: u64,
    /// An answer's id and quotes.
    pub output_overhead: u64,
}

/// What a pack saves and costs, compared with its calls one by one. The money is None where the price is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    pub saved_tokens: u64,
    pub overhead_tokens: u64,
    pub saved: Option<Money>,
    pub overhead: Option<Money>,
}

impl Worth {
    /// By money, and by tokens where no price is known.
    pub fn pays(&self) -> bool {
        match (self.saved, self.overhead) {
            (Some(saved), Some(overhead)) => saved > overhead,
            _ => self.saved_tokens > self.overhead_tokens,
        }
    }
}

impl Worth {
    /// USD; below 0 where the pack costs more than it saves. None: a price is not known.
    pub fn gain(&self) -> Option<Money> {
        self.saved.zip(self.overhead).map(|(saved, overhead)| saved - overhead)
    }
}

/// See [`Worth`].
pub fn worth(sizes: &Sizes, rates: Option<&Rates>) -> Worth {
    let written = sizes.items.saturating_mul(sizes.output_overhead);
    let saved_tokens = sizes.prefix.saturating_mul(sizes.items.saturating_sub(1));
    let saved = rates.map(|rates| {
        // One by one, the calls after the first would have found it in the provider's cache. The first pays for it in
        // either case.
        let discounted = rates.cached.filter(|_| sizes.prefix >= LEAST_CACHED);
        cost(saved_tokens, discounted.unwrap_or(rates.input).min(rates.input))
    });
    let overhead = rates.map(|rates| cost(sizes.overhead, rates.input) + cost(written, rates.output));
    Worth { saved_tokens, overhead_tokens: sizes.overhead.saturating_add(written), saved, overhead }
}

fn cost(tokens: u64, rate: u64) -> Money {
    Money::from_pico(i128::from(tokens).saturating_mul(i128::from(rate)))
}
