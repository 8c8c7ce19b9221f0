//! What `extract` keeps of what answers the question, beside what truncation and chance keep under the same budget.
//!
//! `python benches/compression_data.py DATA_FOLDER target/compression`, then
//! `cargo run --release --example extract_kept target/compression odd`. The weights in `score.rs` were chosen on the
//! meetings and questions of even number only. The data is not part of the repository.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use farthing::compress::extractive::extract;
use farthing::tokens::Vocabulary;
use serde_json::Value;

const FACTORS: [u64; 3] = [2, 3, 5];
const METHODS: [&str; 5] = ["extract", "head", "tail", "both ends", "random sentences"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let half = arguments.next().unwrap_or_else(|| "odd".to_owned());
    let only = arguments.next();
    let is_in = |index: usize| match half.as_str() {
        "even" => index.is_multiple_of(2),
        "odd" => !index.is_multiple_of(2),
        _ => true,
    };
    let read = |name: &str| -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        let text = std::fs::read_to_string(format!("{folder}/{name}.jsonl"))?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if is_wanted("qmsum") {
        meetings(&read("qmsum")?, &is_in);
    }
    if is_wanted("nq") {
        passages(&read("nq")?, &is_in);
    }
    if is_wanted("kv") {
        values(&read("kv")?, &is_in);
    }
    Ok(())
}

fn count(text: &str) -> u64 {
    Vocabulary::O200k.count(text).tokens
}

/// What a method keeps of a text, as ranges in order.
fn kept(method: &str, text: &str, pieces: &Pieces, question: &str, budget: u64, seed: u64) -> Vec<Range<usize>> {
    let all: Vec<usize> = (0..pieces.ranges.len()).collect();
    let order: Vec<usize> = match method {
        "extract" => {
            let Some(extract) = extract(text, question, budget, &count) else {
                return std::iter::once(0..text.len()).collect();
            };
            assert!(count(&extract.text) <= budget);
            let mut ranges = Vec::new();
            let mut at = 0;
            for gap in extract.left_out {
                ranges.push(at..gap.start);
                at = gap.end;
            }
            ranges.push(at..text.len());
            return ranges;
        }
        "head" => all,
        "tail" => all.into_iter().rev().collect(),
        "both ends" => {
            let reverse: Vec<usize> = all.iter().rev().copied().collect();
            all.iter().zip(&reverse).flat_map(|(a, b)| [*a, *b]).take(reverse.len()).collect()
        }
        _ => shuffled(all.len(), seed),
    };
    let mut left = budget;
    let mut taken = Vec::new();
    for piece in order {
        let tokens = pieces.tokens[piece];
        if tokens <= left {
            left -= tokens;
            taken.push(piece);
        } else if method != "random sentences" {
            break;
        }
    }
    taken.sort_unstable();
    taken.into_iter().map(|piece| pieces.ranges[piece].clone()).collect()
}

/// The sentences and lines that truncation and chance take.
struct Pieces {
    ranges: Vec<Range<usize>>,
    tokens: Vec<u64>,
    total: u64,
}

impl Pieces {
    fn new(text: &str) -> Self {
        let mut ranges = Vec::new();
        let mut start = 0;
        let bytes = text.as_bytes();
        for at in 1..=bytes.len() {
            let is_stop = matches!(bytes[at - 1], b'.' | b'!' | b'?') && bytes.get(at) == Some(&b' ');
            if at == bytes.len() || bytes[at - 1] == b'\n' || is_stop {
                ranges.push(start..at);
                start = at;
            }
        }
        let tokens = ranges.iter().map(|range| count(&text[range.clone()])).collect();
        Self { ranges, tokens, total: count(text) }
    }
}

fn shuffled(length: usize, seed: u64) -> Vec<usize> {
    let mut dice = Dice(seed);
    let mut order: Vec<usize> = (0..length).collect();
    for at in (1..length).rev() {
        order.swap(at, dice.roll(at + 1));
    }
    order
}

