//! A question of a stage's own to a model: a classifier, a judge. It is overhead, and the caller never sees its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::context::Context;
use crate::escalate::answer::Answer;
use crate::exchange::{Body, Endpoint, Request};
use crate::ledger::Purpose;
use crate::patience::{Limits, Patience};
use crate::pipeline::Next;
use crate::receipt::{Facts, Receipt};
use crate::route::classify::thinks;
use crate::upstream::plan::Tier;

/// Tokens that a model may think before it judges.
const THOUGHT: u64 = 2048;

/// Asks `helper` by chat completions. `fields`: the body, but for the model. `stage`: whose overhead it is.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn ask(
    cx: &Context,
    next: &Next,
    helper: &Arc<Tier>,
    fields: &Value,
    stage: &'static str,
    timeout: Duration,
) -> Result<Bytes, String> {
    let mut body = fields.clone();
    if let Some(members) = body.as_object_mut() {
        members.insert("model".to_owned(), Value::from(helper.model()));
    }
    let (url, headers) = (Arc::clone(&helper.target.url), Arc::clone(&helper.target.headers));
    let request = Request::unkeyed(Endpoint::Chat, url, headers, body.to_string().into());
    answered(cx, next, helper, request, stage, timeout).await
}

/// [`ask`] for a short answer; once more, with room for thoughts, if the model spent it on thinking. Which models think
/// cannot be told by their names. Both have to be there within the one `timeout`.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn ask_briefly(
    cx: &Context,
    next: &Next,
    helper: &Arc<Tier>,
    fields: &Value,
    stage: &'static str,
    timeout: Duration,
) -> Result<Bytes, String> {
    let started = Instant::now();
    let body = ask(cx, next, helper, fields, stage, timeout).await?;
    if fields.get("max_tokens").is_none() || !is_spent_on_thoughts(&body) {
        return Ok(body);
    }
    let left = timeout.saturating_sub(started.elapsed());
    ask(cx, next, helper, &with_thoughts(fields), stage, left).await
}

/// Whether an answer ran into its limit before it began.
fn is_spent_on_thoughts(body: &[u8]) -> bool {
    const MARK: &str = "<think>";
    let Some(answer) = Answer::read(Endpoint::Chat, body) else { return false };
    answer.choices.first().is_some_and(|choice| {
        let text = choice.text.trim();
        let has_begun = text.contains("</think>") || !(text.starts_with(MARK) || MARK.starts_with(text));
        choice.finish.as_deref() == Some("length") && choice.refusal.is_none() && !has_begun
    })
}

/// The same question, without what holds a model to its first token.
fn with_thoughts(fields: &Value) -> Value {
    let mut fields = fields.clone();
    if let Some(members) = fields.as_object_mut() {
        for name in ["temperature", "logprobs", "top_logprobs", "logit_bias"] {
            members.remove(name);
        }
        // Others than OpenAI know no other name for it.
        members.insert("max_tokens".to_owned(), Value::from(THOUGHT));
    }
    fields
}

/// Asks a judge for one token, with its logprobs where the server has them.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn ask_judge(
    cx: &Context,
    next: &Next,
    helper: &Arc<Tier>,
    messages: &[Value],
    stage: &'static str,
    timeout: Duration,
) -> Result<Bytes, String> {
    if thinks(helper.model()) {
        let fields = json!({"messages": messages, "max_completion_tokens": THOUGHT});
        return ask(cx, next, helper, &fields, stage, timeout).await;
    }
    let fields = json!({"messages": messages, "temperature": 0, "max_tokens": 1, "logprobs": true, "top_logprobs": 10});
    match ask_briefly(cx, next, helper, &fields, stage, timeout).await {
        Err(reason) if refuses(&reason) => {
            // Not every server has logprobs, and not every one says an answer in one token.
            let plain = json!({"messages": messages, "max_tokens": 16});
            ask_briefly(cx, next, helper, &plain, stage, timeout).await
        }
        said => said,
    }
}

/// Whether a server does not take what was asked of it, by what [`ask`] failed with. Other words may help.
pub fn refuses(reason: &str) -> bool {
    ["400", "404", "422"].iter().any(|status| reason.ends_with(&format!("status {status}")))
}

/// The body of another model's answer to a request, whole.
///
/// # Errors
/// Why there is none, in words.
pub async fn answered(
    cx: &Context,
    next: &Next,
    tier: &Arc<Tier>,
    request: Request,
    stage: &'static str,
    timeout: Duration,
) -> Result<Bytes, String> {
    let limits = tier.target.limits.unwrap_or(cx.limits);
    let inner = Context {
        tier: Some(Arc::clone(tier)),
        plan: None,
        purpose: Purpose::Own(stage),
        patience: Arc::new(Patience::alone(limits)),
        limits,
        ..cx.clone()
    };
    // Who waits for the answer waits for this as well: it is no silence of the upstream's.
    cx.patience.pauses(timeout);
    let result = tokio::time::timeout(timeout, next.clone().run(&inner, request)).await;
    cx.patience.touch();
    let name = tier.name();
    match result {
        Err(_) => Err(format!("{name} gave no answer within {} seconds", timeout.as_secs_f64())),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Ok(Ok(response)) if !response.is_success() => Err(format!("{name} answered with status {}", response.status)),
        Ok(Ok(response)) => match response.body {
            Body::Full(body) => Ok(body),
            Body::Stream(_) => Err(format!("{name} answered with a stream")),
        },
    }
}

/// The surroundings of a request that is made beside a call and is none of its attempts: it has a receipt of its own, and
/// what the caller wishes of his call, or may spend on it, says nothing of this one.
pub fn beside(cx: &Context, purpose: Purpose, limits: Limits, patience: Arc<Patience>) -> Context {
    let facts = cx.receipt.read(|facts| Facts {
        model_asked: Arc::clone(&facts.model_asked),
        tag: facts.tag.clone(),
        ..Facts::default()
    });
    Context {
        receipt: Arc::new(Receipt::new(facts)),
        purpose,
        patience,
        limits,
        wishes: None,
        packing: None,
        max_cost: None,
        ..cx.clone()
    }
}

/// A request for a whole answer in place of a stream.
pub fn unstreamed(request: &Request) -> Request {
    if !request.is_stream() {
        return request.clone();
    }
    let kept: Vec<_> = request
        .fields()
        .filter(|(name, _)| !matches!(*name, "stream" | "stream_options"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    request.with_fields(&kept)
}
