//! One request for several questions, and what was answered.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::NAME;
use super::share::Weights;
use super::window::Seat;
use super::work::{OUTPUT_OVERHEAD, Work, in_vain};
use crate::batch::{Flaw, Format, Pack, Shape, pack};
use crate::context::Context;
use crate::error::Error;
use crate::escalate::answer::Answer;
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::ledger::{Draft, Purpose, Usage};
use crate::patience::Patience;
use crate::receipt::{Facts, Receipt};
use crate::stages::lacking::Place;
use crate::tokens::answer::text_tokens;

/// What a model may write besides, in all: braces, a code fence.
const SLACK: u64 = 32;

/// What of a pack's callers is needed while it is asked; they may leave meanwhile.
pub struct Asked {
    pub cxs: Vec<Context>,
    pub request: Request,
    pub questions: Vec<String>,
    pub tokens: Vec<u64>,
    pub prefix: Vec<Value>,
    pub shape: Shape,
    pub prefix_tokens: u64,
    pub most: Option<u64>,
}

/// An answer to all of a pack.
pub struct Answered {
    pub texts: Vec<Result<String, Flaw>>,
    pub is_cut: bool,
    pub format: Format,
    pub body: Value,
    pub headers: HeaderMap,
    pub draft: Arc<Draft>,
    pub facts: Facts,
    /// Tokens of the whole request beyond its questions and what comes before them.
    pub overhead: u64,
}

/// Why there is none.
pub struct Failed {
    pub why: String,
    /// Whether the same pack may do better.
    pub again: bool,
}

impl Work {
    /// One request; the answers in the order of the questions, whatever the order they were asked in.
    pub async fn ask_once(&self, asked: &Asked, order: &[usize]) -> Result<Answered, Failed> {
        let place = asked.place();
        let settings = &self.shared.settings;
        let mut format = match settings.format {
            Some(format) => format,
            None if self.shared.without_schemas.knows(&place) => Format::Lines,
            None => Format::Json,
        };
        loop {
            let questions: Vec<&str> =
                order.iter().filter_map(|at| asked.questions.get(*at)).map(String::as_str).collect();
            let packed = pack(&questions, format, &asked.shape);
            let request = asked.request(&packed);
            let Some(leader) = asked.leader() else {
                return Err(Failed { why: "nobody asks".to_owned(), again: false });
            };
            let draft = Arc::new(Draft::new(leader.books.clone(), NAME));
            let facts = leader.receipt.read(|facts| Facts {
                model_asked: Arc::clone(&facts.model_asked),
                tag: facts.tag.clone(),
                ..Facts::default()
            });
            let limits = leader.tier.as_ref().and_then(|tier| tier.target.limits).unwrap_or(leader.limits);
            let cx = Context {
                receipt: Arc::new(Receipt::new(facts)),
                purpose: Purpose::Draft(Arc::clone(&draft)),
                patience: Arc::new(Patience::alone(limits)),
                limits,
                wishes: None,
                packing: None,
                ..leader.clone()
            };
            let result = self.next.clone().run(&cx, request).await;
            let facts = cx.receipt.facts();
            let failed = |why: String, again: bool| {
                asked.book_in_vain(&draft);
                asked.note_attempts(&facts);
                Err(Failed { why, again })
            };
            let response = match result {
                Ok(response) => response,
                Err(error @ Error::Budget(_)) => return failed(error.to_string(), false),
                Err(error) => return failed(format!("the pack failed: {error}"), true),
            };
            // What it refuses may be the schema that we asked for.
            if matches!(response.status, 400 | 404 | 422) && format == Format::Json && settings.format.is_none() {
                self.shared.without_schemas.remember(place.clone());
                format = Format::Lines;
                asked.note_attempts(&facts);
                continue;
            }
            if !response.is_success() {
                let again = matches!(response.status, 408 | 429) || response.status >= 500;
                return failed(format!("the pack was answered with status {}", response.status), again);
            }
            let Body::Full(body) = &response.body else {
                return failed("the pack's answer is a stream".to_owned(), false);
            };
            let read = Answer::read(Endpoint::Chat, body)
                .and_then(|answer| Some((answer.choices.into_iter().next()?, answer.body)));
            let Some((choice, body)) = read else { return failed("the pack's answer is none".to_owned(), true) };
            let finish = choice.finish.as_deref();
            if choice.refusal.is_some() || finish == Some("content_filter") {
                // For the sake of one question, all would be refused again.
                return failed("the pack was refused".to_owned(), false);
            }
            let is_cut = finish == Some("length");
            let mut texts: Vec<Result<String, Flaw>> = vec![Err(Flaw::Missing); order.len()];
            for (text, at) in packed.split(&choice.text, is_cut).into_iter().zip(order) {
                texts[*at] = text;
            }
            let overhead = asked.overhead_of(&packed);
            asked.note_attempts(&facts);
            return Ok(Answered { texts, is_cut, format, body, headers: response.headers, draft, facts, overhead });
        }
    }
}

