//! The tokens of a page as text. It goes through the page once and keeps little: no tag has to be closed.

use html_escape::decode_html_entities;

use super::cells::Cells;
use super::scan::{Scanner, Tag, Token};

/// Lists in lists and quotations in quotations; deeper ones look like these.
const MOST_DEPTH: usize = 6;
const BLOCKS: [&str; 24] = [
    "address",
    "article",
    "aside",
    "body",
    "caption",
    "center",
    "details",
    "div",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "head",
    "header",
    "html",
    "legend",
    "main",
    "nav",
    "section",
    "summary",
    "dd",
    "title",
];
/// With an empty line around them.
const PARAGRAPHS: [&str; 5] = ["p", "dl", "table", "ul", "ol"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Blank,
    Line,
    Empty,
}

/// Text that is kept as it stands, until its tag is closed.
struct Code {
    text: String,
    is_block: bool,
}

struct Writer<'a> {
    out: String,
    /// What has to be written before the next word.
    gap: Gap,
    /// Of each list, the number of its next item; None: it has none.
    lists: Vec<Option<u64>>,
    quotes: usize,
    cells: Cells,
    link: Option<(&'a str, usize)>,
    /// Where the last address ends: a word does not follow without a blank.
    link_end: usize,
    code: Option<Code>,
}

pub fn write(page: &str) -> String {
    let mut writer = Writer {
        out: String::with_capacity(page.len() / 2),
        gap: Gap::None,
        lists: Vec::new(),
        quotes: 0,
        cells: Cells::default(),
        link: None,
        link_end: 0,
        code: None,
    };
    for token in Scanner::new(page) {
        match token {
            Token::Text(text) => writer.text(text),
            Token::Open(tag) => writer.open(tag),
            Token::Close(name) => writer.close(name),
            Token::Dropped => {}
        }
    }
    writer.end_code();
    writer.end_link();
    writer.out
}

