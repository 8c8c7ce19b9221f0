//! When shortening pays.

use farthing::compress::worth::{Summary, prefix_pays, saved, tool_pays};
use farthing::ledger::Money;
use farthing::ledger::price::Rates;

/// 1e-12 USD a token.
fn rates(input: u64, output: u64, cached: Option<u64>) -> Rates {
    Rates { input: Some(input), output: Some(output), cached, ..Rates::default() }
}

#[test]
fn a_prefix_below_the_providers_least_is_weighed_against_its_discount() {
    let tenth = rates(10, 20, Some(1));
    // Of 1,100 tokens at a tenth, 900 at the full price are eight times the cost.
    assert!(!prefix_pays(1100, 900, Some(&tenth)));
    assert!(prefix_pays(1100, 100, Some(&tenth)));
    // Still long enough, never long enough, no discount, no price.
    assert!(prefix_pays(3000, 1500, Some(&tenth)));
    assert!(prefix_pays(900, 700, Some(&tenth)));
    assert!(prefix_pays(1100, 900, Some(&rates(10, 20, None))));
    assert!(prefix_pays(1100, 900, Some(&rates(10, 20, Some(10)))));
    assert!(prefix_pays(1100, 900, None));
    assert!(!prefix_pays(1100, 1100, None));
}

#[test]
fn a_summary_pays_from_its_break_even_on() {
    let (dear, cheap) = (rates(2_500_000, 10_000_000, None), rates(150_000, 600_000, None));
    for before in [200, 1_000, 20_000] {
        let wished = |uses| Summary { before, after: before / 2, uses };
        let even = wished(1).break_even(Some(&dear), Some(&cheap)).unwrap();
        assert!(wished(even).pays(Some(&dear), Some(&cheap)), "{before}: {even}");
        assert!(even == 1 || !wished(even - 1).pays(Some(&dear), Some(&cheap)), "{before}: {even}");
    }
    // A writer that costs as much as the reader needs several readers.
    assert!(!Summary { before: 1000, after: 500, uses: 2 }.pays(Some(&dear), Some(&dear)));
    assert!(Summary { before: 1000, after: 500, uses: 10 }.pays(Some(&dear), Some(&dear)));
    // What is read again is in the provider's cache: 500 tokens save 5,000 once and 500 from then on, and cost 21,200.
    let tenth = rates(10, 20, Some(1));
    let wished = |uses| Summary { before: 1000, after: 500, uses };
    assert_eq!(wished(1).break_even(Some(&tenth), Some(&tenth)), Some(34));
    assert!(!wished(33).pays(Some(&tenth), Some(&tenth)) && wished(34).pays(Some(&tenth), Some(&tenth)));
    assert!(wished(4).pays(Some(&rates(10, 20, None)), Some(&rates(5, 10, None))));
    assert_eq!(Summary { before: 500, after: 500, uses: 9 }.break_even(Some(&tenth), Some(&tenth)), None);
    // Without prices, tokens are compared.
    assert!(!Summary { before: 1000, after: 500, uses: 1 }.pays(None, Some(&cheap)));
    assert!(Summary { before: 1000, after: 500, uses: 10 }.pays(None, None));
}

#[test]
fn what_is_saved_has_the_price_that_it_would_have_had() {
    let tenth = rates(10, 20, Some(1));
    assert_eq!(saved(100, 1000, false, Some(&tenth)), Some(Money::from_pico(100 * 10 + 1000)));
    assert_eq!(saved(100, 1000, false, Some(&rates(10, 20, None))), Some(Money::from_pico(1100 * 10)));
    assert_eq!(saved(100, 0, false, Some(&Rates::default())), None);
    assert_eq!(saved(100, 0, false, None), None);
    let writes = Rates { cache_write: Some(13), ..tenth };
    assert_eq!(saved(100, 1000, true, Some(&writes)), Some(Money::from_pico(100 * 13 + 1000)));
    assert_eq!(saved(100, 1000, false, Some(&writes)), Some(Money::from_pico(100 * 10 + 1000)));
}

#[test]
fn a_tool_at_the_beginning_costs_what_the_provider_has_in_its_cache() {
    let tenth = rates(10, 20, Some(1));
    assert!(tool_pays(910, 0, Some(&tenth)));
    assert!(!tool_pays(910, 2000, Some(&tenth)));
    assert!(tool_pays(910, 2000, Some(&rates(10, 20, None))));
    assert!(!tool_pays(0, 0, None));
    // What it would find no more has to be written again.
    let writes = Rates { cache_write: Some(20), ..tenth };
    assert!(tool_pays(2500, 2000, Some(&tenth)) && !tool_pays(2500, 2000, Some(&writes)));
}
