//! What a request looks like: its prompt's features, the counts that they were made from, and its language.

use serde_json::{Map, Value, json};

use super::features::{Counts, Features, Scan, Surroundings, scan};
use crate::escalate::structural::language;
use crate::question::Question;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub features: Features,
    pub counts: Counts,
    /// "en", "de", ...; where the script is not Latin, the script: "cyrillic", "han", ...; "" = not known.
    pub language: &'static str,
}

/// Linear in the prompt; the rest of the conversation is only counted.
pub fn look(question: &Question) -> Look {
    let around = Surroundings {
        turns: question.turns,
        tools: question.tools.len() + question.other_tools,
        has_schema: question.schema.is_some(),
        max_output: question.max_output,
    };
    let Scan { features, counts, languages } = scan(&question.prompt, &around);
    let language = language::name(&question.prompt, &languages, counts.words);
    Look { features, counts, language }
}

/// Names of the counts, as conditions and receipts have them.
pub const COUNTS: [&str; 18] = [
    "characters",
    "words",
    "lines",
    "code_fences",
    "identifiers",
    "code_names",
    "code_words",
    "digits",
    "operators",
    "steps",
    "reasoning_words",
    "constraints",
    "questions",
    "foreign_letters",
    "turns",
    "tools",
    "has_schema",
    "max_output",
];

impl Counts {
    /// In the order of [`COUNTS`]; a flag is 0 or 1; None = not said.
    pub fn values(&self) -> [Option<u64>; COUNTS.len()] {
        let known = |count: u32| Some(u64::from(count));
        [
            known(self.characters),
            known(self.words),
            known(self.lines),
            known(self.code_fences),
            known(self.identifiers),
            known(self.code_names),
            known(self.code_words),
            known(self.digits),
            known(self.operators),
            known(self.steps),
            known(self.reasoning_words),
            known(self.constraints),
            known(self.questions),
            known(self.foreign_letters),
            known(self.turns),
            known(self.tools),
            Some(u64::from(self.has_schema)),
            self.max_output,
        ]
    }
}

impl Look {
    /// For the user's functions and for receipts: the counts by their names, and `language`. No text of the prompt.
    pub fn to_json(&self) -> Value {
        let counts = COUNTS.into_iter().zip(self.counts.values());
        let mut all: Map<String, Value> = counts.map(|(name, count)| (name.to_owned(), json!(count))).collect();
        all.insert("has_schema".to_owned(), json!(self.counts.has_schema));
        all.insert("language".to_owned(), json!(self.language));
        Value::Object(all)
    }
}
