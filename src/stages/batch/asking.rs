//! One request for several questions, and what was answered.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::NAME;
use super::group::{model, prefix_tokens};
use super::share::Weights;
use super::window::{Seat, turn};
use super::work::Task;
use super::work::{OUTPUT_OVERHEAD, Work, in_vain};
use crate::batch::{Flaw, Format, Pack, Shape, pack};
use crate::context::Context;
use crate::error::{Error, Phase};
use crate::escalate::answer::{Answer, Choice};
use crate::escalate::extract::normalised;
use crate::exchange::{Body, Endpoint, Request, Response};
use crate::ledger::{Charge, Draft, Purpose, Usage};
use crate::patience::{Limits, Patience};
use crate::receipt::{Attempt, Facts};
use crate::stages::aside::beside;
use crate::stages::lacking::Place;
use crate::tokens::answer::text_tokens;
use crate::upstream::retry::{self, judge};

/// What a model may write besides, in all: braces, a code fence.
const SLACK: u64 = 32;

/// What of a pack's callers is needed while it is asked; they may leave meanwhile.
pub struct Asked {
    pub cxs: Vec<Context>,
    pub request: Request,
    /// As the server knows it.
    pub model: String,
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
    /// Of another model or upstream than was asked.
    pub is_substitute: bool,
    pub body: Value,
    pub headers: HeaderMap,
    pub draft: Arc<Draft>,
    pub facts: Facts,
    /// Tokens of the whole request beyond its questions and what comes before them.
    pub overhead: u64,
}

impl Answered {
    /// Whether it was worth its cost. What is asked again alone costs more than it would have without a pack; one that was
    /// too long may do in two.
    pub fn has_paid(&self) -> bool {
        let good = self.texts.iter().filter(|text| text.is_ok()).count();
        good > 0 && (self.is_cut || good * 2 >= self.texts.len())
    }
}

/// Why there is none.
pub struct Failed {
    pub why: String,
    /// Whether the same pack may do better, and when, if the server says so.
    pub again: Option<Option<Duration>>,
    /// What was refused may be the schema that we asked for.
    pub refuses: bool,
    /// Whether it says something of packs, and not of the hour, or of one of the questions.
    pub is_against_packs: bool,
    /// What each of the calls would be answered alone.
    pub answer: Option<Box<Refusal>>,
}

/// An answer that says nothing of a question.
#[derive(Clone)]
pub struct Refusal {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Refusal {
    pub fn response(&self) -> Response {
        Response::new(self.status, self.headers.clone(), Body::Full(self.body.clone()))
    }
}

impl Work {
    /// One request; the answers in the order of the questions, whatever the order they were asked in.
    pub async fn ask_once(&self, asked: &Asked, order: &[usize], format: Format) -> Result<Answered, Failed> {
        let fails = |why: String, again: Option<Option<Duration>>| Failed {
            why,
            again,
            refuses: false,
            is_against_packs: false,
            answer: None,
        };
        let Some(leader) = asked.leader() else { return Err(fails("nobody asks".to_owned(), None)) };
        let questions: Vec<&str> = order.iter().filter_map(|at| asked.questions.get(*at)).map(String::as_str).collect();
        let packed = pack(&questions, format, &asked.shape);
        let draft = Arc::new(Draft::new(leader.books.clone(), NAME));
        let (limits, patience) = asked.patience();
        let _turn = turn(leader).await;
        let cx = beside(leader, Purpose::Draft(Arc::clone(&draft)), limits, patience);
        let result = self.next.clone().run(&cx, asked.request(&packed)).await;
        let facts = cx.receipt.facts();
        let answered = match read(result, fails) {
            Ok(answered) => answered,
            Err(failed) => {
                asked.book_in_vain(&draft, &facts);
                return Err(failed);
            }
        };
        let (choice, body, response) = answered;
        let is_cut = choice.finish.as_deref() == Some("length");
        let mut texts: Vec<Result<String, Flaw>> = vec![Err(Flaw::Missing); order.len()];
        for (text, at) in packed.split(&choice.text, is_cut).into_iter().zip(order) {
            // Small models do that in packs, and it looks like an answer.
            let is_echo = |text: &String| asked.questions.get(*at).is_some_and(|question| same(text, question));
            if let Some(place) = texts.get_mut(*at) {
                *place = text.and_then(|text| if is_echo(&text) { Err(Flaw::Echo) } else { Ok(text) });
            }
        }
        let overhead = asked.overhead_of(&packed);
        let Response { headers, is_substitute, .. } = response;
        Ok(Answered { texts, is_cut, is_substitute, body, headers, draft, facts, overhead })
    }
}

/// But for case, blanks and punctuation.
fn same(one: &str, other: &str) -> bool {
    normalised(one) == normalised(other)
}

/// What of an answer can be split.
fn read(
    result: crate::error::Result<Response>,
    fails: impl Fn(String, Option<Option<Duration>>) -> Failed,
) -> Result<(Choice, Value, Response), Failed> {
    let response = match result {
        Ok(response) => response,
        Err(error @ Error::Budget(_)) => return Err(fails(error.to_string(), None)),
        // It had all the time that its callers have.
        Err(error @ Error::Timeout { phase: Phase::Read, .. }) => {
            return Err(Failed { is_against_packs: true, ..fails(format!("the pack failed: {error}"), None) });
        }
        Err(error) => return Err(fails(format!("the pack failed: {error}"), Some(None))),
    };
    let Body::Full(whole) = &response.body else {
        return Err(fails("the pack's answer is a stream".to_owned(), None));
    };
    if !response.is_success() {
        let again = match judge(response.status, &response.headers, SystemTime::now()) {
            retry::Verdict::Retry(wish) => Some(wish),
            retry::Verdict::Final => None,
        };
        let refuses = matches!(response.status, 400 | 404 | 422);
        // A key that does not hold for ten questions does not hold for one.
        let says_it_of_all = response.status == 401;
        let answer = says_it_of_all.then(|| Refusal {
            status: response.status,
            headers: response.headers.clone(),
            body: whole.clone(),
        });
        let answer = answer.map(Box::new);
        let why = format!("the pack was answered with status {}", response.status);
        return Err(Failed { why, again, refuses, is_against_packs: refuses, answer });
    }
    let answer = Answer::read(Endpoint::Chat, whole);
    let Some((choice, body)) = answer.and_then(|answer| Some((answer.choices.into_iter().next()?, answer.body))) else {
        return Err(fails("the pack's answer is none".to_owned(), Some(Some(Duration::ZERO))));
    };
    if choice.refusal.is_some() || choice.finish.as_deref() == Some("content_filter") {
        // For the sake of one question, all would be refused again.
        return Err(fails("the pack was refused".to_owned(), None));
    }
    Ok((choice, body, response))
}

impl Asked {
    /// None: nobody is there.
    pub fn of(seats: &[Seat]) -> Option<Self> {
        let first = seats.first()?;
        let model = model(&first.cx, &first.request);
        Some(Self {
            cxs: seats.iter().map(|seat| seat.cx.clone()).collect(),
            request: first.request.clone(),
            questions: seats.iter().map(|seat| seat.item.question.clone()).collect(),
            tokens: seats.iter().map(|seat| seat.item.question_tokens).collect(),
            prefix: first.item.prefix.clone(),
            shape: first.item.shape.clone(),
            prefix_tokens: prefix_tokens(&model, &first.item.prefix),
            model,
            most: first.item.most,
        })
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
        (Arc::clone(self.url()), self.model.as_str().into())
    }

