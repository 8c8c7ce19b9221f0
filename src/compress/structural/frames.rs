//! Stack traces: many frames of libraries in a row become one line. The first and the last of them stay, one of which is
//! where the application called and the other where it failed; so do the application's own and the message.

/// Frames for whose middle a line is written.
const LEAST: usize = 4;
/// No frame is longer.
const MOST_LENGTH: usize = 1_000;

const PYTHON: [&str; 5] = ["site-packages", "dist-packages", "/lib/python", "\\Lib\\", "<frozen "];
const JAVA: [&str; 26] = [
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "com.sun.",
    "jakarta.",
    "kotlin.",
    "kotlinx.",
    "scala.",
    "akka.",
    "reactor.",
    "io.netty.",
    "io.reactivex.",
    "org.apache.",
    "org.springframework.",
    "org.hibernate.",
    "org.eclipse.",
    "org.junit.",
    "org.jboss.",
    "org.gradle.",
    "com.fasterxml.",
    "com.google.common.",
    "com.zaxxer.",
    "android.",
    "androidx.",
    "clojure.",
];
const PLACELESS: [&str; 3] = ["(Native Method)", "(Unknown Source)", "(<anonymous>)"];
const GO: [&str; 5] = ["/pkg/mod/", "/go/src/runtime/", "/go/src/net/", "/usr/local/go/", "/vendor/"];
const RUST_PATHS: [&str; 3] = ["/rustc/", ".cargo/registry/", ".rustup/"];
const RUST_NAMES: [&str; 14] = [
    "std::", "core::", "alloc::", "tokio::", "hyper::", "futures_", "rust_", "__libc_", "_start", "<alloc::",
    "<core::", "<std::", "<tokio::", "clone3",
];

/// A frame at the beginning of some lines.
struct Frame {
    lines: usize,
    is_library: bool,
}

/// Whether a frame begins with this line; what is before and after a frame is a message, and stays as it is.
pub fn begins(lines: &[&str]) -> bool {
    frame(lines).is_some()
}

/// Frames in a row.
pub struct Run {
    pub lines: usize,
    /// Lines that stay at the beginning and at the end of it, and how many frames are between them.
    pub middle: Option<(usize, usize, usize)>,
}

/// The frames that begin here: those of the application one by one, those of libraries as long as they go on.
pub fn run(lines: &[&str]) -> Option<Run> {
    let first = frame(lines)?;
    let (mut end, mut count, mut last) = (first.lines, 1, first.lines);
    while first.is_library
        && let Some(next) = lines.get(end..).and_then(frame).filter(|next| next.is_library)
    {
        end += next.lines;
        last = next.lines;
        count += 1;
    }
    Some(Run { lines: end, middle: (count >= LEAST).then(|| (first.lines, last, count - 2)) })
}

fn frame(lines: &[&str]) -> Option<Frame> {
    let line = lines.first().filter(|line| line.len() <= MOST_LENGTH)?;
    let trimmed = line.trim();
    let rest = lines.get(1..).unwrap_or_default();
    match trimmed.as_bytes() {
        [b'F', b'i', b'l', b'e', b' ', b'"', ..] => python(trimmed, rest),
        [b'a', b't', b' ', ..] => call(trimmed.get(3..)?),
        [b'0'..=b'9', ..] => rust(trimmed, rest),
        _ => go(line, rest),
    }
}

fn python(trimmed: &str, rest: &[&str]) -> Option<Frame> {
    let path = trimmed.get(6..)?.split('"').next()?;
    if !trimmed.contains(", line ") {
        return None;
    }
    let is_code = |line: &&&str| line.starts_with("    ") && !line.trim_start().starts_with("File \"");
    let code = rest.iter().take_while(is_code).count();
    Some(Frame { lines: 1 + code, is_library: PYTHON.iter().any(|part| path.contains(part)) })
}

/// Java and JavaScript: `name(Some.java:12)`, `name (/path/some.js:1:2)`, `/path/some.js:1:2`.
fn call(text: &str) -> Option<Frame> {
    let place = text.strip_suffix(')').unwrap_or(text);
    let is_place = place.rsplit(':').next()?.bytes().all(|byte| byte.is_ascii_digit()) && place.contains(':');
    if !(is_place || PLACELESS.iter().any(|end| text.ends_with(end))) {
        return None;
    }
    // "java.base/java.lang.Thread.run", "app//org.junit.Test".
    let name = text.split('(').next().unwrap_or_default();
    let class = name.rsplit('/').next().unwrap_or(name);
    let is_java = !text.contains(" (") && JAVA.iter().any(|part| class.starts_with(part));
    let is_node = text.contains("node_modules")
        || text.contains("node:")
        || text.contains("(internal/")
        || text.ends_with("(<anonymous>)");
    Some(Frame { lines: 1, is_library: is_java || is_node })
}

/// `12: tokio::runtime::run`, and perhaps `at /rustc/1a2b/library/core.rs:1:2` below it.
fn rust(trimmed: &str, rest: &[&str]) -> Option<Frame> {
    let (number, name) = trimmed.split_once(": ")?;
    if number.len() > 4
        || !number.bytes().all(|byte| byte.is_ascii_digit())
        || name.contains(' ') && !name.starts_with('<')
    {
        return None;
    }
    let place = rest.first().filter(|line| line.len() <= MOST_LENGTH).and_then(|line| line.trim().strip_prefix("at "));
    let place = place.filter(|place| place.contains(".rs:"));
    if place.is_none() && !name.contains("::") && !name.starts_with('_') {
        return None;
    }
    let name = name.split_once(" - ").map_or(name, |(_, name)| name);
    let is_library = RUST_NAMES.iter().any(|part| name.starts_with(part))
        || place.is_some_and(|place| RUST_PATHS.iter().any(|part| place.contains(part)));
    Some(Frame { lines: 1 + usize::from(place.is_some()), is_library })
}

/// `main.run(0x1, 0x2)` and, below it, a tab and `/path/some.go:12 +0x1d`.
fn go(line: &str, rest: &[&str]) -> Option<Frame> {
    let place =
        rest.first().filter(|place| place.starts_with('\t') && place.len() <= MOST_LENGTH && place.contains(".go:"))?;
    let is_call = line.ends_with(')') || line.starts_with("created by ");
    is_call.then(|| Frame { lines: 2, is_library: GO.iter().any(|part| place.contains(part)) })
}
