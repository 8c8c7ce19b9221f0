//! The members of a JSON object or list, also of one that breaks off.
//!
//! A parser would give all or nothing, and one value for a name that comes twice. Here each member is kept as its text; a
//! member is complete only if what comes after it can come after a value, since an answer with a quotation mark in it that
//! is not escaped looks like an answer that ends.

/// Bytes of a number.
const MOST_SCALAR: usize = 1_000;

/// A name and the value's text, both as they stand. A value of None is one that breaks off, or that is none.
#[derive(Debug)]
pub struct Member<'a> {
    /// None: it is a list's.
    pub name: Option<&'a str>,
    pub value: Option<&'a str>,
    /// Where the value begins.
    pub at: usize,
}

#[derive(Debug)]
pub struct Container<'a> {
    pub is_object: bool,
    pub members: Vec<Member<'a>>,
    /// Behind its last bracket; None = it breaks off, or what follows is no JSON.
    pub end: Option<usize>,
}

/// The object or list that begins at `start`.
pub fn container(text: &str, start: usize) -> Container<'_> {
    let bytes = text.as_bytes();
    let is_object = bytes.get(start) == Some(&b'{');
    let close = if is_object { b'}' } else { b']' };
    let mut members: Vec<Member> = Vec::new();
    let mut at = blank(bytes, start + 1);
    let end = loop {
        match bytes.get(at) {
            // Also behind a comma: some models write one too many.
            Some(byte) if *byte == close => break Some(at + 1),
            None => break None,
            _ => {}
        }
        let mut name = None;
        if is_object {
            name = string(bytes, at).and_then(|end| text.get(at..end));
            let Some(found) = name else {
                // The value before it was taken to end at a comma, and that was within it.
                if bytes.get(at) != Some(&b'"')
                    && let Some(last) = members.last_mut()
                {
                    last.value = None;
                }
                break None;
            };
            at = blank(bytes, at + found.len());
            if bytes.get(at) != Some(&b':') {
                members.push(Member { name, value: None, at });
                break None;
            }
            at = blank(bytes, at + 1);
        }
        let Some(behind) = value(text, at) else {
            // What does not even begin as a value makes no list.
            if is_object || bytes.get(at).is_some_and(|byte| b"\"{[".contains(byte)) {
                members.push(Member { name, value: None, at });
            }
            break None;
        };
        let next = blank(bytes, behind);
        let is_whole = bytes.get(next).is_none_or(|byte| *byte == b',' || *byte == close);
        members.push(Member { name, value: text.get(at..behind).filter(|_| is_whole), at });
        if !is_whole {
            break None;
        }
        at = next;
        if bytes.get(at) == Some(&b',') {
            at = blank(bytes, at + 1);
        }
    };
    Container { is_object, members, end }
}

fn blank(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Behind the string that begins here.
fn string(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins here; of a list or an object only the brackets are looked at.
fn value(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(start)? {
        b'"' => string(bytes, start),
        b'{' | b'[' => nested(bytes, start),
        _ => {
            let rest = bytes.get(start..)?;
            // At the end of the text there may be more of it.
            let length = rest
                .get(..MOST_SCALAR)
                .unwrap_or(rest)
                .iter()
                .position(|byte| b",]}".contains(byte) || byte.is_ascii_whitespace())?;
            let scalar = text.get(start..start + length)?;
            serde_json::from_str::<serde::de::IgnoredAny>(scalar).ok().map(|_| start + length)
        }
    }
}

fn nested(bytes: &[u8], start: usize) -> Option<usize> {
    let mut open = Vec::new();
    let mut at = start;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string(bytes, at)?;
                continue;
            }
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            byte @ (b'}' | b']') => {
                if open.pop() != Some(*byte) {
                    return None;
                }
                if open.is_empty() {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}