impl<'a> Writer<'a> {
    fn wants(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    /// A block's edge: within a cell of a table it may not end the line.
    fn edge(&mut self, gap: Gap) {
        if self.code.as_ref().is_some_and(|code| !code.is_block) {
            self.end_code();
        }
        self.wants(if self.cells.is_in_row() { Gap::Blank } else { gap });
    }

    /// Before a word, which may have no blanks around it.
    fn begin(&mut self) {
        let gap = std::mem::replace(&mut self.gap, Gap::None);
        let is_first = self.out.is_empty();
        match gap {
            Gap::Blank if !is_first && !self.out.ends_with([' ', '\n']) => self.out.push(' '),
            Gap::Line if !is_first => self.out.push('\n'),
            Gap::Empty if !is_first => self.out.push_str("\n\n"),
            Gap::None | Gap::Blank | Gap::Line | Gap::Empty => {}
        }
        if self.quotes > 0 && (is_first || gap >= Gap::Line) {
            self.out.push_str("> ");
        }
    }

    fn put(&mut self, words: &str) {
        self.begin();
        self.out.push_str(words);
    }

    fn text(&mut self, raw: &str) {
        let text = decode_html_entities(raw);
        if let Some(code) = &mut self.code {
            // A browser leaves out the line break behind the tag.
            let skips = code.is_block && code.text.is_empty();
            code.text.push_str(if skips { text.strip_prefix('\n').unwrap_or(&text) } else { &text });
            return;
        }
        let is_blank = |c: char| matches!(c, ' ' | '\n' | '\t' | '\r' | '\u{C}' | '\u{A0}');
        let mut rest = &*text;
        loop {
            let word = rest.trim_start_matches(is_blank);
            if word.len() < rest.len() {
                self.wants(Gap::Blank);
            }
            if word.is_empty() {
                return;
            }
            let end = word.find(is_blank).unwrap_or(word.len());
            let (now, next) = word.split_at(end);
            if self.link_end == self.out.len() && now.starts_with(char::is_alphanumeric) {
                self.wants(Gap::Blank);
            }
            self.put(now);
            rest = next;
        }
    }

    fn open(&mut self, tag: Tag<'a>) {
        let name = tag.name.to_ascii_lowercase();
        match name.as_str() {
            "br" => match &mut self.code {
                Some(code) => code.text.push('\n'),
                None => self.edge(Gap::Line),
            },
            "hr" => {
                self.edge(Gap::Line);
                self.put("---");
                self.edge(Gap::Line);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.cells.leave();
                self.edge(Gap::Empty);
                let level = name.as_bytes().get(1).map_or(1, |digit| usize::from(digit - b'0'));
                self.mark(&"######"[..level.min(6)]);
            }
            "ul" | "ol" | "menu" => {
                self.edge(if self.lists.is_empty() { Gap::Empty } else { Gap::Line });
                // How many items it has is not known yet, and so is the number of its first.
                let is_numbered = name == "ol" && tag.attribute("reversed").is_none();
                self.lists.push(is_numbered.then(|| number(tag, "start").unwrap_or(1)));
            }
            "li" => self.item(tag),
            "blockquote" => {
                self.edge(Gap::Empty);
                self.quotes += 1;
            }
            "tr" => {
                self.cells.end_row();
                self.edge(Gap::Line);
                self.cells.begin_row();
            }
            "td" | "th" => self.cell(tag),
            "progress" | "meter" => {
                self.shown("", tag.attribute("value"));
                self.shown("of ", tag.attribute("max"));
            }
            "table" => {
                self.cells.begin_table();
                self.edge(Gap::Empty);
            }
            "pre" => {
                self.end_code();
                self.code = Some(Code { text: String::new(), is_block: true });
            }
            "code" if self.code.is_none() => self.code = Some(Code { text: String::new(), is_block: false }),
            "a" => {
                self.end_link();
                self.link = tag.attribute("href").map(|address| (address, self.out.len()));
            }
            "img" => self.shown("image: ", tag.attribute("alt")),
            "iframe" | "video" | "audio" | "source" | "embed" => {
                if let Some(address) = tag.attribute("src").and_then(address) {
                    self.wants(Gap::Blank);
                    self.put(&format!("({address})"));
                }
            }
            "input" => self.input(tag),
            "option" => {
                self.edge(Gap::Line);
                self.mark(if tag.attribute("selected").is_some() { "- [x]" } else { "-" });
            }
            "button" | "label" | "select" | "textarea" | "mn" | "mi" | "mo" | "mrow" => self.wants(Gap::Blank),
            "sup" | "sub" | "del" | "s" | "strike" | "q" => self.sign(&name, true),
            _ if BLOCKS.contains(&name.as_str()) => self.edge(Gap::Line),
            _ if PARAGRAPHS.contains(&name.as_str()) => self.edge(Gap::Empty),
            _ => {}
        }
    }

    fn close(&mut self, tag: &str) {
        let name = tag.to_ascii_lowercase();
        match name.as_str() {
            "a" => self.end_link(),
            "code" if self.code.as_ref().is_some_and(|code| !code.is_block) => self.end_code(),
            "pre" => self.end_code(),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.edge(Gap::Line),
            "ul" | "ol" | "menu" => {
                self.lists.pop();
                self.edge(if self.lists.is_empty() { Gap::Empty } else { Gap::Line });
            }
            "blockquote" => {
                self.edge(Gap::Empty);
                self.quotes = self.quotes.saturating_sub(1);
            }
            "tr" | "table" => {
                self.cells.end_row();
                self.edge(if name == "tr" { Gap::Line } else { Gap::Empty });
            }
            "button" | "label" | "select" | "textarea" | "mn" | "mi" | "mo" | "mrow" => self.wants(Gap::Blank),
            "li" | "option" => self.edge(Gap::Line),
            "sup" | "sub" | "del" | "s" | "strike" | "q" => self.sign(&name, false),
            _ if BLOCKS.contains(&name.as_str()) => self.edge(Gap::Line),
            _ if PARAGRAPHS.contains(&name.as_str()) => self.edge(Gap::Empty),
            _ => {}
        }
    }

    /// What stands before the words of a line.
    fn mark(&mut self, mark: &str) {
        self.put(mark);
        self.wants(Gap::Blank);
    }

    fn item(&mut self, tag: Tag) {
        if let (Some(Some(next)), Some(own)) = (self.lists.last_mut(), number(tag, "value")) {
            *next = own;
        }
        self.cells.leave();
        self.edge(Gap::Line);
        // An item at the first line of a list keeps the empty line before it.
        self.begin();
        for _ in 1..self.lists.len().min(MOST_DEPTH) {
            self.out.push_str("  ");
        }
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.out.push_str(&format!("{number}."));
                *number = number.saturating_add(1);
            }
            _ => self.out.push('-'),
        }
        self.wants(Gap::Blank);
    }

    fn cell(&mut self, tag: Tag) {
        let before = self.cells.next(number(tag, "colspan"), number(tag, "rowspan"));
        if before.is_first_empty {
            self.begin();
        }
        for _ in 0..before.bars {
            self.bar();
        }
    }

    /// Between two cells.
    fn bar(&mut self) {
        self.edge(Gap::Blank);
        self.gap = Gap::None;
        self.out.push_str(" |");
        self.wants(Gap::Blank);
    }

    /// Signs for what would be another number or word without them: 10 to the 6th, H2O, what no longer holds.
    fn sign(&mut self, name: &str, is_open: bool) {
        if self.code.is_some() {
            return;
        }
        match (name, is_open) {
            ("sup", true) => self.put("^"),
            ("sub", true) => self.put("_"),
            ("q", true) => self.put("\""),
            // Behind its last word, whatever gap comes next.
            ("q", false) => self.out.push('"'),
            ("del" | "s" | "strike", true) => self.put("~~"),
            ("del" | "s" | "strike", false) => self.out.push_str("~~"),
            _ => {}
        }
    }

    fn shown(&mut self, kind: &str, text: Option<&str>) {
        let text = text.map(|text| decode_html_entities(text).split_whitespace().collect::<Vec<_>>().join(" "));
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.put(&format!("[{kind}{text}]"));
        }
    }

    fn input(&mut self, tag: Tag) {
        let kind = tag.attribute("type").unwrap_or_default().to_ascii_lowercase();
        match kind.as_str() {
            "hidden" | "password" => {}
            "checkbox" | "radio" => {
                self.wants(Gap::Blank);
                self.put(if tag.attribute("checked").is_some() { "[x]" } else { "[ ]" });
                self.wants(Gap::Blank);
            }
            _ => {
                self.wants(Gap::Blank);
                let value = tag.attribute("value").filter(|value| !value.is_empty());
                self.shown("", value.or_else(|| tag.attribute("placeholder")));
                self.wants(Gap::Blank);
            }
        }
    }

    fn end_link(&mut self) {
        let Some((raw, start)) = self.link.take() else { return };
        let Some(address) = address(raw) else { return };
        let text = self.out.get(start..).unwrap_or_default().trim();
        let is_same = |prefix: &str| address.strip_prefix(prefix) == Some(text);
        if is_same("") || is_same("mailto:") || is_same("tel:") {
            return;
        }
        match &mut self.code {
            Some(code) if code.is_block => {}
            _ => {
                self.end_code();
                let gap = std::mem::replace(&mut self.gap, Gap::Blank);
                self.put(&format!("({address})"));
                self.gap = gap;
                self.link_end = self.out.len();
            }
        }
    }

    fn end_code(&mut self) {
        let Some(Code { text, is_block }) = self.code.take() else { return };
        if text.trim().is_empty() {
            self.wants(Gap::Blank);
            return;
        }
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        if is_block || text.contains('\n') {
            let fence = "`".repeat((longest + 1).max(3));
            self.cells.leave();
            self.wants(Gap::Line);
            self.begin();
            let body = text.strip_suffix('\n').unwrap_or(&text);
            self.out.push_str(&format!("{fence}\n{body}\n{fence}"));
            self.wants(Gap::Line);
        } else {
            let ticks = "`".repeat(longest + 1);
            let blank = if longest > 0 { " " } else { "" };
            self.put(&format!("{ticks}{blank}{text}{blank}{ticks}"));
        }
    }
}

/// None: it leads nowhere outside of the page, or it is a file itself.
fn address(raw: &str) -> Option<String> {
    let address = decode_html_entities(raw.trim());
    let begins = |word: &str| address.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    let is_none = address.is_empty() || begins("#") || begins("javascript:") || begins("data:");
    (!is_none).then(|| address.into_owned())
}

fn number(tag: Tag, name: &str) -> Option<u64> {
    tag.attribute(name).and_then(|number| number.trim().parse().ok())
}
