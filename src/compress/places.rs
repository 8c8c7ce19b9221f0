//! The texts of a request that may be shortened: where each stands, and what part of the prompt it is.
//!
//! Messages stay the JSON that the caller sent, but for the texts that are replaced: an unknown field survives, and a
//! message that nothing is replaced in keeps its bytes.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::documents::elements;
use crate::exchange::{Endpoint, Request};
use crate::key::encode::Encoder;
use crate::key::scan::scan;

/// A part of a prompt, as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// System and developer messages, `instructions`.
    System,
    /// Messages of the user and the assistant, before the last turns.
    History,
    /// Results of tools.
    Tools,
    /// Texts that are marked as documents.
    Documents,
    /// The last message of the user: its documents, or where none is marked, all but its last paragraph.
    LastUser,
}

impl Part {
    pub const NAMES: [(&'static str, Self); 5] = [
        ("system", Self::System),
        ("history", Self::History),
        ("tools", Self::Tools),
        ("documents", Self::Documents),
        ("last_user", Self::LastUser),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, part)| *part)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, part)| *part == self).map_or("", |(name, _)| name)
    }
}

/// Who says a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    System,
    User,
    Assistant,
    Tool,
}

/// Where a text stands in its message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// The whole value of a field.
    Field(&'static str),
    /// The text of one part of a field that is a list.
    Piece(&'static str, usize),
}

/// A text that may be shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub message: usize,
    pub path: Path,
    /// Bytes of the text at `path`.
    pub range: std::ops::Range<usize>,
    pub part: Part,
    pub voice: Voice,
}

/// A request's messages, as they came.
pub struct Messages {
    /// "messages", "input"; None = the whole input is one text.
    field: Option<&'static str>,
    /// `instructions` are the first of them, where there are any.
    instructions: bool,
    raw: Vec<Box<RawValue>>,
    read: Vec<Value>,
}

