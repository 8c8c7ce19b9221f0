//! The `response_format` of a pack: one schema for all answers, around the schema of one.

use serde_json::{Map, Value, json};

use super::Shape;

/// What the definition of one answer is called, unless the schema has one of that name.
const ITEM: &str = "answer";
/// Fields whose names are the user's, and whose values are schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Fields whose values are data.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];
/// With these a reference says something else in another place.
const FIXED: [&str; 5] = ["$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"];

/// Whether a schema says the same as a part of another document.
pub fn is_movable(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.iter().all(|(name, value)| !FIXED.contains(&name.as_str()) && is_movable(value))
        }
        Value::Array(items) => items.iter().all(is_movable),
        _ => true,
    }
}

/// For a pack with these ids.
pub fn response_format(ids: &[String], shape: &Shape) -> Value {
    let (answer, strict, definitions) = match shape {
        Shape::Text => (json!({"type": "string"}), Some(Value::Bool(true)), Map::new()),
        // An object of which nothing is known is what strict schemas do not allow.
        Shape::Object => (json!({"type": "object"}), Some(Value::Bool(false)), Map::new()),
        Shape::Schema(whole) => {
            let (reference, definitions) = definitions(whole);
            (json!({"$ref": reference}), whole.get("strict").cloned(), definitions)
        }
    };
    let properties: Map<String, Value> = ids.iter().map(|id| (id.clone(), answer.clone())).collect();
    let mut schema = definitions;
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(ids));
    schema.insert("additionalProperties".to_owned(), json!(false));
    let mut format = json!({"name": "answers", "schema": schema});
    if let (Some(strict), Some(fields)) = (strict, format.as_object_mut()) {
        fields.insert("strict".to_owned(), strict);
    }
    json!({"type": "json_schema", "json_schema": format})
}

/// The reference to one answer's schema, and the document's definitions with it among them.
fn definitions(whole: &Value) -> (String, Map<String, Value>) {
    let mut item = whole.get("schema").cloned().unwrap_or_else(|| json!({}));
    let mut document = Map::new();
    let mut known = Map::new();
    if let Some(fields) = item.as_object_mut() {
        // What the caller said of it stands beside the schema, where a pack has its own.
        if let (Some(description), false) = (whole.get("description"), fields.contains_key("description")) {
            fields.insert("description".to_owned(), description.clone());
        }
        if let Some(Value::Object(own)) = fields.remove("$defs") {
            known = own;
        }
        if let Some(older) = fields.remove("definitions") {
            document.insert("definitions".to_owned(), older);
        }
    }
    let mut name = ITEM.to_owned();
    while known.contains_key(&name) {
        name.push('_');
    }
    let root = format!("#/$defs/{name}");
    known.insert(name, item);
    document.insert("$defs".to_owned(), Value::Object(known));
    for schemas in document.values_mut().filter_map(Value::as_object_mut) {
        schemas.values_mut().for_each(|schema| move_references(schema, &root));
    }
    (root, document)
}

fn move_references(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(reference) if name == "$ref" => {
                        if let Some(moved) = moved(reference, root) {
                            *reference = moved;
                        }
                    }
                    Value::Object(schemas) if NAMED.contains(&name.as_str()) => {
                        schemas.values_mut().for_each(|schema| move_references(schema, root));
                    }
                    _ if DATA.contains(&name.as_str()) => {}
                    _ => move_references(value, root),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, root)),
        _ => {}
    }
}

/// None: it stays.
fn moved(reference: &str, root: &str) -> Option<String> {
    let pointer = reference.strip_prefix('#')?;
    let stays = pointer.starts_with("/$defs/") || pointer.starts_with("/definitions/");
    (!stays).then(|| format!("{root}{pointer}"))
}
