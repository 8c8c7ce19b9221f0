//! The most that an attempt may cost, before it leaves.
//!
//! Its prompt as it is counted (`tokens/`), with room for what the rules do not have; as many answers as it asks for, each
//! as long as it may be; at the dearest price that may apply.

use serde_json::Value;

use crate::exchange::{Endpoint, Request};
use crate::ledger::{Money, PriceTable};
use crate::tokens::prompt_of;

/// What cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    Price,
    /// How long an answer may be.
    Output,
    /// Something in the request whose tokens nobody can count.
    Prompt(&'static str),
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub cost: Result<Money, Unknown>,
    /// The vocabulary of the model is not known.
    pub is_estimate: bool,
}

/// `alias`: the name of the model that the application asked for, which may have a price of its own.
pub fn bound(prices: &PriceTable, request: &Request, alias: &str, unix_seconds: i64) -> Bound {
    let model = request.model().unwrap_or_default();
    let names = [model.as_str(), alias];
    let tier = request.get::<String>("service_tier");
    let price = |sizes| prices.most(&request.url, &names, sizes, tier.as_deref(), unix_seconds);
    // The cheapest question first.
    if price((1, 1)).is_none() {
        return Bound { cost: Err(Unknown::Price), is_estimate: false };
    }
    let output = output(prices, request, &names);
    let prompt = match &output {
        Ok(_) => prompt_of(request),
        Err(unknown) => return Bound { cost: Err(*unknown), is_estimate: false },
    };
    let is_estimate = !prompt.is_known;
    let cost = output.and_then(|output| {
        let tokens = prompt.most.map_err(Unknown::Prompt)?;
        // What was predicted and did not come is billed as output.
        let predicted = if request.has("prediction") { tokens } else { 0 };
        price((tokens, output.saturating_add(predicted))).ok_or(Unknown::Price)
    });
    Bound { cost, is_estimate }
}

/// The most tokens of all answers to a request.
fn output(prices: &PriceTable, request: &Request, names: &[&str]) -> Result<u64, Unknown> {
    if request.endpoint == Endpoint::Embeddings {
        return Ok(0);
    }
    if request.raw("background") == Some(b"true") {
        return Err(Unknown::Prompt("a call that goes on in the background"));
    }
    let modalities = request.get::<Vec<Value>>("modalities").unwrap_or_default();
    if modalities.iter().any(|kind| kind == "audio") || request.has("audio") {
        return Err(Unknown::Prompt("an answer in audio"));
    }
    // A field of the other endpoint is none that a server keeps to.
    let asked: &[&str] = match request.endpoint {
        Endpoint::Responses => &["max_output_tokens"],
        _ => &["max_tokens", "max_completion_tokens"],
    };
    let asked = asked.iter().filter_map(|name| request.get::<u64>(name)).max();
    // The list is asked only where the request says nothing: what it allows, the server takes.
    let most = asked.or_else(|| prices.max_output(&request.url, names)).ok_or(Unknown::Output)?;
    let mut answers = 1;
    for name in ["n", "best_of"] {
        answers = answers.max(match request.get::<Value>(name) {
            None | Some(Value::Null) => 1,
            // 3.0 is three for a server that takes it.
            Some(Value::Number(count)) => count.as_f64().map_or(u64::MAX, |count| count.ceil() as u64),
            Some(_) => return Err(Unknown::Output),
        });
    }
    Ok(most.saturating_mul(answers))
}
