//! Answers as they would have come had no stage asked for more than the caller did.
//!
//! Values are cut out of the text and the rest stays byte for byte: the caller may look at the order of fields, and at
//! digits that a float would not keep.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::exchange::Endpoint;
use crate::stream::sse::Event;
use crate::stream::{DONE, Kind};

/// A way to values: names of fields, and [`EACH`] for all items of a list.
type Path = &'static [&'static str];
/// No field of the API is called so.
const EACH: &str = "*";

/// What a stage asked for, and the caller did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Logprobs,
    /// A tool of this name: an answer of the Responses API repeats the list of tools.
    Tool(&'static str),
}

/// Where something is, and what stands there instead.
type Rule = (Path, Instead);

#[derive(Clone, Copy)]
enum Instead {
    This(&'static str),
    /// The list without the tool.
    Rest,
}

/// Chat has `null` where no logprobs were asked for, in bodies and in chunks.
const CHAT: &[Rule] = &[(&["choices", EACH, "logprobs"], Instead::This("null"))];
/// The Responses API has empty lists, and tells how many alternatives were asked for: 0 is its default.
const RESPONSES: &[Rule] =
    &[(&["output", EACH, "content", EACH, "logprobs"], Instead::This("[]")), (&["top_logprobs"], Instead::This("0"))];
const RESPONSES_EVENTS: &[Rule] = &[
    (&["logprobs"], Instead::This("[]")),
    (&["part", "logprobs"], Instead::This("[]")),
    (&["item", "content", EACH, "logprobs"], Instead::This("[]")),
    (&["response", "output", EACH, "content", EACH, "logprobs"], Instead::This("[]")),
    (&["response", "top_logprobs"], Instead::This("0")),
];
const NONE: &[Rule] = &[];
const TOOLS: &[Rule] = &[(&["tools"], Instead::Rest)];
const TOOLS_EVENTS: &[Rule] = &[(&["response", "tools"], Instead::Rest)];

/// What is to be done to an API's bodies, and to the events of its streams.
struct Rules {
    bodies: &'static [Rule],
    events: &'static [Rule],
}

impl Added {
    fn rules(self, kind: Kind) -> Rules {
        let (bodies, events) = match (self, kind) {
            (Self::Logprobs, Kind::Chat) => (CHAT, CHAT),
            (Self::Logprobs, Kind::Responses) => (RESPONSES, RESPONSES_EVENTS),
            (Self::Tool(_), Kind::Chat) => (NONE, NONE),
            (Self::Tool(_), Kind::Responses) => (TOOLS, TOOLS_EVENTS),
        };
        Rules { bodies, events }
    }

    /// What a text has that it is in.
    fn word(self) -> &'static str {
        match self {
            Self::Logprobs => "logprobs",
            Self::Tool(name) => name,
        }
    }
}

/// A body as it would have come without. One that is not JSON stays as it is.
pub fn without(endpoint: Endpoint, body: &[u8], added: Added) -> Bytes {
    let rules = Kind::of(endpoint).map(|kind| added.rules(kind).bodies).unwrap_or_default();
    let stripped = std::str::from_utf8(body).ok().and_then(|text| strip(text, rules, added));
    stripped.map_or_else(|| Bytes::copy_from_slice(body), Bytes::from)
}

/// The same for an event of a stream. Comments and ids that came with it stay.
pub fn event_without(kind: Kind, event: Event, added: Added) -> Event {
    if !event.dispatched || event.data.starts_with(DONE) {
        return event;
    }
    let Some(data) = strip(&event.data, added.rules(kind).events, added) else { return event };
    let raw = std::str::from_utf8(&event.raw).ok();
    // Data of more than one line is not in the raw text as one piece.
    match raw.and_then(|raw| raw.split_once(&*event.data)) {
        Some((before, after)) => {
            let raw = [before, &data, after].concat().into();
            Event { raw, event: event.event, data: data.into(), dispatched: true }
        }
        None => Event::encode(event.event.as_deref(), &data),
    }
}

/// None: nothing is to be cut, or it is not JSON.
fn strip(text: &str, rules: &[Rule], added: Added) -> Option<String> {
    // Most events have none.
    if !text.contains(added.word()) {
        return None;
    }
    let mut cuts: Vec<(Range<usize>, Cow<'static, str>)> = Vec::new();
    for (path, instead) in rules {
        for value in find(text, path)? {
            let instead = match instead {
                Instead::This(text) if value == "null" || value == *text => continue,
                Instead::This(text) => Cow::Borrowed(*text),
                Instead::Rest => Cow::Owned(without_tool(value, added.word())?),
            };
            let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            cuts.push((start..start + value.len(), instead));
        }
    }
    if cuts.is_empty() {
        return None;
    }
    cuts.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, instead) in cuts {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&instead);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// A list of tools but for one.
fn without_tool(tools: &str, name: &str) -> Option<String> {
    let is_other = |tool: &&str| {
        let named = inside(tool, "name");
        !named.iter().any(|text| serde_json::from_str::<String>(text).is_ok_and(|found| found == name))
    };
    let all = inside(serde_json::from_str::<&RawValue>(tools).ok()?.get(), EACH);
    Some(format!("[{}]", all.into_iter().filter(is_other).collect::<Vec<_>>().join(",")))
}

/// The JSON texts, parts of `text`, that a path leads to. None: `text` is not JSON.
fn find<'a>(text: &'a str, path: &[&str]) -> Option<Vec<&'a str>> {
    let mut found = vec![serde_json::from_str::<&RawValue>(text).ok()?.get()];
    for step in path {
        found = found.into_iter().flat_map(|value| inside(value, step)).collect();
    }
    Some(found)
}

/// The values of a field, or all items; none if it is not an object, or not a list.
fn inside<'a>(value: &'a str, step: &str) -> Vec<&'a str> {
    let mut json = serde_json::Deserializer::from_str(value);
    let found = match step {
        EACH => json.deserialize_seq(Items),
        name => json.deserialize_map(Named(name)),
    };
    found.unwrap_or_default()
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element::<&RawValue>()? {
            found.push(item.get());
        }
        Ok(found)
    }
}

struct Named<'a>(&'a str);

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        // The same name may come twice; which one counts is the reader's business.
        let mut found = Vec::new();
        while let Some(Name(name)) = fields.next_key()? {
            let value = fields.next_value::<&RawValue>()?.get();
            if name == self.0 {
                found.push(value);
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
