//! Answers as they would have come had nobody asked for logprobs.
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

/// Chat has `null` where no logprobs were asked for, in bodies and in chunks.
const CHAT: &[(Path, &str)] = &[(&["choices", EACH, "logprobs"], "null")];
/// The Responses API has empty lists, and tells how many alternatives were asked for: 0 is its default.
const RESPONSES: &[(Path, &str)] = &[(&["output", EACH, "content", EACH, "logprobs"], "[]"), (&["top_logprobs"], "0")];
const RESPONSES_EVENTS: &[(Path, &str)] = &[
    (&["logprobs"], "[]"),
    (&["part", "logprobs"], "[]"),
    (&["item", "content", EACH, "logprobs"], "[]"),
    (&["response", "output", EACH, "content", EACH, "logprobs"], "[]"),
    (&["response", "top_logprobs"], "0"),
];

/// A body as it would have come without logprobs asked for. One that is not JSON stays as it is.
pub fn without_logprobs(endpoint: Endpoint, body: &[u8]) -> Bytes {
    let rules = match endpoint {
        Endpoint::Chat => CHAT,
        Endpoint::Responses => RESPONSES,
        Endpoint::Embeddings | Endpoint::Other => &[],
    };
    let stripped = std::str::from_utf8(body).ok().and_then(|text| strip(text, rules));
    stripped.map_or_else(|| Bytes::copy_from_slice(body), Bytes::from)
}

/// The same for an event of a stream. Comments and ids that came with it stay.
pub fn event_without_logprobs(kind: Kind, event: Event) -> Event {
    if !event.dispatched || event.data.starts_with(DONE) {
        return event;
    }
    let rules = match kind {
        Kind::Chat => CHAT,
        Kind::Responses => RESPONSES_EVENTS,
    };
    let Some(data) = strip(&event.data, rules) else { return event };
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
fn strip(text: &str, rules: &[(Path, &'static str)]) -> Option<String> {
    // Most events have none.
    if !text.contains("logprobs") {
        return None;
    }
    let mut cuts: Vec<(Range<usize>, &str)> = Vec::new();
    for (path, instead) in rules {
        let found = find(text, path)?;
        cuts.extend(found.into_iter().filter_map(|value| {
            let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            (value != "null" && value != *instead).then_some((start..start + value.len(), *instead))
        }));
    }
    if cuts.is_empty() {
        return None;
    }
    cuts.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, instead) in cuts {
        out.push_str(text.get(at..range.start)?);
        out.push_str(instead);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
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
