//! Events of the Responses API. Its last event carries the whole answer.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// A response as far as it has come.
#[derive(Debug, Default)]
pub struct Responses {
    /// The newest response object; before the end it tells the model, but no usage.
    pub response: Option<Object>,
    ended: bool,
    pub text_len: usize,
    /// What the model wrote.
    pub text: String,
}

impl Responses {
    /// Takes an event. False: the response failed.
    pub fn push(&mut self, mut event: Object) -> bool {
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        if matches!(kind, "error" | "response.failed" | "response.cancelled") {
            return false;
        }
        if kind.ends_with(".delta") {
            let delta = event.get("delta").and_then(Value::as_str).unwrap_or_default();
            self.text_len += delta.len();
            self.text.push_str(delta);
        }
        self.ended |= matches!(kind, "response.completed" | "response.incomplete");
        if let Some(Value::Object(response)) = event.remove("response") {
            self.response = Some(response);
        }
        true
    }

    pub fn finish(self) -> Option<Value> {
        self.response.filter(|_| self.ended).map(Value::Object)
    }
}

/// Whether an event of this type is the last one.
pub fn is_end(kind: &str) -> bool {
    matches!(kind, "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled")
}

/// The events of a plain response.
pub fn replay(body: &Value) -> Vec<Value> {
    let mut events = Events::default();
    let mut begun = body.as_object().cloned().unwrap_or_default();
    let output = match begun.insert("output".to_owned(), json!([])) {
        Some(Value::Array(output)) => output,
        _ => Vec::new(),
    };
    begun.insert("status".to_owned(), "in_progress".into());
    for name in ["usage", "incomplete_details", "completed_at"] {
        if let Some(value) = begun.get_mut(name) {
            *value = Value::Null;
        }
    }
    events.add("response.created", json!({"response": begun}));
    events.add("response.in_progress", json!({"response": begun}));
    for (position, item) in output.into_iter().enumerate() {
        events.item(position, item);
    }
    let last = match body.get("status").and_then(Value::as_str) {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    events.add(last, json!({"response": body}));
    events.0
}

#[derive(Default)]
struct Events(Vec<Value>);

impl Events {
    fn add(&mut self, kind: &str, mut event: Value) {
        event["type"] = kind.into();
        event["sequence_number"] = self.0.len().into();
        self.0.push(event);
    }

    fn item(&mut self, position: usize, item: Value) {
        let mut begun = item.clone();
        let id = item.get("id").cloned().unwrap_or_default();
        let kind = item.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if begun.get("status").is_some() {
            begun["status"] = "in_progress".into();
        }
        let at = json!({"item_id": id, "output_index": position});
        match kind.as_str() {
            "message" => {
                begun["content"] = json!([]);
                self.begin(position, begun);
                for (index, part) in parts(&item, "content").iter().enumerate() {
                    self.part(&with(&at, json!({"content_index": index})), part);
                }
            }
            "function_call" | "custom_tool_call" => {
                let (field, name) = match kind.as_str() {
                    "function_call" => ("arguments", "response.function_call_arguments"),
                    _ => ("input", "response.custom_tool_call_input"),
                };
                let text = item.get(field).and_then(Value::as_str).unwrap_or_default();
                begun[field] = "".into();
                self.begin(position, begun);
                self.add(&format!("{name}.delta"), with(&at, json!({"delta": text})));
                let mut done = with(&at, json!({ field: text }));
                if kind == "function_call" {
                    done["name"] = item.get("name").cloned().unwrap_or_default();
                }
                self.add(&format!("{name}.done"), done);
            }
            "reasoning" => {
                begun["summary"] = json!([]);
                self.begin(position, begun);
                for (index, part) in parts(&item, "summary").iter().enumerate() {
                    self.summary(&with(&at, json!({"summary_index": index})), part);
                }
            }
            _ => self.begin(position, begun),
        }
        self.add("response.output_item.done", json!({"output_index": position, "item": item}));
    }

    fn begin(&mut self, position: usize, item: Value) {
        self.add("response.output_item.added", json!({"output_index": position, "item": item}));
    }

    fn part(&mut self, at: &Value, part: &Value) {
        if !part.is_object() {
            return;
        }
        let field = if part.get("type").and_then(Value::as_str) == Some("refusal") { "refusal" } else { "text" };
        let name = if field == "text" { "response.output_text" } else { "response.refusal" };
        let text = part.get(field).and_then(Value::as_str).unwrap_or_default();
        let mut begun = part.clone();
        begun[field] = "".into();
        for list in ["annotations", "logprobs"] {
            if begun.get(list).is_some() {
                begun[list] = json!([]);
            }
        }
        self.add("response.content_part.added", with(at, json!({"part": begun})));
        let logprobs = if field == "text" {
            json!({"logprobs": part.get("logprobs").cloned().unwrap_or_else(|| json!([]))})
        } else {
            json!({})
        };
        self.add(&format!("{name}.delta"), with(&with(at, json!({"delta": text})), logprobs.clone()));
        for (index, annotation) in parts(part, "annotations").iter().enumerate() {
            let event = json!({"annotation_index": index, "annotation": annotation});
            self.add("response.output_text.annotation.added", with(at, event));
        }
        self.add(&format!("{name}.done"), with(&with(at, json!({ field: text })), logprobs));
        self.add("response.content_part.done", with(at, json!({"part": part})));
    }

    fn summary(&mut self, at: &Value, part: &Value) {
        if !part.is_object() {
            return;
        }
        let text = part.get("text").and_then(Value::as_str).unwrap_or_default();
        let mut begun = part.clone();
        begun["text"] = "".into();
        self.add("response.reasoning_summary_part.added", with(at, json!({"part": begun})));
        self.add("response.reasoning_summary_text.delta", with(at, json!({"delta": text})));
        self.add("response.reasoning_summary_text.done", with(at, json!({"text": text})));
        self.add("response.reasoning_summary_part.done", with(at, json!({"part": part})));
    }
}

fn parts<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
