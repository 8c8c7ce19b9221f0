//! What `extract` takes, its counting of tokens included: ms for 40 KB (about 10,000 tokens), MB/s for 2 MB; the least of
//! several rounds.
//!
//! `cargo run --release --example extracting`

use std::hint::black_box;
use std::time::Instant;

use farthing::compress::extractive::extract;
use farthing::tokens::Vocabulary;

const WORDS: &str = "the of and to in that is was for it with as his on be at by had not are but from or have an they which one you \
    were her all she there would their we him been has when who will more no if out so said what up its about into than \
    them can only other new some could time these two may then do first any my now such like our over man me even most made \
    after also did many before must through back years where much your way well down should because each just those people \
    too little state good very make world still own see men work long get here between both life being under never day same \
    another know while last might us great old year off come since against go came right used take three states himself few \
    house use during without again place American around however home small found Mrs thought went say part once general high \
    upon school every government system better possible course budget battery remote control interface rubber casing price";

fn main() {
    let begin = Instant::now();
    let question = "What did the group decide about the battery and the price of the remote control?";
    for (name, make) in
        [("prose", prose as fn(usize) -> String), ("transcript", transcript), ("short lines", lines), ("json", json)]
    {
        for (size, rounds) in [(40_000, 40), (2_000_000, 8)] {
            let text = make(size);
            for (asked, question) in [("asked", question), ("general", "Summarise this.")] {
                let count = |text: &str| Vocabulary::O200k.count(text).tokens;
                let tokens = count(&text);
                let mut shares = Vec::new();
                for factor in [2, 5] {
                    let mut least = f64::INFINITY;
                    for _ in 0..rounds {
                        let start = clock(begin, size < 1_000_000);
                        black_box(extract(black_box(&text), question, tokens / factor, &count));
                        least = least.min(clock(begin, size < 1_000_000) - start);
                    }
                    shares.push(format!(
                        "to 1/{factor}: {:.2} ms = {:.1} MB/s",
                        least * 1e3,
                        text.len() as f64 / least / 1e6
                    ));
                }
                println!("{name:>11}, {:>7} bytes, {tokens:>6} tokens, {asked:>7}  {}", text.len(), shares.join("   "));
            }
        }
    }
}

/// Seconds on the processor where the system tells, so that what else runs does not count; else of the clock, and for what
/// is shorter than the system's own steps.
fn clock(begin: Instant, is_short: bool) -> f64 {
    if is_short {
        return begin.elapsed().as_secs_f64();
    }
    let on_processor = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = on_processor.and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| begin.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

/// The same numbers in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as usize % sides.max(1)
    }
}

fn sentence(dice: &mut Dice, words: &[&str]) -> String {
    let length = 4 + dice.roll(20);
    let mut sentence: Vec<String> = (0..length)
        .map(|_| {
            // The first ones come more often.
            let most = 1 + dice.roll(words.len());
            words[dice.roll(most)].to_owned()
        })
        .collect();
    if dice.roll(6) == 0 {
        sentence.push(format!("{},{:03}", 1 + dice.roll(90), dice.roll(1000)));
    }
    let sentence = sentence.join(" ");
    sentence[..1].to_uppercase() + &sentence[1..] + "."
}

fn prose(size: usize) -> String {
    let (mut dice, words) = (Dice(1), WORDS.split_whitespace().collect::<Vec<_>>());
    let mut text = String::new();
    while text.len() < size {
        text += &sentence(&mut dice, &words);
        text.push_str(if dice.roll(7) == 0 { "\n\n" } else { " " });
    }
    text
}

fn transcript(size: usize) -> String {
    let (mut dice, words) = (Dice(2), WORDS.split_whitespace().collect::<Vec<_>>());
    let mut text = String::new();
    while text.len() < size {
        text += ["Marketing: ", "Project Manager: ", "User Interface: "][dice.roll(3)];
        for _ in 0..1 + dice.roll(3) * dice.roll(3) {
            text += &sentence(&mut dice, &words);
            text.push(' ');
        }
        text.push('\n');
    }
    text
}

fn lines(size: usize) -> String {
    let mut dice = Dice(3);
    let mut text = String::new();
    while text.len() < size {
        text += &format!("{} ok\n", dice.roll(100_000));
    }
    text
}

fn json(size: usize) -> String {
    let (mut dice, words) = (Dice(4), WORDS.split_whitespace().collect::<Vec<_>>());
    let mut rows = Vec::new();
    let mut length = 0;
    while length < size {
        let name = words[dice.roll(words.len())];
        let row = format!(
            r#"{{"id": {}, "name": "{name}", "note": "{}"}}"#,
            dice.roll(1_000_000),
            sentence(&mut dice, &words)
        );
        length += row.len() + 2;
        rows.push(row);
    }
    format!("{{\"total\": {}, \"rows\": [{}]}}", rows.len(), rows.join(", "))
}
