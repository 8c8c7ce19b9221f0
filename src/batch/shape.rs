//! What every answer of a pack must keep to: the `response_format` that its calls have in common.

use serde_json::Value;

use super::Flaw;
use super::schema;
use crate::escalate::schema::{Verdict, check};

/// See the module. All calls of a pack have the same one.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Text,
    /// `json_object`.
    Object,
    /// The whole object with `name`, `schema` and `strict`.
    Schema(Value),
}

impl Shape {
    /// None: a kind nobody knows, or a schema that cannot become part of another one. Such calls are not packed.
    pub fn read(response_format: Option<&Value>) -> Option<Self> {
        let Some(format) = response_format.filter(|format| !format.is_null()) else { return Some(Self::Text) };
        match format.get("type")?.as_str()? {
            "text" => Some(Self::Text),
            "json_object" => Some(Self::Object),
            "json_schema" => {
                let whole = format.get("json_schema")?;
                let item = whole.get("schema")?;
                (item.is_object() && schema::is_movable(item)).then(|| Self::Schema(whole.clone()))
            }
            _ => None,
        }
    }

    /// The schema of one answer.
    pub(super) fn item(&self) -> Option<&Value> {
        match self {
            Self::Schema(whole) => whole.get("schema"),
            Self::Text | Self::Object => None,
        }
    }

    /// The answer, if it is of this shape; as it stands, or out of the code fence around it.
    pub(super) fn admit(&self, answer: &str) -> Result<String, Flaw> {
        let answer = answer.trim();
        if answer.is_empty() {
            return Err(Flaw::Empty);
        }
        if matches!(self, Self::Text) {
            return Ok(answer.to_owned());
        }
        let json = unfenced(answer);
        self.verify(json).map(|()| json.to_owned())
    }

    /// Whether a JSON text is of this shape.
    pub(super) fn verify(&self, json: &str) -> Result<(), Flaw> {
        let value: Value = serde_json::from_str(json).map_err(|_| Flaw::Invalid)?;
        let holds = match self {
            Self::Text => true,
            Self::Object => value.is_object(),
            // What cannot be said would not be said of a call alone, either.
            Self::Schema(_) => self.item().is_none_or(|item| check(item, &value) != Verdict::Fails),
        };
        if holds { Ok(()) } else { Err(Flaw::Invalid) }
    }
}

/// What is between the first and the last line of a code fence.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let Some(inner) = inner else { return text };
    inner.strip_prefix("json").or_else(|| inner.strip_prefix("JSON")).unwrap_or(inner).trim()
}