/// The same numbers in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as usize % sides
    }
}

fn within(kept: &[Range<usize>], wanted: &Range<usize>) -> Vec<Range<usize>> {
    let both = kept.iter().map(|range| range.start.max(wanted.start)..range.end.min(wanted.end));
    both.filter(|range| range.start < range.end).collect()
}

fn heading(first: &str) {
    println!("| {first} | {} |", FACTORS.map(|factor| format!("{factor}x")).join(" | "));
    println!("|---|{}", "---|".repeat(FACTORS.len()));
}

/// QMSum: the turns that hold the answer to a question about a meeting.
fn meetings(meetings: &[Value], is_in: &dyn Fn(usize) -> bool) {
    // By method and factor: the meeting and the share, for each question.
    let mut tokens: HashMap<(&str, u64), Vec<(usize, f64)>> = HashMap::new();
    let mut spans: HashMap<(&str, u64), Vec<(usize, f64)>> = HashMap::new();
    let mut most: HashMap<(&str, u64), Vec<(usize, f64)>> = HashMap::new();
    let (mut questions, mut used) = (0, 0);
    for (index, meeting) in meetings.iter().enumerate().filter(|(index, _)| is_in(*index)) {
        used += 1;
        let text = meeting["transcript"].as_str().unwrap_or_default();
        let pieces = Pieces::new(text);
        let turns: Vec<Range<usize>> = text
            .split_inclusive('\n')
            .scan(0, |at, turn| {
                *at += turn.len();
                Some(*at - turn.len()..*at)
            })
            .collect();
        for query in meeting["queries"].as_array().into_iter().flatten() {
            questions += 1;
            let question = query["query"].as_str().unwrap_or_default();
            let gold: Vec<Range<usize>> = query["spans"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|span| {
                    let turn = |end: usize| span[end].as_u64().unwrap_or(0) as usize;
                    turns[turn(0)].start..turns[turn(1)].end
                })
                .collect();
            let sizes: Vec<u64> = gold.iter().map(|range| count(&text[range.clone()])).collect();
            let all: u64 = sizes.iter().sum();
            for factor in FACTORS {
                let budget = pieces.total / factor;
                most.entry(("most possible", factor)).or_default().push((index, (budget as f64 / all as f64).min(1.0)));
                for method in METHODS {
                    let kept = kept(method, text, &pieces, question, budget, questions);
                    let shares: Vec<u64> = gold
                        .iter()
                        .map(|range| within(&kept, range).into_iter().map(|part| count(&text[part])).sum())
                        .collect();
                    let share = shares.iter().sum::<u64>() as f64 / all as f64;
                    tokens.entry((method, factor)).or_default().push((index, share.min(1.0)));
                    for (size, share) in sizes.iter().zip(&shares) {
                        spans
                            .entry((method, factor))
                            .or_default()
                            .push((index, f64::from(u8::from(share * 2 >= *size))));
                    }
                }
            }
        }
    }
    println!(
        "\nQMSum, {used} meetings, {questions} questions: share of the answer's tokens kept (95% by bootstrap over meetings)\n"
    );
    heading("method");
    print_row("most possible", &most);
    METHODS.iter().for_each(|method| print_row(method, &tokens));
    println!("\nQMSum: share of the answer's spans of which at least half is kept\n");
    heading("method");
    METHODS.iter().for_each(|method| print_row(method, &spans));
}

fn print_row(method: &str, table: &HashMap<(&str, u64), Vec<(usize, f64)>>) {
    let cells = FACTORS.map(|factor| {
        let shares = &table[&(method, factor)];
        let (low, high) = bootstrap(shares);
        format!("{:.1}% ({:.1}-{:.1})", mean(shares.iter().map(|share| share.1)) * 100.0, low * 100.0, high * 100.0)
    });
    println!("| {method} | {} |", cells.join(" | "));
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / f64::from(count.max(1))
}

