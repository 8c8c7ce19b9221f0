//! Base64 that no model reads: what a file in it weighs stays, the file goes. The one part of the room that loses
//! something; `Options::binary` turns it off.
//!
//! What may be a key, a signature, a digest or a cursor stays: the model may have to hand it on.

/// Characters; in a JSON string twice as many.
const LEAST: usize = 200;
const LEAST_IN_JSON: usize = 400;
/// Of what neither begins as a file does nor is called so. What has to be handed on is shorter.
const LEAST_UNKNOWN: usize = 1_000;
/// How wide a line of base64 is where it is broken: by MIME at most 76, by PEM 64, by others 60.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=76;
/// Keys and certificates (DER, PEM, ssh) and JSON, which is what tokens begin with.
const KEPT: [&str; 4] = ["MI", "LS0tLS1", "AAAAB3NzaC1", "eyJ"];
const KEPT_NAMES: [&str; 42] = [
    "key",
    "token",
    "secret",
    "sign",
    "sig",
    "cert",
    "hash",
    "digest",
    "hmac",
    "_mac",
    "cursor",
    "page",
    "next",
    "password",
    "credential",
    "auth",
    "bearer",
    "basic ",
    "nonce",
    "_id",
    "state",
    "continu",
    "crypt",
    "cipher",
    "wrapped",
    "thread",
    "session",
    "ticket",
    "handle",
    "saml",
    "csrf",
    "xsrf",
    "jwk",
    "jwt",
    "salt",
    "seed",
    "psk",
    "receipt",
    "proof",
    "assertion",
    "challenge",
    "voucher",
];
/// How files begin: PNG, JPEG, GIF, WebP and WAV, PDF, ZIP and what is one, gzip, TIFF, MP3, Ogg, fonts, SVG, programs.
const FILES: [&str; 17] = [
    "iVBORw0KGgo",
    "/9j/",
    "R0lGOD",
    "UklGR",
    "JVBERi",
    "UEsDB",
    "H4sI",
    "SUkq",
    "TU0A",
    "SUQz",
    "T2dnUw",
    "d09G",
    "PHN2Z",
    "PD94bWwg",
    "f0VMR",
    "AGFzbQ",
    "AAAAIGZ0eX",
];
/// Names of members that are files.
const FILE_NAMES: [&str; 16] = [
    "image",
    "picture",
    "photo",
    "thumb",
    "screenshot",
    "icon",
    "logo",
    "avatar",
    "file",
    "attachment",
    "base64",
    "b64",
    "bytes",
    "audio",
    "video",
    "pdf",
];

/// Of a member's string, without its quotation marks.
pub fn of_string(name: &str, text: &str) -> Option<String> {
    if text.len() < LEAST {
        return None;
    }
    if text.starts_with("data:") {
        let (end, mark) = data_uri(text)?;
        return (end == text.len()).then_some(mark);
    }
    let is_called = || {
        let name = name.to_ascii_lowercase();
        FILE_NAMES.iter().any(|file| name.contains(file))
    };
    let is_long = text.len() >= if is_called() { LEAST_IN_JSON } else { LEAST_UNKNOWN };
    let goes = begins_as_file(text) && text.len() >= LEAST_IN_JSON || is_long && !is_kept_name(name);
    (goes && is_base64(text)).then(|| mark(text))
}

fn begins_as_file(run: &str) -> bool {
    FILES.iter().any(|begin| run.starts_with(begin))
}

/// The line without its runs of base64; None: it has none.
pub fn without_runs(line: &str) -> Option<String> {
    if line.len() < LEAST {
        return None;
    }
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    let bytes = line.as_bytes();
    while let Some(byte) = bytes.get(at) {
        if !is_letter(*byte) {
            at += 1;
            continue;
        }
        let end = run_end(bytes, at);
        let start = at;
        at = end;
        if end - start < LEAST {
            continue;
        }
        let (before, run) = (line.get(..start).unwrap_or_default(), line.get(start..end).unwrap_or_default());
        let near = before.get(before.floor_char_boundary(before.len().saturating_sub(80))..).unwrap_or_default();
        // ";base64," belongs to the run; what is before "data:" does not.
        let uri =
            near.rfind("data:").filter(|_| near.ends_with(";base64,")).map(|offset| before.len() - near.len() + offset);
        let found = match uri {
            Some(uri) => line.get(uri..end).and_then(data_uri).map(|(length, mark)| (uri, uri + length, mark)),
            None if is_alone(before, line.get(end..).unwrap_or_default(), run) && is_base64(run) => {
                Some((start, end, mark(run)))
            }
            None => None,
        };
        if let Some((from, to, mark)) = found {
            out.push_str(line.get(copied..from).unwrap_or_default());
            out.push_str(&mark);
            copied = to;
        }
    }
    (copied > 0).then(|| out + line.get(copied..).unwrap_or_default())
}

