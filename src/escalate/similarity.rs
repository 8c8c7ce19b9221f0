//! How much two texts look alike: chrF (Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation").
//!
//! Sees the same words and parts of words, in any language and script. Does not see meaning: "is" and "is not" are alike.

/// The longest n-grams, as in the paper.
const ORDERS: usize = 6;
/// Characters that are compared, white space not counted. Of longer texts, the first and the last half of this many.
const MOST: usize = 32_768;
/// Bits of a character. Six characters fit into a number, so that n-grams are compared, not their hashes.
const BITS: usize = 21;

/// 0 (nothing in common) to 1 (the same, white space aside). Symmetric: with as much weight on precision as on recall
/// (the paper's beta = 1). Time n log n, with n bounded. Two empty texts are the same.
pub fn similarity(one: &str, other: &str) -> f64 {
    let (one, other) = (characters(one), characters(other));
    if one == other {
        return 1.0;
    }
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in 1..=ORDERS.min(one.len().max(other.len())) {
        let (grams, others) = (grams(&one, order), grams(&other, order));
        let common = common(&grams, &others);
        precision += share(common, grams.len());
        recall += share(common, others.len());
        orders += 1.0;
    }
    if precision + recall <= 0.0 || orders <= 0.0 {
        return 0.0;
    }
    (2.0 * precision * recall / (precision + recall) / orders).clamp(0.0, 1.0)
}

fn characters(text: &str) -> Vec<u32> {
    let mut characters: Vec<u32> = text.chars().filter(|c| !c.is_whitespace()).map(u32::from).collect();
    if characters.len() > MOST {
        characters.drain(MOST / 2..characters.len() - MOST / 2);
    }
    characters
}

/// All n-grams in ascending order.
fn grams(characters: &[u32], order: usize) -> Vec<u128> {
    let mask = (1_u128 << (BITS * order)) - 1;
    let mut gram = 0_u128;
    let mut grams = Vec::with_capacity(characters.len());
    for (position, character) in characters.iter().enumerate() {
        gram = (gram << BITS | u128::from(*character)) & mask;
        if position + 1 >= order {
            grams.push(gram);
        }
    }
    grams.sort_unstable();
    grams
}

/// How many two ascending lists share, each as often as it is in both.
fn common(one: &[u128], other: &[u128]) -> usize {
    let (mut left, mut right, mut count) = (0, 0, 0);
    while let (Some(a), Some(b)) = (one.get(left), other.get(right)) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => left += 1,
            std::cmp::Ordering::Greater => right += 1,
            std::cmp::Ordering::Equal => {
                count += 1;
                left += 1;
                right += 1;
            }
        }
    }
    count
}

#[allow(clippy::cast_precision_loss)]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
