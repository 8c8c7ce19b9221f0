//! What it takes to pack and to split 1,000 questions, in packs of 10 and in one of 1,000: the least of many rounds.
//!
//! `cargo run --release --example packing`

use std::hint::black_box;
use std::time::Instant;

use farthing::batch::{Format, Shape, pack};

const QUESTION: &str = "Which of these departments should answer this letter: sales, support, billing? \"I have paid twice for \
                        the same order (No. 4711), and nobody answers the phone. Please send one of them back.\"";
const ANSWER: &str = "Billing: the customer was charged twice,\nand \"wants\" one payment back.";

fn main() {
    let questions: Vec<String> = (0..1_000).map(|number| format!("{QUESTION} Letter {number}.")).collect();
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    for format in [Format::Json, Format::Lines] {
        for size in [10, 1_000] {
            let packs: Vec<_> = questions.chunks(size).map(|chunk| pack(chunk, format, &Shape::Text)).collect();
            let texts: Vec<String> = packs.iter().map(|pack| pack.merge(&vec![ANSWER; pack.ids.len()])).collect();
            let packing = least(|| {
                for chunk in questions.chunks(size) {
                    black_box(pack(black_box(chunk), format, &Shape::Text));
                }
            });
            let splitting = least(|| {
                for (pack, text) in packs.iter().zip(&texts) {
                    black_box(pack.split(black_box(text), false));
                }
            });
            println!("{format:?}, packs of {size:>5}: pack {packing:>7.0} us, split {splitting:>7.0} us");
        }
    }
}

fn least(mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..200).map(time).fold(f64::INFINITY, f64::min)
}
