//! What a page shows, as text: headings, lists, tables, links with their addresses, code in fences, the values of forms.
//!
//! Only for what is HTML beyond doubt. Marks in a prompt (`<document>`), XML, templates and programs that have HTML in them
//! are others' syntax. A parser after the standard (html5ever, and html2text on it) builds a tree, which costs ten times the
//! time and thirty crates; what a page shows needs no tree. The entities are html-escape's.

mod cells;
mod scan;
mod write;

use scan::{Scanner, Token};

use super::inline::INVISIBLE;

/// Of a fragment, which says less of itself than a page.
const LEAST_TAGS: usize = 6;
/// One tag in so many bytes.
const RAREST: usize = 600;
/// Tags that pages have and prompts hardly have.
const USUAL: [&str; 37] = [
    "a", "b", "body", "br", "button", "code", "dd", "div", "dl", "dt", "em", "form", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "i", "img", "input", "label", "li", "link", "meta", "ol", "p", "pre", "span", "strong", "table", "td",
    "th", "tr", "ul", "small",
];
const OTHERS: [&str; 45] = [
    "abbr",
    "article",
    "aside",
    "audio",
    "blockquote",
    "caption",
    "center",
    "cite",
    "col",
    "colgroup",
    "del",
    "details",
    "dfn",
    "fieldset",
    "figcaption",
    "figure",
    "font",
    "footer",
    "head",
    "header",
    "html",
    "iframe",
    "ins",
    "kbd",
    "legend",
    "main",
    "mark",
    "nav",
    "noscript",
    "option",
    "picture",
    "q",
    "s",
    "samp",
    "section",
    "select",
    "source",
    "sub",
    "summary",
    "sup",
    "tbody",
    "textarea",
    "tfoot",
    "thead",
    "title",
];

/// The text of a page or of a piece of one; None: it is neither.
pub fn read(text: &str) -> Option<String> {
    is_html(text).then(|| write::write(text))
}

pub fn is_html(text: &str) -> bool {
    let start = text.trim_start_matches(|c: char| c.is_whitespace() || INVISIBLE.contains(&c));
    if !start.starts_with('<') {
        return false;
    }
    let is_page = is_page(start);
    if !is_page && start.contains("className=") {
        return false;
    }
    let (mut usual, mut other, mut unknown, mut closed) = (0_usize, 0_usize, 0_usize, 0_usize);
    for token in Scanner::new(start) {
        match token {
            // Of a template or a program.
            Token::Text(text) if text.contains("{%") || text.contains("<%") || !is_page && text.contains("```") => {
                return false;
            }
            Token::Open(tag) => {
                let is_known = |names: &[&str]| names.iter().any(|name| tag.name.eq_ignore_ascii_case(name));
                if is_known(&USUAL) {
                    usual += 1;
                } else if is_known(&OTHERS) {
                    other += 1;
                } else {
                    unknown += 1;
                }
            }
            Token::Close(_) => closed += 1,
            _ => {}
        }
        // It is told by its beginning.
        if usual > 2_000 {
            break;
        }
    }
    if start.contains("<?php") {
        return false;
    }
    let known = usual + other;
    if is_page {
        return known > 0;
    }
    usual >= LEAST_TAGS
        && closed > 0
        && unknown * 10 <= known
        && (known.saturating_mul(RAREST) >= start.len() || usual > 2_000)
}

/// It says that it is one, perhaps behind comments.
fn is_page(start: &str) -> bool {
    let mut rest = start;
    loop {
        let begins = |word: &str| rest.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        if begins("<!doctype html") {
            return true;
        }
        if begins("<html") {
            return rest.as_bytes().get(5).is_some_and(|byte| *byte == b'>' || byte.is_ascii_whitespace());
        }
        let end = if rest.starts_with("<!--") {
            "-->"
        } else if rest.starts_with("<?xml") {
            "?>"
        } else {
            return false;
        };
        match rest.split_once(end) {
            Some((_, behind)) => rest = behind.trim_start(),
            None => return false,
        }
    }
}