impl Asked {
    /// None: nobody is there.
    pub fn of(seats: &[Seat]) -> Option<Self> {
        let first = seats.first()?;
        Some(Self {
            cxs: seats.iter().map(|seat| seat.cx.clone()).collect(),
            request: first.request.clone(),
            questions: seats.iter().map(|seat| seat.item.question.clone()).collect(),
            tokens: seats.iter().map(|seat| seat.item.question_tokens).collect(),
            prefix: first.item.prefix.clone(),
            shape: first.item.shape.clone(),
            prefix_tokens: first.item.prefix_tokens,
            most: first.item.most,
        })
    }

    /// As the server knows it.
    pub fn model(&self) -> String {
        let tier = self.leader().and_then(|cx| cx.tier.as_ref());
        tier.map_or_else(|| self.request.model().unwrap_or_default(), |tier| tier.model().to_owned())
    }

    pub fn url(&self) -> &Arc<str> {
        let tier = self.leader().and_then(|cx| cx.tier.as_ref());
        tier.map_or(&self.request.url, |tier| &tier.target.url)
    }

    /// As the policy knows it.
    pub fn name(&self) -> Arc<str> {
        let tier = self.leader().and_then(|cx| cx.tier.as_ref().map(|tier| Arc::clone(tier.name())));
        let asked = || self.leader().map(|cx| cx.receipt.read(|facts| Arc::clone(&facts.model_asked)));
        tier.or_else(asked).unwrap_or_default()
    }

    pub fn place(&self) -> Place {
        (Arc::clone(self.url()), self.model().into())
    }

    /// Whose surroundings the pack has: all of them are the same in what counts.
    fn leader(&self) -> Option<&Context> {
        self.cxs.first()
    }

    /// The pack as one of its calls would have been sent.
    fn request(&self, packed: &Pack) -> Request {
        let mut messages = self.prefix.clone();
        messages.push(json!({"role": "user", "content": packed.message}));
        let count = packed.ids.len() as u64;
        let mut fields: Vec<(Cow<'_, str>, Cow<'_, [u8]>)> = Vec::new();
        for (name, value) in self.request.fields() {
            let value: Cow<'_, [u8]> = match (name, self.most) {
                ("messages", _) => Value::from(messages.clone()).to_string().into_bytes().into(),
                ("response_format", _) => continue,
                ("max_tokens" | "max_completion_tokens", Some(most)) if value != b"null" => {
                    let all = most.saturating_add(OUTPUT_OVERHEAD).saturating_mul(count).saturating_add(SLACK);
                    all.to_string().into_bytes().into()
                }
                _ => value.into(),
            };
            fields.push((name.into(), value));
        }
        if let Some(format) = self.format_of(packed) {
            fields.push(("response_format".into(), format.into_bytes().into()));
        }
        self.request.with_fields(&fields)
    }

    /// About what a pack takes besides its questions, before anything is sent.
    pub fn overhead(&self) -> u64 {
        let questions: Vec<&str> = self.questions.iter().map(String::as_str).collect();
        self.overhead_of(&pack(&questions, Format::Json, &self.shape))
    }

    fn overhead_of(&self, packed: &Pack) -> u64 {
        let model = self.model();
        // A schema is read as part of the prompt; one that the calls have would be read with each of them.
        let schema = self.format_of(packed).map_or(0, |format| text_tokens(&model, &format).tokens);
        let all = text_tokens(&model, &packed.message).tokens.saturating_add(schema);
        all.saturating_sub(self.tokens.iter().sum())
    }

    fn format_of(&self, packed: &Pack) -> Option<String> {
        let own = self.request.raw("response_format").and_then(|raw| std::str::from_utf8(raw).ok());
        packed.response_format_text(own)
    }

    /// What was paid and is nobody's answer: of each caller's an even part.
    pub fn book_in_vain(&self, draft: &Draft) {
        for charge in draft.take() {
            let parts = Weights::new(&self.tokens, &[], charge.usage.prompt).charges(&charge);
            self.cxs.iter().zip(parts).for_each(|(cx, part)| in_vain(cx, part));
        }
    }

    /// What went out for all of them stands on each receipt.
    pub fn note_attempts(&self, facts: &Facts) {
        for cx in &self.cxs {
            cx.receipt.update(|own| {
                own.attempts.extend(facts.attempts.iter().cloned());
                facts.notes.iter().for_each(|note| own.note(note.clone()));
            });
        }
    }
}

/// A ChatCompletion for one of a pack, as the upstream would have made it of the question alone.
pub fn answer(whole: &Answered, place: usize, text: &str, usage: Option<&Usage>) -> Response {
    let mut body = Map::new();
    for name in ["id", "object", "created", "model"] {
        if let Some(value) = whole.body.get(name) {
            body.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(Value::String(id)) = body.get_mut("id") {
        let _ = write!(id, "-{}", place + 1);
    }
    let message = json!({"role": "assistant", "content": text, "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    body.insert("choices".to_owned(), json!([choice]));
    if let Some(usage) = usage {
        body.insert(
            "usage".to_owned(),
            json!({
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.total(),
                "prompt_tokens_details": {"cached_tokens": usage.cached},
                "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
            }),
        );
    }
    for name in ["service_tier", "system_fingerprint"] {
        if let Some(value) = whole.body.get(name) {
            body.insert(name.to_owned(), value.clone());
        }
    }
    let mut headers = whole.headers.clone();
    // Of the whole body.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    Response::new(200, headers, Body::Full(Value::from(body).to_string().into()))
}
