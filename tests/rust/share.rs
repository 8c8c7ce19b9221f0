//! What a pack used and cost, shared out among its questions: nothing is lost and nothing is made.

use farthing::batch::Flaw;
use farthing::ledger::{Charge, Money, Usage};
use farthing::stages::batch::share::{Weights, split, split_money};
use farthing::stages::batch::vote::{majority, orders};
use proptest::prelude::*;

proptest! {
    #[test]
    fn parts_add_up_to_the_whole(total in any::<u64>(), weights in prop::collection::vec(any::<u64>(), 1..40)) {
        let parts = split(total, &weights);
        prop_assert_eq!(parts.len(), weights.len());
        prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(total));
    }

    #[test]
    fn money_adds_up_to_the_whole(pico in -(1_i128 << 90)..(1_i128 << 90), count in 1_usize..100) {
        let parts = split_money(Money::from_pico(pico), count);
        prop_assert_eq!(parts.len(), count);
        prop_assert_eq!(parts.iter().copied().sum::<Money>(), Money::from_pico(pico));
        let all: Vec<i128> = parts.iter().map(|part| part.pico()).collect();
        prop_assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1);
    }

    #[test]
    fn charges_add_up_to_the_charge(
        questions in prop::collection::vec(0_u64..100_000, 1..30),
        answers in prop::collection::vec(0_u64..100_000, 0..30),
        prompt in any::<u64>(),
        completion in any::<u64>(),
        parts in (any::<u64>(), any::<u64>(), any::<u64>()),
        cost in prop::option::of(0_i128..(1 << 80)),
    ) {
        let cached = parts.0 % prompt.max(1);
        let usage = Usage {
            prompt,
            completion,
            cached,
            cache_write: parts.1 % (prompt - cached).max(1),
            reasoning: parts.2 % completion.max(1),
            ..Usage::default()
        };
        let whole = Charge { model: "m".into(), tag: None, stage: "upstream", usage, cost: cost.map(Money::from_pico) };
        let all = Weights::new(&questions, &answers, prompt).charges(&whole);
        prop_assert_eq!(all.len(), questions.len());
        let sum = |of: fn(&Usage) -> u64| all.iter().map(|part| u128::from(of(&part.usage))).sum::<u128>();
        prop_assert_eq!(sum(|usage| usage.prompt), u128::from(whole.usage.prompt));
        prop_assert_eq!(sum(|usage| usage.completion), u128::from(whole.usage.completion));
        prop_assert_eq!(sum(|usage| usage.cached), u128::from(whole.usage.cached));
        prop_assert_eq!(sum(|usage| usage.cache_write), u128::from(whole.usage.cache_write));
        prop_assert_eq!(sum(|usage| usage.reasoning), u128::from(whole.usage.reasoning));
        for part in &all {
            prop_assert!(part.usage.cached + part.usage.cache_write <= part.usage.prompt);
            prop_assert!(part.usage.reasoning <= part.usage.completion);
            prop_assert_eq!(part.cost.is_some(), whole.cost.is_some());
            prop_assert!(part.cost.is_none_or(|cost| cost >= Money::ZERO));
        }
        prop_assert_eq!(all.iter().map(|part| part.cost).sum::<Option<Money>>(), whole.cost);
    }

    #[test]
    fn each_order_has_each_question_once(count in 0_usize..50, votes in 1_u32..9) {
        let all = orders(count, votes);
        prop_assert_eq!(all.len(), votes as usize);
        for mut order in all {
            order.sort_unstable();
            prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_longer_question_bears_more_of_it() {
    let weights = Weights::new(&[10, 30], &[5, 5], 140);
    assert_eq!(weights.prompt, [60, 80]);
}

#[test]
fn what_more_than_half_say_counts() {
    let say = |text: &str| Ok(text.to_owned());
    let packs: [&[Result<String, Flaw>]; 3] = [
        &[say("Paris."), say("1"), Err(Flaw::Missing), say("a")],
        &[say("paris"), say("2"), say("x"), Err(Flaw::Empty)],
        &[say("Rome"), say("3"), say("x"), Err(Flaw::Empty)],
    ];
    let chosen = majority(&packs, 4, 3);
    assert_eq!(chosen[0].as_deref(), Ok("Paris."));
    assert_eq!(chosen[1], Err("the packs do not agree".to_owned()));
    assert_eq!(chosen[2].as_deref(), Ok("x"));
    assert!(chosen[3].is_err());
    // One pack that failed as a whole has no vote.
    assert_eq!(majority(&packs[..1], 4, 1)[0].as_deref(), Ok("Paris."));
    assert!(majority(&packs[..1], 4, 3)[0].is_err());
}
