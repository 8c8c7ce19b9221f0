//! What can be seen of a draft for free: marks of an answer that is of no use, whatever the question.
//!
//! Finds form, not truth: an answer without findings may be wrong in every word. The checks are made to be silent on good
//! answers rather than to catch all bad ones; what each can and cannot see is said where it is.

pub mod code;
pub mod language;
mod refusal;
mod repetition;
mod restated;

use serde_json::Value;

use super::answer::{Answer, Choice, ToolCall};
use super::schema::{self, Verdict};
use crate::question::{Question, ToolChoice};

/// A mark of a bad answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// For the receipt.
    pub what: &'static str,
    /// 0 to 1; 1 = certainly unusable.
    pub severity: f64,
}

/// All findings, each once, over all choices. `given_limit`: the caller set the output limit itself, so that an answer that
/// reaches it is what was asked for, unless it breaks off within a sentence.
pub fn findings(question: &Question, answer: &Answer, given_limit: bool) -> Vec<Finding> {
    let mut findings = Findings::default();
    if answer.choices.is_empty() {
        findings.add("empty", 1.0);
    }
    // Read once for all choices.
    let context = context(question);
    for choice in &answer.choices {
        look(question, &context, choice, given_limit, &mut findings);
    }
    findings.0
}

/// 1 = no findings; each takes its severity's share of what is left.
pub fn score(findings: &[Finding]) -> f64 {
    findings.iter().map(|finding| 1.0 - finding.severity.clamp(0.0, 1.0)).product()
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &'static str, severity: f64) {
        match self.0.iter_mut().find(|known| known.what == what) {
            Some(known) => known.severity = known.severity.max(severity),
            None => self.0.push(Finding { what, severity }),
        }
    }

    fn add_if(&mut self, is_so: bool, what: &'static str, severity: f64) {
        if is_so {
            self.add(what, severity);
        }
    }
}

/// Bytes of a conversation, from its end, in which words are looked for that excuse a finding.
const MOST_CONTEXT: usize = 64 * 1024;

/// All that the application said: what it asked for somewhere is no fault of the answer.
fn context(question: &Question) -> String {
    let mut context = question.system.clone();
    for message in question.messages.iter().rev() {
        if context.len() > MOST_CONTEXT {
            break;
        }
        context.push('\n');
        context.push_str(&super::answer::text_of(message.get("content").unwrap_or(&Value::Null)));
    }
    if question.messages.is_empty() {
        context.push_str(&question.prompt);
    }
    context
}

fn look(question: &Question, context: &str, choice: &Choice, given_limit: bool, findings: &mut Findings) {
    let text = choice.text.as_str();
    let calls = !choice.tool_calls.is_empty() || choice.other_calls > 0;
    findings.add_if(choice.finish.as_deref() == Some("content_filter"), "stopped by a content filter", 1.0);
    look_at_tools(question, choice, findings);
    if choice.refusal.is_some() {
        findings.add("refusal", 1.0);
        return;
    }
    if is_blank(text) {
        // An answer in sound has no text.
        findings.add_if(!calls && !question.has_audio, "empty", 1.0);
        return;
    }
    if choice.finish.as_deref() == Some("length") {
        findings.add_if(!given_limit, "cut off", 1.0);
        findings.add_if(given_limit && breaks_off(text), "cut off", 0.6);
    }
    if question.wants_json && !calls {
        look_at_json(question, text, findings);
        return;
    }
    if let Some(severity) = refusal::severity(text, context) {
        findings.add("refusal", severity);
    }
    let blocks = code::Blocks::read(text);
    findings.add_if(blocks.is_open, "a code block that does not end", 0.6);
    findings.add_if(blocks.has_broken_python(context), "Python that does not parse", 0.6);
    findings.add_if(blocks.has_broken_json(context), "JSON that does not parse", 0.4);
    findings.add_if(blocks.has_unbalanced_code(context), "code with unbalanced brackets", 0.4);
    let is_cut = choice.finish.as_deref() == Some("length");
    if let Some(severity) = repetition::severity(text, &blocks.prose, context, is_cut) {
        findings.add("repetition", severity);
    }
    if let Some(severity) = language::severity(&question.prompt, context, &blocks.prose) {
        findings.add("another language than the question's", severity);
    }
    if let Some(severity) = restated::severity(&question.prompt, text) {
        findings.add("restates the question", severity);
    }
}

/// Nothing that can be seen: white space, and characters without width.
fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || c.is_control() || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}'))
}

/// Whether a text ends within a sentence: it does not end in what ends a sentence, a block or a list.
fn breaks_off(text: &str) -> bool {
    let last = text.trim_end().chars().next_back();
    last.is_some_and(|c| {
        c.is_alphanumeric() || matches!(c, ',' | ';' | ':' | '-' | '(' | '[' | '{' | '=' | '、' | '，')
    })
}

/// Calls that were asked for and did not come, and those that cannot be made. Cannot see whether a call makes sense.
fn look_at_tools(question: &Question, choice: &Choice, findings: &mut Findings) {
    let calls = &choice.tool_calls;
    let is_missing = match &question.tool_choice {
        ToolChoice::Required => calls.is_empty() && choice.other_calls == 0,
        ToolChoice::Named(name) => !calls.iter().any(|call| call.name == *name),
        ToolChoice::Auto | ToolChoice::None => false,
    };
    findings.add_if(is_missing, "a tool call is missing", 1.0);
    findings.add_if(
        question.tool_choice == ToolChoice::None && !calls.is_empty(),
        "a tool call that was not to be",
        1.0,
    );
    for call in calls {
        look_at_call(question, call, findings);
    }
}

fn look_at_call(question: &Question, call: &ToolCall, findings: &mut Findings) {
    let Some(tool) = question.tools.iter().find(|tool| tool.name == call.name) else {
        // Custom tools are known by their number only.
        findings.add_if(question.other_tools == 0, "a call of an unknown tool", 1.0);
        return;
    };
    if call.is_custom {
        return;
    }
    // Models write nothing for no arguments.
    let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    match parse(text) {
        Parsed::Broken => findings.add("tool arguments that are not JSON", 1.0),
        Parsed::Value(value) => {
            let fails = tool.parameters.as_ref().is_some_and(|known| schema::check(known, &value) == Verdict::Fails);
            findings.add_if(fails || !value.is_object(), "tool arguments against their schema", 1.0);
        }
        Parsed::Unsure => {}
    }
}

/// JSON was asked for. A code block around it is what no parser takes, though many applications cut it off.
fn look_at_json(question: &Question, text: &str, findings: &mut Findings) {
    let (inner, is_fenced) = match code::unfenced(text) {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    match parse(inner) {
        Parsed::Broken => findings.add("not JSON", 1.0),
        Parsed::Value(value) => {
            findings.add_if(is_fenced, "JSON in a code block", 0.7);
            let fails = question.schema.as_ref().is_some_and(|known| schema::check(known, &value) == Verdict::Fails);
            findings.add_if(fails, "JSON against its schema", 1.0);
        }
        Parsed::Unsure => {}
    }
}

enum Parsed {
    Value(Value),
    Broken,
    /// Deeper than it is read here.
    Unsure,
}

fn parse(text: &str) -> Parsed {
    match serde_json::from_str(text.trim()) {
        Ok(value) => Parsed::Value(value),
        // Of its own limit the parser says nothing but these words; numbers too great for a float are JSON, too.
        Err(error) if error.to_string().contains("recursion limit") => Parsed::Unsure,
        Err(error) if error.to_string().contains("out of range") => Parsed::Unsure,
        Err(_) => Parsed::Broken,
    }
}
