//! A request as another model takes it: its name, parameters that it lacks, fields and roles by other names, fields that
//! are left out. For requests on their way to a fallback; the first request of a call is adapted before it gets its key
//! (`python/farthing/upstreams.py`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::exchange::Request;

/// Fields whose items have a role.
const WITH_ROLES: [&str; 2] = ["messages", "input"];

/// What differs. Written by `upstreams.py`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adaptation {
    pub model: Option<String>,
    /// Set where the request says nothing.
    pub parameters: BTreeMap<String, Box<RawValue>>,
    pub rename: BTreeMap<String, String>,
    pub roles: BTreeMap<String, String>,
    pub drop: BTreeSet<String>,
}

impl Adaptation {
    /// # Errors
    /// [`Error::Config`] when `text` is not what `upstreams.py` writes.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Config(format!("adaptation: {error}")))
    }

    /// The request adapted, with the names of the fields that were dropped.
    pub fn apply(&self, request: &Request) -> (Request, Vec<String>) {
        let mut fields: Vec<(Cow<'_, str>, Cow<'_, [u8]>)> = Vec::new();
        let mut dropped = Vec::new();
        for (name, value) in request.fields() {
            if self.drop.contains(name) {
                dropped.push(name.to_owned());
                continue;
            }
            let renamed = self.rename.get(name);
            // What the request says under the other name already is its own word.
            if renamed.is_some_and(|to| request.raw(to).is_some() && !self.rename.contains_key(to)) {
                continue;
            }
            let value = match (name, &self.model) {
                ("model", Some(model)) => Cow::Owned(json(model)),
                _ if !self.roles.is_empty() && WITH_ROLES.contains(&name) => self.with_roles(value),
                _ => Cow::Borrowed(value),
            };
            fields.push((renamed.map_or(Cow::Borrowed(name), |to| Cow::Borrowed(to.as_str())), value));
        }
        for (name, value) in &self.parameters {
            if !fields.iter().any(|(known, _)| known == name) {
                fields.push((Cow::Borrowed(name), Cow::Borrowed(value.get().as_bytes())));
            }
        }
        (request.with_fields(&fields), dropped)
    }

    fn with_roles<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(value) else { return Cow::Borrowed(value) };
        let item = |raw: &'a RawValue| -> Cow<'a, str> {
            let Ok(mut members) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(raw.get()) else {
                return Cow::Borrowed(raw.get());
            };
            let role = members.get("role").and_then(|role| serde_json::from_str::<String>(role.get()).ok());
            let Some(other) = role.and_then(|role| self.roles.get(&role)) else { return Cow::Borrowed(raw.get()) };
            let Ok(other) = serde_json::value::to_raw_value(other) else { return Cow::Borrowed(raw.get()) };
            members.insert(Cow::Borrowed("role"), &other);
            serde_json::to_string(&members).map_or(Cow::Borrowed(raw.get()), Cow::Owned)
        };
        let items: Vec<_> = items.into_iter().map(item).collect();
        Cow::Owned(format!("[{}]", items.join(",")).into_bytes())
    }
}

fn json(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}
