//! What each unit of a text is worth for a question.
//!
//! Okapi BM25 (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond") with soft windows
//! instead of documents: each occurrence of a term counts for the units around it too, less the farther away they are (Lv &
//! Zhai 2009, "Positional Language Models for Information Retrieval", with an exponential kernel, since that one is linear).
//! So what stands beside a matching sentence is found, and terms that stand close together are worth more. What is taken
//! is not decided here but in `choose.rs`.

use super::units::Units;
use super::words::{self, Table, Term, Terms};

/// Terms of a question that are scored: the rarest.
const MOST_TERMS: usize = 32;
/// Units whose windows are held at once.
const BLOCK: usize = 2_048;
/// What faded to less is gone: numbers that are almost none would make every sum slow.
const NOTHING: f32 = 1e-12;

pub struct Scores {
    /// 0 to about 1.
    pub values: Vec<f32>,
    /// The question says nothing about what is wanted: something of each part of the text is.
    pub is_general: bool,
}

/// Chosen on one half of the data that `benches/extract_kept.rs` reads and reported on the other.
struct Weights {
    /// How soon more of a term says no more.
    saturation: f32,
    /// How much a window with more text than others has to have more of a term.
    length: f32,
    /// Tokens after which an occurrence counts 1/e.
    reach: f32,
    /// Tokens that a blank line or a heading is as far as.
    apart: f32,
    /// A unit's own words beside its window's.
    own: f32,
    /// An occurrence in the head of a unit.
    head: f32,
    /// The text's beginning and end.
    edge: f32,
}

const WEIGHTS: Weights =
    Weights { saturation: 2.0, length: 0.5, reach: 300.0, apart: 900.0, own: 0.2, head: 1.0, edge: 0.02 };

/// A term of the question in a unit.
struct Match {
    unit: u32,
    term: u32,
    times: f32,
}

pub fn score(units: &Units, terms: &Terms, tokens: &[u64], question: &str) -> Scores {
    let wanted = Wanted::read(question, terms);
    let is_general = wanted.matches.is_empty();
    let mut values = match wanted.rarity.len() {
        0 => central(units, terms),
        1..=4 => relevant::<4>(units, tokens, &wanted, &WEIGHTS),
        5..=8 => relevant::<8>(units, tokens, &wanted, &WEIGHTS),
        _ => relevant::<MOST_TERMS>(units, tokens, &wanted, &WEIGHTS),
    };
    let most = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let total = tokens.iter().sum::<u64>().max(1) as f32;
    let mut before = 0_u64;
    for (value, tokens) in values.iter_mut().zip(tokens) {
        let place = (before as f32 + *tokens as f32 / 2.0) / total;
        before += tokens;
        // Highest at both ends, and a little higher at the beginning.
        let edge = (1.0 - place).powi(8) + 0.5 * place.powi(8);
        *value = *value / most + WEIGHTS.edge * edge;
    }
    Scores { values, is_general }
}

struct Wanted {
    /// How much each term is worth.
    rarity: Vec<f32>,
    /// In the order of units.
    matches: Vec<Match>,
}

