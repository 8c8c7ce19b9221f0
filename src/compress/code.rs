//! Code as Markdown marks it: between fences, line by line, and between backticks within a line.

/// Whether code between fences is open.
#[derive(Default)]
pub struct Fence {
    /// The sign of the line that opened it, and how often it stands there.
    open: Option<(u8, usize)>,
}

impl Fence {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the next line is of a fence, or in it.
    pub fn takes(&mut self, line: &str) -> bool {
        let trimmed = line.trim_start_matches([' ', '\t']);
        let ticks = ticks(trimmed);
        if let Some((mark, length)) = self.open {
            if let Some((found, count)) = ticks
                && found == mark
                && count >= length
                && trimmed.bytes().skip(count).all(|byte| byte.is_ascii_whitespace())
            {
                self.open = None;
            }
            return true;
        }
        if let Some((mark, count)) = ticks
            // Inline code, and the marks that Python sets below a line of a stack trace.
            && !trimmed.bytes().skip(count).any(|byte| byte == if mark == b'`' { b'`' } else { b'^' })
        {
            self.open = Some((mark, count));
            return true;
        }
        false
    }
}

fn ticks(trimmed: &str) -> Option<(u8, usize)> {
    let mark = *trimmed.as_bytes().first().filter(|byte| matches!(byte, b'`' | b'~'))?;
    let count = trimmed.bytes().take_while(|byte| *byte == mark).count();
    (count >= 3).then_some((mark, count))
}

/// Behind the code that begins here; to the end of the line if it does not end in it.
pub fn code_end(bytes: &[u8], start: usize) -> usize {
    let ticks = |at: usize| bytes.iter().skip(at).take_while(|byte| **byte == b'`').count();
    let opening = ticks(start);
    let mut at = start + opening;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'`')) {
        let closing = ticks(at + offset);
        at += offset + closing;
        if closing == opening {
            return at;
        }
    }
    bytes.len()
}
