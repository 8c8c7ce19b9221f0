//! JSON strings: the same value with fewer escapes. What stands between the quotation marks, never the marks.

use std::borrow::Cow;

/// Characters are written as themselves, unless nobody would see them. A half of a pair stays: it is no character.
pub fn plain(raw: &str) -> Cow<'_, str> {
    if !raw.contains("\\u") && !raw.contains("\\/") {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        let (written, length) = match escape.as_bytes().first() {
            Some(b'/') => (Some('/'), 1),
            Some(b'u') => unicode(escape),
            _ => (None, 1),
        };
        match written {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(character) if is_seen(character) => out.push(character),
            _ => {
                out.push('\\');
                out.push_str(escape.get(..length).unwrap_or(escape));
            }
        }
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character of `uXXXX`, or of a pair, and the length of the escape behind its first backslash.
fn unicode(escape: &str) -> (Option<char>, usize) {
    let unit = |at: usize| escape.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(1) else { return (None, 1) };
    if !(0xD800..0xDC00).contains(&first) {
        return (char::from_u32(first), 5);
    }
    match unit(7) {
        Some(second @ 0xDC00..0xE000) if escape.get(5..7) == Some("\\u") => {
            (char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)), 11)
        }
        _ => (None, 5),
    }
}

/// Not: controls, line separators, marks of direction and of no width, private use, what is no character.
fn is_seen(character: char) -> bool {
    !(character.is_control()
        || matches!(u32::from(character),
            0xAD | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xE000..=0xF8FF | 0xFDD0..=0xFDEF
            | 0xFE00..=0xFE0F | 0xFEFF | 0xFFF0..=0xFFFB | 0xFFFE..=0xFFFF | 0xE0000..))
}
