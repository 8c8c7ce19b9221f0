//! Blocks of lines that a program reads as they are, outside of any fence: here-documents, block scalars of YAML, strings
//! between three quotation marks. Only what is closed is one; a block scalar ends where its indentation does.

use std::collections::HashMap;

/// Of a string that goes on over lines.
const TRIPLES: [&str; 2] = ["\"\"\"", "'''"];
/// No word that ends a here-document is longer.
const LONGEST_WORD: usize = 40;

pub struct Blocks<'a> {
    lines: &'a [&'a str],
    /// Lines that may end a block, by the word that it ends with. Empty where nothing has such an end, as most texts.
    ends: HashMap<&'a str, Ends>,
}

/// Lines, in their order.
#[derive(Default)]
struct Ends {
    all: Vec<usize>,
    /// Without blanks before the word.
    alone: Vec<usize>,
}

impl<'a> Blocks<'a> {
    /// `text`: the lines as one.
    pub fn new(text: &str, lines: &'a [&'a str]) -> Self {
        let has_documents = text.contains("<<");
        let triples = TRIPLES.map(|triple| text.contains(triple).then_some(triple));
        let mut ends: HashMap<&'a str, Ends> = HashMap::new();
        if has_documents || triples.iter().any(Option::is_some) {
            let mut add = |word: &'a str, line: &str, at: usize| {
                let ends = ends.entry(word).or_default();
                ends.all.push(at);
                if line.starts_with(word) {
                    ends.alone.push(at);
                }
            };
            for (at, line) in lines.iter().enumerate() {
                let word = line.trim();
                if has_documents && word.len() <= LONGEST_WORD {
                    add(word, line, at);
                    // PHP's may have something behind it.
                    let alone = word.trim_end_matches([';', ',', ')']);
                    if alone.len() < word.len() {
                        add(alone, line, at);
                    }
                }
                for triple in triples.into_iter().flatten().filter(|triple| line.contains(triple)) {
                    add(triple, line, at);
                }
            }
        }
        Self { lines, ends }
    }

    /// Behind the last line of the block that this line begins; None: it begins none.
    pub fn end(&self, at: usize) -> Option<usize> {
        let line = *self.lines.get(at)?;
        if let Some(end) = self.marked_end(line, at) {
            return Some(end + 1);
        }
        if !is_scalar(line) {
            return None;
        }
        let base = indentation(line);
        let rest = self.lines.get(at + 1..).unwrap_or_default();
        let is_of_it = |line: &&&str| line.trim().is_empty() || indentation(line) > base;
        let count = rest.iter().take_while(is_of_it).count();
        // Blank lines behind it are rather the text's.
        let blank = rest.get(..count)?.iter().rev().take_while(|line| line.trim().is_empty()).count();
        let count = if keeps_end(line) { count } else { count - blank };
        (count > blank).then_some(at + 1 + count)
    }

    /// The line that has the word, or the quotation marks, that this line says the block ends with.
    fn marked_end(&self, line: &str, at: usize) -> Option<usize> {
        if self.ends.is_empty() {
            return None;
        }
        // The second of one line begins where the first ends.
        let mut end = None;
        for word in here_documents(line) {
            let from = end.unwrap_or(at);
            // Indented as the rest of the block may be, if no line has it alone.
            end = self.next(word, from, true).or_else(|| self.next(word, from, false)).or(end);
        }
        end.or_else(|| open_triple(line).and_then(|triple| self.next(triple, at, false)))
    }

    /// The next line that may end a block with this word; `is_alone`: without blanks before it.
    fn next(&self, word: &str, at: usize, is_alone: bool) -> Option<usize> {
        let ends = self.ends.get(word)?;
        let lines = if is_alone { &ends.alone } else { &ends.all };
        lines.get(lines.partition_point(|end| *end <= at)).copied()
    }
}

/// The words that end the here-documents of a line: `<<EOF`, `<<-'EOF'`, `<<~EOF`, `<< "END OF FILE"`, PHP's `<<<EOT`.
fn here_documents(line: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    let mut is_spoken_of = false;
    std::iter::from_fn(move || {
        loop {
            let start = at + line.get(at..)?.find("<<")?;
            is_spoken_of ^= opens_code(line.get(at..start)?);
            let rest = line.get(start..)?.trim_start_matches('<');
            at = line.len() - rest.len();
            // "<<<<<<< HEAD" is what a merge left.
            if at - start > 3 || is_spoken_of {
                continue;
            }
            let rest = rest.strip_prefix(['-', '~']).unwrap_or(rest).trim_start_matches(' ');
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
            let word = match quote {
                Some(quote) => rest.get(1..)?.split(quote).next()?,
                None => {
                    let rest = rest.strip_prefix('\\').unwrap_or(rest);
                    rest.split(|c: char| c.is_whitespace() || "=;|&<>()\"'`$".contains(c)).next()?
                }
            };
            if !word.is_empty() && word.len() <= LONGEST_WORD && !word.starts_with(|c: char| c.is_ascii_digit()) {
                return Some(word);
            }
        }
    })
}

/// The quotation marks that a line leaves open.
fn open_triple(line: &str) -> Option<&'static str> {
    let mut at = 0;
    let mut next = TRIPLES.map(|triple| line.find(triple));
    loop {
        for (place, triple) in next.iter_mut().zip(TRIPLES) {
            if place.is_some_and(|place| place < at) {
                *place = line.get(at..)?.find(triple).map(|found| at + found);
            }
        }
        let (start, triple) = next.iter().zip(TRIPLES).filter_map(|(place, triple)| Some(((*place)?, triple))).min()?;
        match line.get(start + triple.len()..)?.find(triple) {
            Some(length) => at = start + length + 2 * triple.len(),
            None => return (!opens_code(line.get(..start)?)).then_some(triple),
        }
    }
}

/// Whether what follows stands between backticks.
fn opens_code(before: &str) -> bool {
    before.bytes().filter(|byte| *byte == b'`').count() % 2 == 1
}

/// `key: |`, `- >-`, `key: !!str |2`, `--- |`, and perhaps a comment.
fn is_scalar(line: &str) -> bool {
    let Some((before, _)) = header(line) else { return false };
    let before = before.trim_end_matches(' ');
    // Something stands between the two: a tag, an anchor.
    let before =
        before.rsplit_once(' ').filter(|(_, word)| word.starts_with(['!', '&'])).map_or(before, |(key, _)| key);
    before.trim_end().ends_with(':') || matches!(before.trim(), "-" | "---")
}

/// Whether the empty lines at its end are part of it.
fn keeps_end(line: &str) -> bool {
    header(line).is_some_and(|(_, signs)| signs.contains('+'))
}

/// What is before the `|` or `>` that a line ends with, and the signs behind that.
fn header(line: &str) -> Option<(&str, &str)> {
    let line = match line.as_bytes().contains(&b'#') {
        true => line.split_once(" #").map_or(line, |(line, _)| line).trim_end(),
        false => line.trim_end(),
    };
    let start = line.trim_end_matches(['+', '-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let signs = line.get(start.len()..).filter(|signs| signs.len() <= 2)?;
    let before = start.strip_suffix(['|', '>'])?;
    before.ends_with(' ').then_some((before, signs))
}

fn indentation(line: &str) -> usize {
    line.bytes().take_while(|byte| *byte == b' ').count()
}