    /// Reads all that the questions have in common: once a pack.
    pub fn task(&self) -> Task {
        let mut hash = DefaultHasher::new();
        Value::from(self.prefix.clone()).to_string().hash(&mut hash);
        (self.place(), hash.finish())
    }

    /// The pack is as patient as the most patient of its callers; each of them leaves by its own time. Once is enough: what
    /// fails is asked again by who asked for the pack.
    fn patience(&self) -> (Limits, Arc<Patience>) {
        let patience = Patience::default();
        for cx in &self.cxs {
            patience.join(Limits { max_retries: 0, ..cx.limits });
        }
        let limits = patience.limits().unwrap_or(Limits { connect: None, read: None, write: None, max_retries: 0 });
        (limits, Arc::new(patience))
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
        // A schema is read as part of the prompt; one that the calls have would be read with each of them.
        let schema = self.format_of(packed).map_or(0, |format| text_tokens(&self.model, &format).tokens);
        let all = text_tokens(&self.model, &packed.message).tokens.saturating_add(schema);
        all.saturating_sub(self.tokens.iter().sum())
    }

    fn format_of(&self, packed: &Pack) -> Option<String> {
        let own = self.request.raw("response_format").and_then(|raw| std::str::from_utf8(raw).ok());
        packed.response_format_text(own)
    }

    /// What was paid and is nobody's answer: of each caller's an even part.
    pub fn book_in_vain(&self, draft: &Draft, facts: &Facts) {
        for charge in draft.take() {
            let parts = Weights::new(&self.tokens, &[], charge.usage.prompt).charges(&charge);
            self.cxs.iter().zip(parts).for_each(|(cx, part)| in_vain(cx, part));
        }
        self.note_attempts(facts, &[]);
    }

    /// What went out for all of them stands on each receipt, with the call's part of it. `answers`: tokens of each.
    pub fn note_attempts(&self, facts: &Facts, answers: &[u64]) {
        for attempt in &facts.attempts {
            let usage =
                Usage { prompt: attempt.prompt_tokens, completion: attempt.completion_tokens, ..Usage::default() };
            let whole = Charge { model: Arc::default(), tag: None, stage: NAME, usage, cost: attempt.cost };
            let parts = Weights::new(&self.tokens, answers, attempt.prompt_tokens).charges(&whole);
            for (cx, part) in self.cxs.iter().zip(parts) {
                let own = Attempt {
                    prompt_tokens: part.usage.prompt,
                    completion_tokens: part.usage.completion,
                    cost: part.cost,
                    ..attempt.clone()
                };
                cx.receipt.update(|facts| facts.attempts.push(own));
            }
        }
        for cx in &self.cxs {
            cx.receipt.update(|own| facts.notes.iter().for_each(|note| own.note(note.clone())));
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
    let mut response = Response::new(200, headers, Body::Full(Value::from(body).to_string().into()));
    response.is_substitute = whole.is_substitute;
    response
}