impl Wanted {
    fn read(question: &str, terms: &Terms) -> Self {
        let mut wanted = words::content(question);
        wanted.sort_unstable();
        let mut maybe = vec![0_u64; 1 << 10];
        let place = |term: Term| (term as usize >> 6 & 0x3ff, 1_u64 << (term & 63));
        for term in &wanted {
            let (word, bit) = place(*term);
            if let Some(word) = maybe.get_mut(word) {
                *word |= bit;
            }
        }
        let mut found_in = vec![0_u32; wanted.len()];
        let mut matches: Vec<Match> = Vec::new();
        for unit in 0..terms.units() {
            let first = matches.len();
            for term in terms.of(unit) {
                let (word, bit) = place(*term);
                if maybe.get(word).is_none_or(|word| word & bit == 0) {
                    continue;
                }
                let Ok(index) = wanted.binary_search(term) else { continue };
                let of_unit = matches.get_mut(first..).unwrap_or_default();
                if let Some(same) = of_unit.iter_mut().take(MOST_TERMS).find(|same| same.term == index as u32) {
                    same.times += 1.0;
                } else {
                    matches.push(Match { unit: unit as u32, term: index as u32, times: 1.0 });
                    if let Some(count) = found_in.get_mut(index) {
                        *count += 1;
                    }
                }
            }
        }
        let all = terms.units() as f32;
        let rarity = |count: u32| (1.0 + (all - count as f32 + 0.5).max(0.0) / (count as f32 + 0.5)).ln();
        // Of many only the rarest, under their new numbers.
        let mut rarest: Vec<usize> =
            (0..wanted.len()).filter(|index| found_in.get(*index).is_some_and(|count| *count > 0)).collect();
        rarest.sort_by_key(|index| found_in.get(*index).copied().unwrap_or(0));
        rarest.truncate(MOST_TERMS);
        let mut new = vec![None; wanted.len()];
        for (number, index) in rarest.iter().enumerate() {
            if let Some(place) = new.get_mut(*index) {
                *place = Some(number as u32);
            }
        }
        matches.retain_mut(|found| {
            let number = new.get(found.term as usize).copied().flatten();
            found.term = number.unwrap_or(0);
            number.is_some()
        });
        let rarity = rarest.iter().map(|index| rarity(found_in.get(*index).copied().unwrap_or(0))).collect();
        Self { rarity, matches }
    }
}

/// So much of each term; most questions have few.
type Window<const TERMS: usize> = [f32; TERMS];

fn relevant<const TERMS: usize>(units: &Units, tokens: &[u64], wanted: &Wanted, weights: &Weights) -> Vec<f32> {
    let count = units.len();
    let starts = starts(&wanted.matches, count);
    let of_unit = |unit: usize| {
        let range = starts.get(unit).copied().unwrap_or(0)..starts.get(unit + 1).copied().unwrap_or(0);
        wanted.matches.get(range).unwrap_or_default()
    };
    // What an occurrence in the unit before still counts in each.
    let mut fading = Vec::with_capacity(count);
    let mut last = 0.0;
    for (unit, tokens) in tokens.iter().enumerate() {
        let half = *tokens as f32 / 2.0;
        let distance = last + half + if units.is_apart(unit) { weights.apart } else { 0.0 };
        fading.push(if unit == 0 { 0.0 } else { (-distance / weights.reach).exp() });
        last = half;
    }
    let fade = |unit: usize| fading.get(unit).copied().unwrap_or(0.0);
    // A window's length in tokens, to compare it with the others'.
    let mut lengths = soft_sums(&fading, tokens);
    let mean = (lengths.iter().sum::<f32>() / count.max(1) as f32).max(1.0);
    lengths.iter_mut().for_each(|length| *length = 1.0 - weights.length + weights.length * *length / mean);

    let add = |window: &mut Window<TERMS>, unit: usize| {
        for found in of_unit(unit) {
            if let Some(sum) = window.get_mut(found.term as usize) {
                *sum += found.times;
            }
        }
    };
    let step = |window: &mut Window<TERMS>, unit: usize| {
        let fade = fade(unit);
        window.iter_mut().for_each(|sum| *sum = if *sum > NOTHING { *sum * fade } else { 0.0 });
    };
    // Forward once for the state before each block; then block by block from the end, where the block's forward states are
    // made again: so a million units do not need a million windows.
    let blocks = count.div_ceil(BLOCK);
    let mut before_block = Vec::with_capacity(blocks);
    let mut window = [0.0; TERMS];
    for unit in 0..count {
        if unit % BLOCK == 0 {
            before_block.push(window);
        }
        step(&mut window, unit);
        add(&mut window, unit);
    }
    let mut values = vec![0.0; count];
    let mut behind = [0.0; TERMS];
    let mut forward: Vec<Window<TERMS>> = Vec::with_capacity(BLOCK);
    for (block, state) in before_block.iter().enumerate().rev() {
        let range = block * BLOCK..(block * BLOCK + BLOCK).min(count);
        let mut window = *state;
        forward.clear();
        for unit in range.clone() {
            step(&mut window, unit);
            add(&mut window, unit);
            forward.push(window);
        }
        for (unit, window) in range.zip(&mut forward).rev() {
            for (sum, behind) in window.iter_mut().zip(&behind) {
                *sum += behind;
            }
            let mut own = [0.0; TERMS];
            add(&mut own, unit);
            let mut head = units.head(unit);
            let mut depth = 0;
            while let Some(above) = head.filter(|_| depth < 8) {
                for found in of_unit(above) {
                    for place in
                        [own.get_mut(found.term as usize), window.get_mut(found.term as usize)].into_iter().flatten()
                    {
                        *place += weights.head * found.times.min(1.0);
                    }
                }
                head = units.head(above);
                depth += 1;
            }
            let length = lengths.get(unit).copied().unwrap_or(1.0);
            let bm25 = |window: &Window<TERMS>, length: f32| -> f32 {
                let part = |(sum, rarity): (&f32, &f32)| {
                    rarity * sum * (weights.saturation + 1.0) / (sum + weights.saturation * length)
                };
                window.iter().zip(&wanted.rarity).map(part).sum()
            };
            if let Some(value) = values.get_mut(unit) {
                *value = bm25(window, length) + weights.own * bm25(&own, 1.0);
            }
            add(&mut behind, unit);
            step(&mut behind, unit);
        }
    }
    values
}

