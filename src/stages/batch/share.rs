//! Each question's part of what a pack used and cost. The parts add up to the whole, to the last unit.

use std::sync::Arc;

use crate::ledger::{Charge, Money, Usage};

/// Splits `total` by weights, whole units, the largest remainders first (Hamilton's method). Without any weight, evenly.
pub fn split(total: u64, weights: &[u64]) -> Vec<u64> {
    let wide = split_wide(i128::from(total), weights);
    wide.into_iter().map(|part| u64::try_from(part).unwrap_or_default()).collect()
}

/// An amount in so many even parts, which add up to it.
pub fn split_money(amount: Money, count: usize) -> Vec<Money> {
    split_wide(amount.pico(), &vec![1; count]).into_iter().map(Money::from_pico).collect()
}

fn split_wide(total: i128, weights: &[u64]) -> Vec<i128> {
    if weights.is_empty() {
        return Vec::new();
    }
    // What a server says it used may be any number: the products below have to fit all the same.
    let most: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    let shift = (128 - most.leading_zeros()).saturating_sub(62);
    let mut weights: Vec<u64> = weights.iter().map(|weight| weight >> shift).collect();
    if weights.iter().all(|weight| *weight == 0) {
        weights.fill(1);
    }
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    // Rounded down, below zero as well: what is left over is never less than nothing.
    let (times, rest) = (total.div_euclid(sum), total.rem_euclid(sum));
    let share = |weight: u64| times * i128::from(weight) + rest * i128::from(weight) / sum;
    let mut parts: Vec<i128> = weights.iter().map(|weight| share(*weight)).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(rest * i128::from(weights[*at]) % sum));
    let mut left = total - parts.iter().sum::<i128>();
    for at in order.into_iter().cycle() {
        if left <= 0 {
            break;
        }
        parts[at] += 1;
        left -= 1;
    }
    parts
}

/// What each question weighs.
pub struct Weights {
    /// Tokens of the question, and an even part of what all share.
    pub prompt: Vec<u64>,
    /// Tokens of its answer.
    pub completion: Vec<u64>,
}

impl Weights {
    /// `questions` and `answers`: tokens of each; `prompt`: of the whole request, as the upstream counted.
    pub fn new(questions: &[u64], answers: &[u64], prompt: u64) -> Self {
        let own = questions.iter().fold(0_u64, |sum, tokens| sum.saturating_add(*tokens));
        let shared = split(prompt.saturating_sub(own), &vec![1; questions.len()]);
        let prompt = questions.iter().zip(shared).map(|(own, shared)| own.saturating_add(shared)).collect();
        // One that has no answer took part all the same.
        let completion = (0..questions.len()).map(|at| answers.get(at).copied().unwrap_or_default().max(1)).collect();
        Self { prompt, completion }
    }

    pub fn usages(&self, usage: &Usage) -> Vec<Usage> {
        let prompt = split(usage.prompt, &self.prompt);
        let completion = split(usage.completion, &self.completion);
        // Parts of parts: none is more than what it is a part of.
        let cached = split_within(usage.cached, &prompt);
        let rest: Vec<u64> = prompt.iter().zip(&cached).map(|(all, cached)| all - cached).collect();
        let written = split_within(usage.cache_write, &rest);
        let reasoning = split_within(usage.reasoning, &completion);
        (0..prompt.len())
            .map(|at| Usage {
                prompt: prompt[at],
                completion: completion[at],
                cached: cached[at],
                cache_write: written[at],
                reasoning: reasoning[at],
                audio_prompt: 0,
                audio_completion: 0,
                service_tier: usage.service_tier.clone(),
                estimated: usage.estimated,
            })
            .collect()
    }

    /// One charge as one for each question.
    pub fn charges(&self, charge: &Charge) -> Vec<Charge> {
        let usages = self.usages(&charge.usage);
        let weights: Vec<u64> =
            usages.iter().map(|usage| usage.prompt.saturating_add(usage.completion.saturating_mul(OUTPUT))).collect();
        let costs: Vec<Option<Money>> = match charge.cost {
            None => vec![None; usages.len()],
            Some(cost) => {
                split_wide(cost.pico(), &weights).into_iter().map(|part| Some(Money::from_pico(part))).collect()
            }
        };
        let made = usages.into_iter().zip(costs);
        made.map(|(usage, cost)| Charge { usage, cost, model: Arc::clone(&charge.model), ..charge.clone() }).collect()
    }
}

/// What a token of an answer weighs beside one of a prompt in the split of the money: about what providers charge. Only
/// who bears which part of a sum depends on it, never the sum.
const OUTPUT: u64 = 4;

/// As [`split`], where no part may be more than its weight. `total` is at most the sum of the weights.
fn split_within(total: u64, weights: &[u64]) -> Vec<u64> {
    let mut parts = split(total, weights);
    let mut over = 0;
    for (part, most) in parts.iter_mut().zip(weights) {
        over += part.saturating_sub(*most);
        *part = (*part).min(*most);
    }
    for (part, most) in parts.iter_mut().zip(weights) {
        let more = over.min(most - *part);
        *part += more;
        over -= more;
    }
    parts
}
