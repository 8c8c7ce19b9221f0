//! Chat completion chunks put together. Fields nobody has heard of survive, here and on the way back (`chat/replay.rs`).

mod replay;

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use replay::replay;

type Object = Map<String, Value>;

/// Fields of a message that come in a delta of their own, in this order. The rest of a message comes in the first one.
const TEXTS: [&str; 4] = ["reasoning_content", "reasoning", "content", "refusal"];

/// More choices or tool calls than this are nonsense, not an answer.
const MOST_ITEMS: u64 = 4096;

/// A completion as far as it has come.
#[derive(Debug, Default)]
pub struct Chat {
    /// The plain body, without its choices.
    pub body: Object,
    choices: Vec<Object>,
    known: Vec<Known>,
    chunks: u64,
    pub text_len: usize,
}

/// A field of the chunks, as it came last: most fields of most chunks are what they were.
#[derive(Debug)]
struct Known {
    name: String,
    raw: String,
    /// The chunk, by its number.
    seen: u64,
}

impl Chat {
    /// Takes a chunk, its JSON. False: it has no meaning that a plain body could carry.
    pub fn push(&mut self, chunk: &str) -> bool {
        self.chunks += 1;
        let mut json = serde_json::Deserializer::from_str(chunk);
        json.deserialize_map(Fields(self)).is_ok_and(|taken| taken) && json.end().is_ok()
    }

    /// What there is of the answer.
    pub fn so_far(&self) -> Value {
        Value::Object(Object::from_iter([(
            "choices".to_owned(),
            self.choices.iter().cloned().map(Value::Object).collect(),
        )]))
    }

    fn push_field(&mut self, name: Cow<'_, str>, raw: &str) -> bool {
        match self.known.iter_mut().find(|known| known.name == name) {
            // The same name twice in one chunk.
            Some(known) if known.seen == self.chunks => return false,
            Some(known) => {
                known.seen = self.chunks;
                if name != "choices" {
                    if known.raw == raw {
                        return true;
                    }
                    raw.clone_into(&mut known.raw);
                }
            }
            None => {
                let kept = if name == "choices" { "" } else { raw };
                self.known.push(Known { name: name.to_string(), raw: kept.to_owned(), seen: self.chunks });
            }
        }
        if name == "choices" && self.push_text(raw) {
            return true;
        }
        let Ok(value) = serde_json::from_str(raw) else { return false };
        match (&*name, value) {
            ("choices", Value::Array(choices)) => {
                return choices.into_iter().all(|choice| self.push_choice(choice).is_some());
            }
            ("choices", Value::Null) | ("object", _) => {}
            ("choices", _) => return false,
            ("error", value) if !value.is_null() => return false,
            // Gateways write the first chunk of a stream with fields that later ones leave empty.
            (_, Value::Null) => {
                self.body.entry(name).or_insert(Value::Null);
            }
            (_, Value::String(text)) if text.is_empty() => {
                self.body.entry(name).or_insert(Value::String(text));
            }
            (_, value) => {
                self.body.insert(name.into_owned(), value);
            }
        }
        true
    }

