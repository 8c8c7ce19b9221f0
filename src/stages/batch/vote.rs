//! Each question asked several times, in packs of another order: what most of them say counts.
//!
//! Where a question stands in a pack changes what small models answer; the majority over permuted packs takes most of that
//! out (BatchPrompt, Lin et al. 2023, arXiv 2309.00384).

use crate::batch::Flaw;
use crate::escalate::extract::agree;

/// Orders for so many packs; the first as the questions came. The same for the same numbers.
pub fn orders(count: usize, votes: u32) -> Vec<Vec<usize>> {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        // Xorshift (Marsaglia 2003): all that is wanted is another order.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % (below as u64).max(1)).unwrap_or_default()
    };
    let mut orders = vec![(0..count).collect::<Vec<_>>()];
    for _ in 1..votes {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, random(at + 1));
        }
        orders.push(order);
    }
    orders
}

/// For each question the answer that more than half of all `votes` agree on; else why there is none.
pub fn majority(packs: &[&[Result<String, Flaw>]], count: usize, votes: u32) -> Vec<Result<String, String>> {
    let one = |at: usize| {
        let all: Vec<&Result<String, Flaw>> = packs.iter().filter_map(|texts| texts.get(at)).collect();
        let said: Vec<&String> = all.iter().filter_map(|text| text.as_ref().ok()).collect();
        let chosen = said.iter().find(|text| {
            let agreeing = said.iter().filter(|other| agree(text, other, None)).count();
            2 * agreeing > votes as usize
        });
        match (chosen, all.iter().find_map(|text| text.as_ref().err())) {
            (Some(text), _) => Ok((*text).clone()),
            (None, Some(flaw)) => Err(flaw.to_string()),
            (None, None) => Err("the packs do not agree".to_owned()),
        }
    };
    (0..count).map(one).collect()
}