/// Whole meetings are drawn, since the questions of one are alike.
fn bootstrap(shares: &[(usize, f64)]) -> (f64, f64) {
    let mut groups: HashMap<usize, (f64, f64)> = HashMap::new();
    for (meeting, share) in shares {
        let group = groups.entry(*meeting).or_default();
        *group = (group.0 + share, group.1 + 1.0);
    }
    let mut groups: Vec<(usize, (f64, f64))> = groups.into_iter().collect();
    groups.sort_by_key(|group| group.0);
    let mut dice = Dice(9);
    let mut means: Vec<f64> = (0..2_000)
        .map(|_| {
            let drawn = (0..groups.len()).map(|_| groups[dice.roll(groups.len())].1);
            let (sum, count) = drawn.fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
            sum / count
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[50], means[1949])
}

/// Wilson's interval.
fn wilson(right: usize, all: usize) -> String {
    let (n, z) = (all.max(1) as f64, 1.96_f64);
    let share = right as f64 / n;
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    format!("{:.1}% ({:.1}-{:.1})", share * 100.0, (middle - half).max(0.0) * 100.0, (middle + half).min(1.0) * 100.0)
}

/// NQ: the passage that answers the question, among others.
fn passages(rows: &[Value], is_in: &dyn Fn(usize) -> bool) {
    let field = |row: &Value, name: &str| row["ctxs"][0][name].as_str().unwrap_or_default().to_owned();
    let bodies: Vec<(String, String)> = rows.iter().map(|row| (field(row, "title"), field(row, "text"))).collect();
    let alike = Alike::new(&bodies);
    for (name, others, is_hard) in [("9 others", 9, false), ("19 others", 19, false), ("the 9 most alike", 9, true)] {
        let mut answers: HashMap<(&str, u64), usize> = HashMap::new();
        let mut sentences: HashMap<(&str, u64), usize> = HashMap::new();
        let mut all = 0;
        for (index, row) in rows.iter().enumerate().filter(|(index, _)| is_in(*index)) {
            let question = row["question"].as_str().unwrap_or_default();
            let right: Vec<String> = row["answers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_lowercase)
                .collect();
            let has_answer = |text: &str| {
                let text = text.to_lowercase();
                right.iter().any(|answer| text.contains(answer))
            };
            let body = &bodies[index].1;
            let Some(at) = Pieces::new(body).ranges.into_iter().find(|range| has_answer(&body[range.clone()])) else {
                continue;
            };
            all += 1;
            let order = if is_hard { alike.order(question, &bodies) } else { shuffled(rows.len(), index as u64) };
            let other = |other: &usize| *other != index && bodies[*other].1 != *body && !has_answer(&bodies[*other].1);
            let mut chosen: Vec<usize> = order.into_iter().filter(other).take(others).collect();
            let place = Dice(index as u64 + 7).roll(chosen.len() + 1);
            chosen.insert(place, index);
            let mut text = String::new();
            let mut sentence = 0..0;
            for passage in chosen {
                let (title, body) = &bodies[passage];
                text += &format!("{title}\n");
                if passage == index {
                    let part = &body[at.clone()];
                    let start = text.len() + at.start + part.len() - part.trim_start().len();
                    sentence = start..start + part.trim().len();
                }
                text += &format!("{}\n\n", body.trim_end());
            }
            let pieces = Pieces::new(&text);
            for factor in FACTORS {
                for method in METHODS {
                    let kept = kept(method, &text, &pieces, question, pieces.total / factor, index as u64);
                    let is_kept = kept.iter().any(|range| has_answer(&text[range.clone()]));
                    *answers.entry((method, factor)).or_default() += usize::from(is_kept);
                    let part: usize = within(&kept, &sentence).into_iter().map(|range| range.len()).sum();
                    // The space between two pieces may be neither's.
                    *sentences.entry((method, factor)).or_default() += usize::from(part + 1 >= sentence.len());
                }
            }
        }
        for (what, table) in [("an answer is", &answers), ("the sentence with the answer is whole and", &sentences)] {
            println!("\nNQ, {name}, {all} questions: {what} kept (95%, Wilson)\n");
            heading("method");
            for method in METHODS {
                println!("| {method} | {} |", FACTORS.map(|factor| wilson(table[&(method, factor)], all)).join(" | "));
            }
        }
    }
}

/// Passages by the words that they share with a question, rare ones first.
struct Alike {
    words: Vec<HashSet<String>>,
    found_in: HashMap<String, usize>,
}

impl Alike {
    fn words(text: &str) -> HashSet<String> {
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    }

    fn new(bodies: &[(String, String)]) -> Self {
        let words: Vec<HashSet<String>> =
            bodies.iter().map(|(title, body)| Self::words(&format!("{title} {body}"))).collect();
        let mut found_in: HashMap<String, usize> = HashMap::new();
        words.iter().flatten().for_each(|word| *found_in.entry(word.clone()).or_default() += 1);
        Self { words, found_in }
    }

    fn order(&self, question: &str, bodies: &[(String, String)]) -> Vec<usize> {
        let asked = Self::words(question);
        let rarity = |word: &String| (bodies.len() as f64 / self.found_in.get(word).copied().unwrap_or(1) as f64).ln();
        // Each once: several questions have the same passage.
        let mut seen = HashSet::new();
        let each = (0..bodies.len()).filter(|index| seen.insert(&bodies[*index].1));
        let mut order: Vec<(f64, usize)> = each
            .map(|index| {
                let mut shared: Vec<f64> =
                    asked.iter().filter(|word| self.words[index].contains(*word)).map(rarity).collect();
                shared.sort_by(f64::total_cmp);
                (shared.iter().sum(), index)
            })
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, index)| index).collect()
    }
}

