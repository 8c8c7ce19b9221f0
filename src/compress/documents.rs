//! Which spans of a text are marked as documents. What shows such a mark, as code, is no document.

use super::code::{Fence, code_end};

/// Elements whose contents are documents, in the words of prompts that providers recommend.
const DOCUMENTS: [&str; 7] =
    ["document_content", "document", "documents", "context", "passage", "source", "search_result"];

/// Bytes of a tag whose attributes are looked at.
const LONGEST_TAG: usize = 1_000;

/// What stands within the elements that are documents; of elements in each other, within the innermost ones.
pub fn elements(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    let mut code = Code::default();
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('<')) {
        let start = at + next;
        at = start + 1;
        let Some(rest) = text.get(at..) else { break };
        let (closes, rest) = rest.strip_prefix('/').map_or((false, rest), |rest| (true, rest));
        let Some(name) = DOCUMENTS.iter().find(|name| {
            let behind = rest.strip_prefix(**name);
            behind.is_some_and(|behind| behind.starts_with('>') || (!closes && behind.starts_with(' ')))
        }) else {
            continue;
        };
        match (closes, open) {
            (true, Some((opened, from))) if opened == *name => {
                found.push(from..start);
                open = None;
                // A fence that a document leaves open is its own.
                code.skip_to(start);
            }
            (true, _) => {}
            (false, None) if code.is_at(text, start) => {}
            (false, _) => {
                let Some(end) = tag_end(rest) else { break };
                let from = text.len() - rest.len() + end + 1;
                open = Some((name, from));
                at = from;
            }
        }
    }
    found
}

/// Where a tag ends; a ">" between quotation marks, which are closed soon, does not end it.
fn tag_end(tag: &str) -> Option<usize> {
    let near = tag.get(..tag.floor_char_boundary(LONGEST_TAG)).unwrap_or(tag);
    let mut quote = None;
    let end = near.char_indices().find_map(|(at, letter)| {
        match quote {
            None if letter == '>' => return Some(at),
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            Some(mark) if mark == letter => quote = None,
            _ => {}
        }
        None
    });
    end.or_else(|| tag.find('>'))
}

/// Code around the documents, so far.
#[derive(Default)]
struct Code {
    fence: Fence,
    /// Where the line begins that is not yet known to be of a fence.
    line: usize,
    /// No line ends between there and here.
    looked_at: usize,
    /// The line is known up to here: where its last code between backticks ends.
    code_end: usize,
    /// Where the line ends, once it was asked for.
    line_end: Option<usize>,
}

impl Code {
    /// Whether what begins there is code: in a fence, or between backticks.
    fn is_at(&mut self, text: &str, start: usize) -> bool {
        while let Some(found) = text.get(self.looked_at..start).and_then(|before| before.find('\n')) {
            let end = self.looked_at + found;
            self.fence.takes(text.get(self.line..end).unwrap_or_default());
            self.skip_to(end + 1);
        }
        self.looked_at = start;
        while let Some(found) = text.get(self.code_end..start).and_then(|before| before.find('`')) {
            let begin = self.code_end + found;
            let of_text = || text.get(begin..).and_then(|rest| rest.find('\n')).map_or(text.len(), |end| begin + end);
            let end = *self.line_end.get_or_insert_with(of_text);
            self.code_end = begin + code_end(text.as_bytes().get(begin..end).unwrap_or_default(), 0);
        }
        self.fence.is_open() || start < self.code_end
    }

    fn skip_to(&mut self, at: usize) {
        (self.line, self.looked_at, self.code_end, self.line_end) = (at, at, at, None);
    }
}
