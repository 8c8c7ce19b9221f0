//! Which units are kept under a budget.
//!
//! Greedily by their worth, less what they repeat of what is kept already (maximal marginal relevance: Carbonell & Goldstein
//! 1998, "The use of MMR, diversity-based reranking for reordering documents and producing summaries"). A unit is compared
//! not with each kept one but with all their word triples at once, in a table of fixed size, so that a million units take no
//! longer than their sorting. What a unit is worth is `score.rs`.

use std::collections::BinaryHeap;

use super::score::Scores;
use super::units::Units;
use super::words::{Hash, Seen, Term, Terms};

/// What a unit loses that says nothing new.
const REPEATED: f32 = 0.5;
/// Parts of a text of each of which something is kept when the question asks for no part.
const PARTS: usize = 12;
/// What a unit loses then whose part is kept as much as others may be.
const CROWDED: f32 = 0.5;
/// A unit goes back into the queue at most so often.
const MOST_RETURNS: u8 = 3;
/// After so many that do not fit, one after the other, the rest would only be crumbs.
const MOST_MISFITS: usize = 24;

pub struct Costs<'a> {
    pub tokens: &'a [u64],
    /// Of what stands for a gap; 0 where gaps are not marked each.
    pub mark: u64,
    /// Of what is there before anything is kept.
    pub base: u64,
}

/// What is kept, and in which order it was chosen.
pub struct Kept {
    is_kept: Vec<bool>,
    order: Vec<usize>,
    mark: u64,
    rounds: u32,
}

impl Kept {
    pub fn has(&self, unit: usize) -> bool {
        self.is_kept.get(unit).copied().unwrap_or(false)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Leaves out what was chosen last until it has so many tokens less, each time it is asked for more than that.
    pub fn shorten(&mut self, units: &Units, tokens: &[u64], over: u64) {
        let wanted = over.max(1_u64 << self.rounds.min(40));
        self.rounds += 1;
        let mut less = 0;
        while less < wanted
            && let Some(last) = self.order.pop()
        {
            less += tokens.get(last).copied().unwrap_or(0).max(1);
        }
        self.is_kept.fill(false);
        for unit in std::mem::take(&mut self.order) {
            self.order.push(unit);
            let mut next = Some(unit);
            while let Some(unit) = next.filter(|unit| !self.has(*unit)) {
                self.set(unit, true);
                next = units.head(unit);
            }
        }
        self.fill(units, tokens);
    }

    fn set(&mut self, unit: usize, is_kept: bool) {
        if let Some(place) = self.is_kept.get_mut(unit) {
            *place = is_kept;
        }
    }

    /// A gap that has no more tokens than its mark is kept instead.
    fn fill(&mut self, units: &Units, tokens: &[u64]) {
        let mut start = 0;
        while start < self.is_kept.len() {
            if self.has(start) {
                start += 1;
                continue;
            }
            let mut end = start;
            let mut sum = 0_u64;
            while end < self.is_kept.len() && !self.has(end) {
                sum = sum.saturating_add(tokens.get(end).copied().unwrap_or(0));
                end += 1;
            }
            if sum <= self.mark && !self.order.is_empty() {
                for unit in start..end {
                    let is_led = units.head(unit).is_none_or(|head| self.has(head));
                    self.set(unit, is_led);
                }
            }
            start = end;
        }
    }

    /// Keeps a unit and its heads; returns what was kept by that and how the tokens grow.
    fn keep(&mut self, units: &Units, costs: &Costs, unit: usize, new: &mut Vec<usize>) -> i128 {
        new.clear();
        let mut next = Some(unit);
        while let Some(unit) = next.filter(|unit| !self.has(*unit)) {
            new.push(unit);
            next = units.head(unit);
        }
        new.reverse();
        let mut cost = 0;
        for unit in new.iter().copied() {
            let left = unit > 0 && !self.has(unit - 1);
            let right = unit + 1 < self.is_kept.len() && !self.has(unit + 1);
            let gaps = i128::from(left) + i128::from(right) - 1;
            cost += i128::from(costs.tokens.get(unit).copied().unwrap_or(0)) + gaps * i128::from(costs.mark);
            self.set(unit, true);
        }
        cost
    }
}

/// A unit and its value as one number that has their order: the highest value first, of equal ones the first unit. Half the
/// time of choosing among many was comparing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

impl Candidate {
    fn new(unit: usize, value: f32) -> Self {
        let bits = value.to_bits();
        // As `f32::total_cmp` orders them.
        let order = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(order) << 32 | u64::from(!(unit as u32)))
    }

    fn unit(self) -> usize {
        !(self.0 as u32) as usize
    }

