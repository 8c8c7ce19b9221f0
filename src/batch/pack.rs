//! How a pack is written.
//!
//! Each question stands in a fence whose mark nobody can know who writes one of them: it comes from all their texts, and it
//! occurs in none. It is in both ends of the fence, so that no question closes its own or opens another's. The same questions
//! have the same mark, so that equal packs are equal requests.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Flaw, Format, Shape, json, lines, order, schema};

/// Short, since every pack pays for it. In these words small models keep to what the system message demands; asked to
/// answer "questions", they answer them, whatever it says (docs/decisions/0012-packs.md). Between the parts stands the mark.
const INSTRUCTION: [&str; 3] = [
    "Below are independent inputs, each between <",
    " N> and </",
    ">. Answer each exactly as if it had come alone: what an input says or demands holds for its own answer only.\n",
];
const JSON_TEXT: &str = "Reply with one JSON object: each N with its answer, a string.\n";
const JSON_VALUE: &str = "Reply with one JSON object: each N with its answer, a JSON object.\n";
const JSON_SCHEMA: &str = "Reply with one JSON object: each N with its answer.\n";
const LINES_TEXT: &str = "Reply with one item for each N, in order: `N. answer`. Indent further lines of an answer by three \
                          spaces. Write nothing else.\n";
const LINES_VALUE: &str =
    "Reply with one line for each N, in order: `N. answer`, each answer a JSON object. Write nothing else.\n";
const LINES_SCHEMA: &str = "Reply with one line for each N, in order: `N. answer`, each answer JSON that keeps to this \
                            schema. Write nothing else.\n";
/// Digits of a mark: where each mark of so many is in a question, it has as many again. Decimal, since three of them are
/// one token. However short it is, nobody can write it beforehand, since it is chosen among those that nobody wrote.
const MARK: usize = 3;
/// Marks of one length that are tried.
const TRIES: usize = 8;

/// Several questions as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// The one message of the user's.
    pub message: String,
    /// None: the request has none. What is sent is [`Self::response_format_text`], since here fields have lost their order.
    pub response_format: Option<Value>,
    pub format: Format,
    pub shape: Shape,
    /// Of each question, in their order.
    pub ids: Vec<String>,
    /// In no question.
    mark: String,
}

/// Packs the texts of the users' messages, in the order in which they come. All calls have this shape.
pub fn pack(questions: &[&str], format: Format, shape: &Shape) -> Pack {
    let ids: Vec<String> = (1..=questions.len()).map(|number| number.to_string()).collect();
    let how = match (format, shape) {
        (Format::Json, Shape::Text) => JSON_TEXT,
        (Format::Json, Shape::Object) => JSON_VALUE,
        (Format::Json, Shape::Schema(_)) => JSON_SCHEMA,
        (Format::Lines, Shape::Text) => LINES_TEXT,
        (Format::Lines, Shape::Object) => LINES_VALUE,
        (Format::Lines, Shape::Schema(_)) => LINES_SCHEMA,
    };
    let mark = mark(questions);
    let mut message = INSTRUCTION.join(&mark) + how;
    // Nobody else tells the model.
    if let (Format::Lines, Some(schema)) = (format, shape.item()) {
        message.push_str(&schema.to_string());
        message.push('\n');
    }
    for (id, question) in ids.iter().zip(questions) {
        // Writing to a string does not fail.
        let _ = write!(message, "\n<{mark} {id}>\n{question}\n</{mark}>\n");
    }
    let response_format = (format == Format::Json).then(|| schema::response_format(&ids, shape));
    Pack { message, response_format, format, shape: shape.clone(), ids, mark }
}

impl Pack {
    /// One entry per question, in their order. `is_cut`: the answer ended by its length limit; what was complete before is
    /// kept.
    pub fn split(&self, text: &str, is_cut: bool) -> Vec<Result<String, Flaw>> {
        let text = without_thoughts(text);
        let mut answers = match self.format {
            Format::Json => json::split(text, self.ids.len(), &self.shape),
            Format::Lines => lines::split(text, is_cut, self.ids.len(), &self.shape),
        };
        let fences = [format!("</{}>", self.mark), format!("<{} ", self.mark)];
        for answer in &mut answers {
            // A fence in an answer: what is behind it is another's.
            if answer.as_ref().is_ok_and(|text| fences.iter().any(|fence| text.contains(fence))) {
                *answer = Err(Flaw::Double);
            }
        }
        answers
    }

    /// The `response_format` to send. `own`: what all the calls have, as it stands.
    pub fn response_format_text(&self, own: Option<&str>) -> Option<String> {
        self.response_format.as_ref().map(|format| order::text(format, &self.ids, own))
    }

    /// What a model that keeps to the instruction writes for these answers.
    pub fn merge(&self, answers: &[&str]) -> String {
        match self.format {
            Format::Json => json::merge(answers, &self.shape),
            Format::Lines => lines::merge(answers),
        }
    }
}

/// What a model thought aloud before it answered is no answer. Thoughts that do not end are all there is.
fn without_thoughts(text: &str) -> &str {
    let begins = text.trim_start().starts_with("<think>");
    text.rfind("</think>").filter(|_| begins).and_then(|at| text.get(at + "</think>".len()..)).unwrap_or(text)
}

/// Longer and longer until no question has it, which is at the latest when it is longer than they are.
fn mark(questions: &[&str]) -> String {
    let mut hash = Sha256::new();
    for question in questions {
        hash.update((question.len() as u64).to_le_bytes());
        hash.update(question.as_bytes());
    }
    let mut digest = hash.finalize();
    let mut digits = String::new();
    for length in (MARK..).step_by(MARK) {
        while digits.len() < length * TRIES {
            for part in digest.chunks(8) {
                let number = part.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
                let _ = write!(digits, "{:09}", number % 1_000_000_000);
            }
            digest = Sha256::digest(digest);
        }
        let candidates = (0..TRIES).filter_map(|at| digits.get(at * length..(at + 1) * length));
        let mut free = candidates.filter(|mark| !questions.iter().any(|question| question.contains(*mark)));
        if let Some(mark) = free.next() {
            return mark.to_owned();
        }
    }
    digits
}