    /// The usual choices: one, with a little more text and nothing else. False: they are not that.
    fn push_text(&mut self, raw: &str) -> bool {
        let Ok([piece]) = serde_json::from_str::<[Piece<'_>; 1]>(raw) else { return false };
        let known =
            self.choices.iter_mut().find(|known| known.get("index").and_then(Value::as_u64) == Some(piece.index));
        let Some(known) = known else { return false };
        if matches!(piece.logprobs, Nothing::Null) && !known.contains_key("logprobs") {
            return false;
        }
        let message = known.get_mut("message").and_then(Value::as_object_mut);
        let Some(Value::String(content)) = message.and_then(|message| message.get_mut("content")) else { return false };
        content.push_str(&piece.delta.content);
        self.text_len += piece.delta.content.len();
        true
    }

    fn push_choice(&mut self, choice: Value) -> Option<()> {
        let Value::Object(choice) = choice else { return None };
        let index = match choice.get("index") {
            None | Some(Value::Null) => 0,
            Some(index) => index.as_u64().filter(|index| *index < MOST_ITEMS)?,
        };
        let found = self.choices.iter().position(|known| known.get("index").and_then(Value::as_u64) == Some(index));
        let at = found.unwrap_or_else(|| {
            let mut new = Object::new();
            new.insert("index".to_owned(), index.into());
            new.insert("message".to_owned(), Value::Object(Object::new()));
            new.insert("finish_reason".to_owned(), Value::Null);
            self.choices.push(new);
            self.choices.len() - 1
        });
        let known = self.choices.get_mut(at)?;
        for (name, value) in choice {
            match (name.as_str(), value) {
                ("index", _) => {}
                ("delta", Value::Object(delta)) => {
                    let Some(Value::Object(message)) = known.get_mut("message") else { return None };
                    self.text_len += merge(message, delta)?;
                }
                ("delta", Value::Null) => {}
                ("delta", _) => return None,
                ("logprobs", Value::Object(logprobs)) => match known.get_mut("logprobs") {
                    Some(Value::Object(whole)) => {
                        merge(whole, logprobs)?;
                    }
                    _ => {
                        known.insert(name, Value::Object(logprobs));
                    }
                },
                (_, Value::Null) => {
                    known.entry(name).or_insert(Value::Null);
                }
                (_, value) => {
                    known.insert(name, value);
                }
            }
        }
        Some(())
    }

    pub fn finish(mut self) -> Option<Value> {
        if self.choices.is_empty() {
            return None;
        }
        self.choices.sort_by_key(|choice| choice.get("index").and_then(Value::as_u64));
        for choice in &mut self.choices {
            let Some(Value::Object(message)) = choice.get_mut("message") else { return None };
            message.entry("role").or_insert_with(|| "assistant".into());
            message.entry("content").or_insert(Value::Null);
            if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
                // Holes would be calls whose beginning was lost.
                if calls.iter().any(|call| !call.is_object()) {
                    return None;
                }
                calls.iter_mut().filter_map(Value::as_object_mut).for_each(|call| drop(call.remove("index")));
            }
        }
        self.body.insert("object".to_owned(), "chat.completion".into());
        self.body.insert("choices".to_owned(), self.choices.into_iter().map(Value::Object).collect());
        Some(Value::Object(self.body))
    }
}

struct Fields<'a>(&'a mut Chat);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chunk")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        let mut taken = true;
        while let Some(Name(name)) = fields.next_key()? {
            let raw: &RawValue = fields.next_value()?;
            taken = taken && self.0.push_field(name, raw.get());
        }
        Ok(taken)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece<'a> {
    index: u64,
    #[serde(borrow)]
    delta: Delta<'a>,
    #[serde(default)]
    logprobs: Nothing,
    #[serde(default, rename = "finish_reason")]
    _finish_reason: Nothing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
}

/// A field that is not there, or null.
#[derive(Default)]
enum Nothing {
    #[default]
    Absent,
    Null,
}

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::Null)
    }
}

/// Adds a delta to what there is: texts grow, lists grow (by their items' `index` where they have one), objects merge.
/// Returns the bytes of text that were added.
fn merge(whole: &mut Object, delta: Object) -> Option<usize> {
    let mut added = 0;
    for (name, value) in delta {
        let names_itself = matches!(name.as_str(), "role" | "id" | "type" | "index");
        match (whole.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more)) => {
                // Some servers repeat who a call is for with every piece of its arguments.
                if names_itself || (name == "name" && *text == more) {
                    if !more.is_empty() {
                        *text = more;
                    }
                } else {
                    added += more.len();
                    text.push_str(&more);
                }
            }
            (Some(Value::Object(known)), Value::Object(more)) => added += merge(known, more)?,
            (Some(Value::Array(known)), Value::Array(more)) => added += merge_items(known, more)?,
            (Some(known), value) => {
                if !value.is_null() {
                    added += value.as_str().map_or(0, str::len);
                    *known = value;
                }
            }
            (None, Value::Array(more)) => {
                let mut known = Vec::new();
                added += merge_items(&mut known, more)?;
                whole.insert(name, Value::Array(known));
            }
            (None, value) => {
                if !names_itself {
                    added += value.as_str().map_or(0, str::len);
                }
                whole.insert(name, value);
            }
        }
    }
    Some(added)
}

fn merge_items(known: &mut Vec<Value>, more: Vec<Value>) -> Option<usize> {
    let mut added = 0;
    for item in more {
        let index = item.get("index").and_then(Value::as_u64);
        match (index, item) {
            (Some(index), Value::Object(item)) => {
                if index >= MOST_ITEMS {
                    return None;
                }
                let index = usize::try_from(index).ok()?;
                if known.len() <= index {
                    known.resize(index + 1, Value::Null);
                }
                match known.get_mut(index)? {
                    Value::Object(whole) => added += merge(whole, item)?,
                    hole => {
                        added += item.get("function").and_then(Value::as_object).map_or(0, texts_in);
                        *hole = Value::Object(item);
                    }
                }
            }
            (_, item) => known.push(item),
        }
    }
    Some(added)
}

fn texts_in(object: &Object) -> usize {
    object.values().filter_map(Value::as_str).map(str::len).sum()
}
