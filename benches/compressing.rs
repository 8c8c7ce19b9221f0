//! What structural compression costs and gains: the least of several rounds, for texts of 40 KB and of 2 MB of each kind.
//!
//! `cargo run --release --example compressing`

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use farthing::compress::structural::{Seen, compress};

/// A text of at least so many bytes, out of numbered pieces.
fn made(bytes: usize, begin: &str, end: &str, piece: impl Fn(&mut String, usize)) -> String {
    let mut text = String::from(begin);
    let mut number = 0;
    while text.len() + end.len() < bytes {
        piece(&mut text, number);
        number += 1;
    }
    text + end
}

fn json(text: &mut String, number: usize) {
    let comma = if number > 0 { "," } else { "" };
    let _ = write!(
        text,
        "{comma}\n  {{\n    \"id\": {number},\n    \"name\": \"Flight HAT{number:03}\",\n    \"seats\": {{\"economy\": {}, \
         \"business\": {}}},\n    \"price\": {}.50,\n    \"note\": \"caf\\u00e9 \\\"{number}\\\"\"\n  }}",
        number % 20,
        number % 7,
        number % 400
    );
}

fn objects(text: &mut String, number: usize) {
    let comma = if number > 0 { ", " } else { "" };
    let _ =
        write!(text, "{comma}{{\"id\": {number}, \"key{number}\": [1, 2.5e3, null], \"text\": \"word after word\"}}");
}

fn page(text: &mut String, number: usize) {
    let _ = write!(
        text,
        "<div class=\"card card--wide\" id=\"c{number}\">\n  <h2>Part {number} &amp; more</h2>\n  <p style=\"color: #333\">Some \
         <b>bold</b> text, a <a href=\"https://example.com/{number}?a=1&amp;b=2\" target=\"_blank\">link</a> and \
         &lt;nothing&gt; else to say.</p>\n  <ul><li>One</li><li>Two</li></ul>\n  <table><tr><td>a</td><td>{number}</td></tr>\
         </table>\n  <script>track({number});</script>\n</div>\n"
    );
}

fn prose(text: &mut String, number: usize) {
    let _ = write!(
        text,
        "Paragraph {number} says what has to be said.  It costs {number} euros, which is “not  much”,   and has `code  in it` as \
         well as trailing blanks.   \nSecond line of the same paragraph - with a dash and some more words in it.\n\n\n"
    );
}

fn log(text: &mut String, number: usize) {
    let level = ["INFO ", "WARN ", "DEBUG"][number % 3];
    let line = format!("2026-05-01T12:00:{:02} {level}   worker-{} took {number} ms\n", number % 60, number % 8);
    for _ in 0..1 + number % 3 {
        text.push_str(&line);
    }
    if number.is_multiple_of(10) {
        text.push_str("Traceback (most recent call last):\n  File \"/app/main.py\", line 3, in run\n    go()\n");
        for frame in 0..8 {
            let _ = writeln!(
                text,
                "  File \"/usr/lib/python3.12/site-packages/lib/a{frame}.py\", line 7, in call\n    return f(x)"
            );
        }
        text.push_str("ValueError: bad  value\n\n");
    }
}

fn base64(text: &mut String, number: usize) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let _ = write!(text, "Picture {number}: ");
    let mut state = number as u64 + 1;
    for _ in 0..2_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(LETTERS[(state >> 58) as usize] as char);
    }
    text.push_str("==\n");
}

type Kind = (&'static str, &'static str, &'static str, fn(&mut String, usize));

fn main() {
    let kinds: [Kind; 7] = [
        ("JSON, equal objects", "[", "\n]\n", json),
        ("JSON, others", "[", "]", objects),
        ("JSON lines", "", "", |text, number| {
            let _ =
                writeln!(text, "{{\"time\": {number}, \"level\": \"info\", \"message\": \"took {} ms\"}}", number % 99);
        }),
        ("HTML", "<!doctype html><html><head><title>T</title></head><body>\n", "</body></html>\n", page),
        ("prose", "", "", prose),
        ("logs", "", "", log),
        ("base64", "", "", base64),
    ];
    for (name, begin, end, piece) in kinds {
        for bytes in [40_000, 2_000_000] {
            report(name, &made(bytes, begin, end, piece), 4_000_000 / bytes, compress);
        }
    }
    let text = made(2_000_000, "", "", prose);
    report("seen twice", &text, 2, |text| {
        let mut seen = Seen::default();
        seen.compress(text);
        seen.compress(text)
    });
}

fn report(name: &str, text: &str, rounds: usize, work: impl Fn(&str) -> Option<String>) {
    let after = work(text).map_or(text.len(), |shorter| shorter.len());
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(work(black_box(text)));
        }
        least = least.min(start.elapsed().as_secs_f64() / rounds as f64);
    }
    let speed = text.len() as f64 / 1e6 / least;
    println!("{name:<20} {:>9} -> {after:>9} bytes: {:>9.3} ms, {speed:>6.0} MB/s", text.len(), least * 1e3);
}
