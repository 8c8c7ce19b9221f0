//! The `response_format` of a pack as text, with the fields of schemas in the order in which the caller wrote them.
//!
//! Providers let a model write an object's fields in the order of its schema, so that one which asks for the reasoning
//! before the answer gets it in that order. A [`Value`] sorts them by name: "1", "10", "2".

use serde_json::Value;

use super::scan::container;

/// `format`: of `schema.rs`; `own`: what all the calls have, as it stands.
pub fn text(format: &Value, ids: &[String], own: Option<&str>) -> String {
    let empty = Value::Null;
    let whole = format.get("json_schema").unwrap_or(&empty);
    let schema = whole.get("schema").unwrap_or(&empty);
    let item = own.and_then(|own| field(own, "json_schema")).and_then(|own| field(own, "schema"));
    let properties = ids.iter().filter_map(|id| Some((id.as_str(), schema.get("properties")?.get(id)?.to_string())));
    let mut fields = vec![
        ("type", "\"object\"".to_owned()),
        ("properties", object(properties)),
        ("required", schema.get("required").unwrap_or(&empty).to_string()),
        ("additionalProperties", "false".to_owned()),
    ];
    for name in ["$defs", "definitions"] {
        let Some(schemas) = schema.get(name).and_then(Value::as_object) else { continue };
        let known = item.and_then(|item| field(item, name));
        let schemas = schemas.iter().map(|(schema, value)| {
            // The one that is not among the caller's definitions is the caller's schema.
            let written = known.and_then(|known| field(known, schema)).or(item);
            (schema.as_str(), ordered(value, written))
        });
        fields.push((name, object(schemas)));
    }
    let mut parts = vec![("name", whole.get("name").unwrap_or(&empty).to_string())];
    parts.extend(whole.get("strict").map(|strict| ("strict", strict.to_string())));
    parts.push(("schema", object(fields)));
    object([("type", "\"json_schema\"".to_owned()), ("json_schema", object(parts))])
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// The text of a field's value.
fn field<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    // As a parser has it: of several the last.
    names(object).into_iter().rfind(|(known, _)| known == name).map(|(_, value)| value)
}

fn names(object: &str) -> Vec<(String, &str)> {
    if !object.starts_with('{') {
        return Vec::new();
    }
    let name = |json: &str| serde_json::from_str(json).ok();
    container(object, 0).members.iter().filter_map(|member| Some((name(member.name?)?, member.value?))).collect()
}

/// A value with its fields in the order of a text that has most of them.
fn ordered(value: &Value, written: Option<&str>) -> String {
    match (value, written) {
        (Value::Object(fields), Some(written)) => {
            let names = names(written);
            let place = |name: &String| names.iter().rposition(|(known, _)| known == name);
            let mut sorted: Vec<_> = fields.iter().map(|(name, value)| (place(name), name, value)).collect();
            // What the text does not have comes last.
            sorted.sort_by_key(|(place, ..)| place.unwrap_or(names.len()));
            object(sorted.into_iter().map(|(place, name, value)| {
                let written = place.and_then(|place| names.get(place)).map(|(_, written)| *written);
                (name.as_str(), ordered(value, written))
            }))
        }
        (Value::Array(items), Some(written)) if written.starts_with('[') => {
            let members = container(written, 0).members;
            let item = |(index, value): (usize, &Value)| ordered(value, members.get(index).and_then(|one| one.value));
            format!("[{}]", items.iter().enumerate().map(item).collect::<Vec<_>>().join(","))
        }
        _ => value.to_string(),
    }
}
