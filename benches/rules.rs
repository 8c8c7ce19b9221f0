//! What `look` and the rules cost a prompt: the least of many rounds, for 200, 2,000 and 20,000 characters.
//!
//! `cargo run --release --example rules`

use std::hint::black_box;
use std::time::Instant;

use farthing::question::Question;
use farthing::route::look::look;
use farthing::route::rules::{Rules, RulesConfig};

const TEXT: &str = "Explain step by step how the function get_user(id) works, and why it must never return null. Compare \
                    it with `fetchUser` in JavaScript; there are at least 3 cases (a < b, x = 2 * y) that fail.\n";

fn main() -> Result<(), String> {
    let tiers = ["trivial", "simple", "code", "reasoning"].map(str::to_owned);
    let rules = Rules::new(&RulesConfig::default(), &tiers)?;
    for characters in [200, 2_000, 20_000] {
        let prompt: String = TEXT.chars().cycle().take(characters).collect();
        let question = Question { prompt, turns: 1, ..Question::default() };
        let rounds = 4_000_000 / characters;
        let mut least = f64::INFINITY;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..rounds {
                black_box(rules.choose(&look(black_box(&question))));
            }
            least = least.min(start.elapsed().as_secs_f64() * 1e6 / rounds as f64);
        }
        println!("{characters:>6} characters: {least:.1} us");
    }
    Ok(())
}