impl Messages {
    /// None: the request has none, or they are not on this side.
    pub fn read(request: &Request) -> Option<Self> {
        match request.endpoint {
            Endpoint::Chat => Self::of(Some("messages"), None, request.raw("messages")?),
            Endpoint::Responses if request.has("previous_response_id") || request.has("conversation") => None,
            Endpoint::Responses => {
                let instructions = request.raw("instructions").filter(|raw| raw.starts_with(b"\""));
                match request.raw("input")? {
                    text if text.starts_with(b"\"") => {
                        let text: &RawValue = serde_json::from_slice(text).ok()?;
                        let message = format!(r#"{{"role":"user","content":{}}}"#, text.get());
                        Self::of(None, instructions, format!("[{message}]").as_bytes())
                    }
                    items => Self::of(Some("input"), instructions, items),
                }
            }
            Endpoint::Embeddings | Endpoint::Other => None,
        }
    }

    fn of(field: Option<&'static str>, instructions: Option<&[u8]>, list: &[u8]) -> Option<Self> {
        let mut raw: Vec<Box<RawValue>> = serde_json::from_slice(list).ok()?;
        if let Some(text) = instructions {
            let text = std::str::from_utf8(text).ok()?;
            let message = format!(r#"{{"role":"developer","content":{text}}}"#);
            raw.insert(0, RawValue::from_string(message).ok()?);
        }
        let read = raw.iter().map(|message| serde_json::from_str(message.get())).collect::<Result<_, _>>().ok()?;
        Some(Self { field, instructions: instructions.is_some(), raw, read })
    }

    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The JSON of each message.
    pub fn raw(&self) -> impl Iterator<Item = &str> {
        self.raw.iter().map(|message| message.get())
    }

    /// The messages, to be counted.
    pub fn values(&self) -> &[Value] {
        &self.read
    }

    /// The whole text at a path.
    pub fn text(&self, message: usize, path: &Path) -> Option<&str> {
        let message = self.read.get(message)?;
        match path {
            Path::Field(name) => message.get(name)?.as_str(),
            Path::Piece(name, at) => message.get(name)?.get(at)?.get("text")?.as_str(),
        }
    }

    /// The text of a place.
    pub fn part(&self, place: &Place) -> Option<&str> {
        self.text(place.message, &place.path)?.get(place.range.clone())
    }

    /// The texts that are these parts of the prompt, in their order. `turns`: messages of the user's at the end that are
    /// no history.
    pub fn places(&self, parts: &[Part], turns: usize) -> Vec<Place> {
        let users: Vec<usize> = (0..self.read.len()).filter(|at| role(&self.read[*at]) == Some("user")).collect();
        let last = users.last().copied();
        let history_end = users.iter().rev().nth(turns.saturating_sub(1)).copied().unwrap_or(0);
        let mut places = Vec::new();
        for (message, value) in self.read.iter().enumerate() {
            let kind = value.get("type").and_then(Value::as_str);
            let is_result = matches!(kind, Some("function_call_output" | "custom_tool_call_output"));
            let part = match role(value) {
                Some("system" | "developer") => Some(Part::System),
                Some("tool" | "function") => Some(Part::Tools),
                None if is_result => Some(Part::Tools),
                Some("user") if Some(message) == last => Some(Part::LastUser),
                Some("user" | "assistant") if message < history_end => Some(Part::History),
                _ => None,
            };
            let voice = match role(value) {
                Some("system" | "developer") => Voice::System,
                Some("assistant") => Voice::Assistant,
                Some("user") => Voice::User,
                _ => Voice::Tool,
            };
            let field = if is_result { "output" } else { "content" };
            let is_last = part == Some(Part::LastUser);
            // Of the last message nothing is touched that was not asked for.
            if is_last && !parts.contains(&Part::LastUser) {
                continue;
            }
            let texts = texts(value, field);
            let documents = documents(&texts, role(value) == Some("user"));
            let takes_documents = parts.contains(&Part::Documents) || is_last;
            match part.filter(|part| parts.contains(part)) {
                Some(Part::LastUser) if !documents.is_empty() => {}
                Some(Part::LastUser) => {
                    let Some((path, text)) = texts.into_iter().last() else { continue };
                    let end = text.get(..question_at(text)).unwrap_or_default().trim_end().len();
                    if end > 0 {
                        places.push(Place { message, path, range: 0..end, part: Part::LastUser, voice });
                    }
                    continue;
                }
                Some(part) => {
                    let whole = texts.into_iter();
                    places.extend(whole.map(|(path, text)| Place { message, path, range: 0..text.len(), part, voice }));
                    continue;
                }
                None => {}
            }
            if takes_documents {
                let marked = documents.into_iter();
                places.extend(marked.map(|(path, range)| Place { message, path, range, part: Part::Documents, voice }));
            }
        }
        places
    }

    /// The last message of the user.
    pub fn asked(&self) -> Option<usize> {
        self.read.iter().rposition(|message| role(message) == Some("user"))
    }

    /// What the prompt asks: the last message of the user, without its documents.
    pub fn question(&self) -> String {
        let Some(last) = self.asked().and_then(|at| self.read.get(at)) else { return String::new() };
        let texts = texts(last, "content");
        let documents = documents(&texts, true);
        let mut question = String::new();
        for (path, text) in &texts {
            let mut at = 0;
            for (_, range) in documents.iter().filter(|(of, _)| of == path) {
                question.push_str(text.get(at..range.start).unwrap_or_default());
                at = range.end;
            }
            question.push_str(text.get(at..).unwrap_or_default());
            question.push('\n');
        }
        // Of a long message the question is at its end, as a rule.
        match documents.is_empty() && question.len() > LONG {
            true => question.get(question_at(question.trim_end())..).unwrap_or_default().to_owned(),
            false => question,
        }
    }

    /// A message with other texts in some places. Places of one text are given in their order.
    pub fn rewritten(&self, message: usize, texts: &[(&Place, &str)]) -> Option<Box<RawValue>> {
        let mut changed = self.raw.get(message)?.get().to_owned();
        let mut at = 0;
        while let Some((first, _)) = texts.get(at) {
            let of_one = texts[at..].iter().take_while(|(place, _)| place.path == first.path).count();
            let whole = self.text(message, &first.path)?;
            let (mut text, mut end) = (String::with_capacity(whole.len()), 0);
            for (place, shorter) in &texts[at..at + of_one] {
                text.push_str(whole.get(end..place.range.start)?);
                text.push_str(shorter);
                end = place.range.end;
            }
            text.push_str(whole.get(end..)?);
            let text = Value::from(text).to_string();
            changed = match &first.path {
                Path::Field(name) => with_member(&changed, name, |_| Some(text))?,
                Path::Piece(name, piece) => with_member(&changed, name, |list| {
                    let mut pieces: Vec<Box<RawValue>> = serde_json::from_str(list).ok()?;
                    let changed = with_member(pieces.get(*piece)?.get(), "text", |_| Some(text))?;
                    pieces[*piece] = RawValue::from_string(changed).ok()?;
                    serde_json::to_string(&pieces).ok()
                })?,
            };
            at += of_one;
        }
        RawValue::from_string(changed).ok()
    }

    /// The request with some messages in the place of others.
    pub fn put(&self, request: &Request, changed: &[Option<std::sync::Arc<RawValue>>]) -> Option<Request> {
        let text =
            |at: usize| changed.get(at).and_then(Option::as_ref).map_or_else(|| self.raw[at].get(), |raw| raw.get());
        let content = |at: usize| -> Option<String> {
            #[derive(Deserialize)]
            struct Message<'a> {
                #[serde(borrow)]
                content: &'a RawValue,
            }
            let message: Message<'_> = serde_json::from_str(text(at)).ok()?;
            Some(message.content.get().to_owned())
        };
        let mut request = request.clone();
        if self.instructions && changed.first().is_some_and(Option::is_some) {
            request = request.with_field("instructions", &content(0)?);
        }
        let first = usize::from(self.instructions);
        if !changed.iter().skip(first).any(Option::is_some) {
            return Some(request);
        }
        let Some(field) = self.field else { return Some(request.with_field("input", &content(first)?)) };
        let all: Vec<&str> = (first..self.raw.len()).map(text).collect();
        Some(request.with_field(field, &format!("[{}]", all.join(","))))
    }
}

/// Bytes of a last message from which on it is not all question.
const LONG: usize = 2000;

/// The JSON of an object with another value of one member; everything else stays as it is.
fn with_member(object: &str, name: &str, change: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let fields = scan(object.as_bytes(), &[], &mut Encoder::default()).ok()?;
    let place = fields.into_iter().find(|field| &*field.name == name)?.value;
    let value = change(object.get(place.clone())?)?;
    Some(format!("{}{value}{}", object.get(..place.start)?, object.get(place.end..)?))
}

fn role(message: &Value) -> Option<&str> {
    message.get("role").and_then(Value::as_str)
}

/// The texts of a message.
fn texts<'a>(message: &'a Value, field: &'static str) -> Vec<(Path, &'a str)> {
    match message.get(field) {
        Some(Value::String(text)) => vec![(Path::Field(field), text)],
        Some(Value::Array(pieces)) => {
            let text = |(at, piece): (usize, &'a Value)| {
                let kind = piece.get("type")?.as_str()?;
                let is_text = matches!(kind, "text" | "input_text" | "output_text");
                // They say where in the text something stands.
                let has_annotations =
                    piece.get("annotations").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
                let text = piece.get("text")?.as_str().filter(|_| is_text && !has_annotations)?;
                Some((Path::Piece(field, at), text))
            };
            pieces.iter().enumerate().filter_map(text).collect()
        }
        _ => Vec::new(),
    }
}

/// The documents among the texts of a message: what stands in an element of such a name; of a message of several texts,
/// all but the last.
fn documents(texts: &[(Path, &str)], is_user: bool) -> Vec<(Path, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    for (path, text) in texts {
        found.extend(elements(text).into_iter().map(|range| (path.clone(), range)));
    }
    if found.is_empty() && is_user && texts.len() > 1 {
        found.extend(texts[..texts.len() - 1].iter().map(|(path, text)| (path.clone(), 0..text.len())));
    }
    found
}

/// Where the last paragraph of a text begins.
fn question_at(text: &str) -> usize {
    let body = text.trim_end();
    body.rfind("\n\n").map_or(0, |at| at + 2)
}