/// Where each unit's matches begin, and the end.
fn starts(matches: &[Match], units: usize) -> Vec<usize> {
    let mut starts = Vec::with_capacity(units + 1);
    let mut at = 0;
    for unit in 0..=units {
        while matches.get(at).is_some_and(|found| (found.unit as usize) < unit) {
            at += 1;
        }
        starts.push(at);
    }
    starts
}

fn soft_sums(fading: &[f32], tokens: &[u64]) -> Vec<f32> {
    let mut sums = Vec::with_capacity(tokens.len());
    let mut sum = 0.0;
    for (fade, tokens) in fading.iter().zip(tokens) {
        sum = sum * fade + *tokens as f32;
        sums.push(sum);
    }
    let mut behind = 0.0;
    for ((sum, fade), tokens) in sums.iter_mut().zip(fading).zip(tokens).rev() {
        *sum += behind;
        behind = (behind + *tokens as f32) * fade;
    }
    sums
}

/// How much of what the text is mostly about a unit says, by its length: terms that come back, but not everywhere (as
/// centroid summarisers weigh them: Radev et al. 2004, "Centroid-based summarization of multiple documents").
fn central(units: &Units, terms: &Terms) -> Vec<f32> {
    let mut counts = Table::new(terms.count());
    let mut last_in = Table::new(terms.count());
    let mut found_in = Table::new(terms.count());
    let each = 0..terms.units();
    for unit in each.clone() {
        for term in terms.of(unit) {
            counts.set(*term, counts.get(*term).saturating_add(1));
            if last_in.get(*term) != unit as u32 + 1 {
                last_in.set(*term, unit as u32 + 1);
                found_in.set(*term, found_in.get(*term) + 1);
            }
        }
    }
    let all = units.len() as f32;
    let weight = |term: Term| {
        let (count, found_in) = (counts.get(term), found_in.get(term));
        if count < 2 { 0.0 } else { (count as f32).ln() * (all / found_in as f32).ln().max(0.0) }
    };
    let value = |unit: usize| {
        let terms = terms.of(unit);
        terms.iter().map(|term| weight(*term)).sum::<f32>() / (terms.len() as f32 + 8.0)
    };
    each.map(value).collect()
}