    fn value(self) -> f32 {
        let order = (self.0 >> 32) as u32;
        f32::from_bits(if order >> 31 == 1 { order & !(1 << 31) } else { !order })
    }
}

/// All candidates, sorted once, and those that came back with less.
struct Queue {
    sorted: Vec<Candidate>,
    returned: BinaryHeap<Candidate>,
}

impl Queue {
    fn new(mut all: Vec<Candidate>) -> Self {
        all.sort_unstable();
        Self { sorted: all, returned: BinaryHeap::new() }
    }

    fn peek(&self) -> Option<Candidate> {
        self.sorted.last().copied().max(self.returned.peek().copied())
    }

    fn pop(&mut self) -> Option<Candidate> {
        if self.sorted.last() > self.returned.peek() { self.sorted.pop() } else { self.returned.pop() }
    }
}

pub fn choose(units: &Units, terms: &Terms, scores: &Scores, costs: &Costs, budget: u64) -> Kept {
    let mut kept = Kept { is_kept: vec![false; units.len()], order: Vec::new(), mark: costs.mark, rounds: 0 };
    let mut said = Seen::new(terms.count());
    let parts = Parts::new(costs.tokens, budget, scores.is_general);
    let mut crowd = vec![0_u64; PARTS];
    let candidate = |(unit, value): (usize, &f32)| Candidate::new(unit, *value);
    let all = scores.values.iter().enumerate().map(candidate);
    let mut queue = Queue::new(all.filter(|candidate| !units.is_head(candidate.unit())).collect());
    let mut returns = vec![0_u8; units.len()];
    let mut left = i128::from(budget) - i128::from(costs.base);
    let mut misfits = 0;
    let mut new = Vec::new();
    while let Some(best) = queue.pop() {
        let unit = best.unit();
        if let Some(returns) = returns.get_mut(unit).filter(|returns| **returns < MOST_RETURNS) {
            let worth = scores.values.get(unit).copied().unwrap_or(0.0);
            let value = worth - REPEATED * repeated(terms.of(unit), &said) - parts.crowded(unit, &crowd);
            if value < best.value() && queue.peek().is_some_and(|next| value < next.value()) {
                *returns += 1;
                queue.returned.push(Candidate::new(unit, value));
                continue;
            }
        }
        let cost = kept.keep(units, costs, unit, &mut new);
        if cost > left {
            new.iter().for_each(|unit| kept.set(*unit, false));
            misfits += 1;
            if misfits > MOST_MISFITS {
                break;
            }
            continue;
        }
        misfits = 0;
        left -= cost;
        kept.order.push(unit);
        triples(terms.of(unit), |triple| said.add(triple));
        parts.add(unit, costs.tokens, &mut crowd);
    }
    kept.fill(units, costs.tokens);
    kept
}

/// The share of a unit's word triples that what is kept has too.
fn repeated(terms: &[Term], said: &Seen) -> f32 {
    let (mut all, mut known) = (0, 0);
    triples(terms, |triple| {
        all += 1;
        known += u32::from(said.has(triple));
    });
    if all == 0 { 0.0 } else { known as f32 / all as f32 }
}

/// Three words in a row; all of them where there are fewer.
fn triples(terms: &[Term], mut found: impl FnMut(Term)) {
    for triple in terms.windows(terms.len().clamp(1, 3)) {
        let mut hash = Hash::default();
        triple.iter().for_each(|term| hash.add(*term));
        found(hash.get());
    }
}

/// Which part of the text a unit is in, for questions that ask for no part.
struct Parts {
    of_unit: Vec<u8>,
    share: f32,
}

impl Parts {
    fn new(tokens: &[u64], budget: u64, is_needed: bool) -> Self {
        let total = tokens.iter().map(|tokens| u128::from(*tokens)).sum::<u128>().max(1);
        let mut before = 0_u128;
        let part = |tokens: &u64| {
            let part = before * PARTS as u128 / total;
            before += u128::from(*tokens);
            part as u8
        };
        let of_unit = if is_needed { tokens.iter().map(part).collect() } else { Vec::new() };
        Self { of_unit, share: (budget as f32 / PARTS as f32).max(1.0) }
    }

    fn crowded(&self, unit: usize, crowd: &[u64]) -> f32 {
        let part = self.of_unit.get(unit).and_then(|part| crowd.get(usize::from(*part)));
        part.map_or(0.0, |tokens| CROWDED * (*tokens as f32 / self.share))
    }

    fn add(&self, unit: usize, tokens: &[u64], crowd: &mut [u64]) {
        if let Some(place) = self.of_unit.get(unit).and_then(|part| crowd.get_mut(usize::from(*part))) {
            *place = place.saturating_add(tokens.get(unit).copied().unwrap_or(0));
        }
    }
}