/// Key-value JSON: the exact value of the key that the question names.
fn values(rows: &[Value], is_in: &dyn Fn(usize) -> bool) {
    let mut table: HashMap<(&str, u64), usize> = HashMap::new();
    let (mut all, mut broken) = (0, 0);
    for (index, row) in rows.iter().enumerate().filter(|(index, _)| is_in(*index)) {
        all += 1;
        let pairs = row["ordered_kv_records"].as_array().into_iter().flatten();
        let pairs: Vec<String> = pairs.map(|pair| format!("{}: {}", pair[0], pair[1])).collect();
        let text = format!("{{{}}}", pairs.join(",\n "));
        let (key, value) = (row["key"].as_str().unwrap_or_default(), row["value"].as_str().unwrap_or_default());
        let question =
            format!("Extract the value corresponding to the specified key in the JSON object below. Key: \"{key}\"");
        let pieces = Pieces::new(&text);
        for factor in FACTORS {
            if let Some(extract) = extract(&text, &question, pieces.total / factor, &count) {
                let parsed: Option<Value> = serde_json::from_str(&extract.text).ok();
                broken += usize::from(parsed.is_none());
                let found = parsed.is_some_and(|object| object[key] == *value);
                *table.entry(("extract", factor)).or_default() += usize::from(found);
            }
            for method in &METHODS[1..] {
                let kept = kept(method, &text, &pieces, &question, pieces.total / factor, index as u64);
                let pair = format!("\"{key}\": \"{value}\"");
                let found = kept.iter().any(|range| text[range.clone()].contains(&pair));
                *table.entry((method, factor)).or_default() += usize::from(found);
            }
        }
    }
    println!(
        "\nKey-value JSON, {all} questions: the exact value is kept (95%, Wilson); {broken} extracts are no JSON\n"
    );
    heading("method");
    for method in METHODS {
        println!(
            "| {method} | {} |",
            FACTORS.map(|factor| wilson(table.get(&(method, factor)).copied().unwrap_or(0), all)).join(" | ")
        );
    }
}
