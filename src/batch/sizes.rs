//! How many questions go into a pack.

use std::ops::Range;

/// Splits a list of questions, of which the tokens are given, into as few packs as both budgets allow, and these evenly: 11
/// with at most 10 each are 6 and 5. `answer`: the tokens that each answer may have. A question that is too big for a
/// budget has a pack of its own.
pub fn packs(tokens: &[u64], answer: u64, most_items: usize, most_prompt: u64, most_answer: u64) -> Vec<Range<usize>> {
    let by_answer =
        most_answer.checked_div(answer).map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let farthest = farthest(tokens, most_items.min(by_answer).max(1), most_prompt);
    let mut needed = vec![0_usize; tokens.len() + 1];
    let need = |needed: &[usize], from: usize| needed.get(from).copied().unwrap_or(0);
    for (start, end) in farthest.iter().enumerate().rev() {
        let packs = need(&needed, *end) + 1;
        if let Some(place) = needed.get_mut(start) {
            *place = packs;
        }
    }
    let mut packs = Vec::new();
    let mut start = 0;
    while let Some(&end) = farthest.get(start) {
        let left = need(&needed, start);
        let even = start + (tokens.len() - start).div_ceil(left.max(1));
        // No fewer than leave a rest that fits into the packs that are left for it.
        let least = (start + 1..end).find(|after| *after >= even && need(&needed, *after) < left).unwrap_or(end);
        packs.push(start..least);
        start = least;
    }
    packs
}

/// For each question, where the longest pack that begins with it ends.
fn farthest(tokens: &[u64], most_items: usize, most_prompt: u64) -> Vec<usize> {
    let mut end = 0;
    let mut sum = 0_u128;
    let mut farthest = Vec::with_capacity(tokens.len());
    for (start, first) in tokens.iter().enumerate() {
        if end <= start {
            end = start + 1;
            sum = u128::from(*first);
        }
        while let Some(next) = tokens.get(end) {
            let more = sum + u128::from(*next);
            if end - start >= most_items || more > u128::from(most_prompt) {
                break;
            }
            sum = more;
            end += 1;
        }
        farthest.push(end);
        sum = sum.saturating_sub(u128::from(*first));
    }
    farthest
}