/// How many lines from here on are one run, and what is written for it; None: it stays. `before` is the line above them.
pub fn block(lines: &[&str], before: Option<&str>) -> (usize, Option<String>) {
    let trim = |line: &str| line.trim_end_matches('\r').len();
    let Some(width) = lines.first().map(|line| trim(line)).filter(|width| WIDTHS.contains(width)) else {
        return (0, None);
    };
    let is_run = |line: &&str| {
        let run = line.trim_end_matches('\r');
        run.len() <= width && run_end(run.as_bytes(), 0) == run.len() && run.bytes().next().is_some_and(is_letter)
    };
    let full = lines.iter().take_while(|line| trim(line) == width && is_run(line)).count();
    let count = full + usize::from(lines.get(full).is_some_and(is_run));
    let is_named = before.is_some_and(|line| line.contains("-----BEGIN") || is_kept_name(line));
    let is_file = lines.first().is_some_and(|line| begins_as_file(line));
    if full * width < if is_file { LEAST } else { LEAST_UNKNOWN } || is_named && !is_file {
        return (count, None);
    }
    let whole: String = lines.iter().take(count).map(|line| line.trim_end_matches('\r')).collect();
    (count, is_base64(&whole).then(|| mark(&whole)))
}

fn mark(run: &str) -> String {
    format!("[base64, {} bytes]", size(run))
}

fn size(run: &str) -> usize {
    run.trim_end_matches('=').len() * 3 / 4
}

/// Where the URI ends, and what is written for it.
fn data_uri(text: &str) -> Option<(usize, String)> {
    let (head, data) = text.strip_prefix("data:")?.split_once(";base64,")?;
    let kind = head.split(';').next().unwrap_or_default();
    let length = run_end(data.as_bytes(), 0);
    if length < LEAST
        || head.len() > 80
        || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-.".contains(&byte))
    {
        return None;
    }
    let comma = if kind.is_empty() { "" } else { ", " };
    let mark = format!("[{kind}{comma}base64, {} bytes]", size(data.get(..length)?));
    Some((text.len() - data.len() + length, mark))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

fn run_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let letters = rest.iter().take_while(|byte| is_letter(**byte)).count();
    from + letters + rest.iter().skip(letters).take(2).take_while(|byte| **byte == b'=').count()
}

/// Not a part of something longer: a token's parts have dots between them, an address has its own signs.
fn is_alone(before: &str, after: &str, run: &str) -> bool {
    let joins = |character: char| ".-_=%&?@~".contains(character) || character.is_alphanumeric();
    let near = before.get(before.floor_char_boundary(before.len().saturating_sub(40))..).unwrap_or_default();
    let goes = begins_as_file(run) || run.len() >= LEAST_UNKNOWN && !is_kept_name(near);
    goes && !before.ends_with(joins) && !after.starts_with(joins)
}

fn is_kept_name(name: &str) -> bool {
    let name =
        name.get(name.floor_char_boundary(name.len().saturating_sub(80))..).unwrap_or_default().to_ascii_lowercase();
    KEPT_NAMES.iter().any(|kept| name.contains(kept))
}

/// Its letters are mixed as bytes mix them: no path, no digest, no sequence of one kind, no long word.
fn is_base64(run: &str) -> bool {
    let data = run.trim_end_matches('=');
    if run.len() - data.len() > 2 || KEPT.iter().any(|kept| data.starts_with(kept)) {
        return false;
    }
    let mut counts = [0_usize; 256];
    for byte in data.bytes() {
        if !is_letter(byte) {
            return false;
        }
        counts[usize::from(byte)] += 1;
    }
    let of = |range: std::ops::RangeInclusive<u8>| range.map(|byte| counts[usize::from(byte)]).sum::<usize>();
    let kinds = [of(b'A'..=b'Z') * 8, of(b'a'..=b'z') * 8, of(b'0'..=b'9') * 40];
    kinds.iter().all(|kind| *kind >= data.len()) && (of(b'/'..=b'/') + of(b'+'..=b'+')) * 8 <= data.len()
}
