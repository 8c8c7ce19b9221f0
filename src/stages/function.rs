//! A function of the policy's that a stage asks something: a router, a scorer, a compressor. What it was asked and what it
//! may say is the stage's own.

use std::time::Duration;

use serde_json::Value;

use crate::context::Context;

/// Calls the function `number`, and waits no longer than `timeout`.
///
/// # Errors
/// Why it said nothing, in words.
pub async fn ask(cx: &Context, number: u64, argument: Value, timeout: Duration) -> Result<Value, String> {
    let Some(hooks) = &cx.hooks else { return Err("it cannot be called from here".to_owned()) };
    // Who waits for the answer waits for this as well: it is no silence of the upstream's.
    cx.patience.pauses(timeout);
    let said = tokio::time::timeout(timeout, hooks.call(number, argument)).await;
    cx.patience.touch();
    let hundredths = (timeout.as_secs_f64() * 100.0).round() / 100.0;
    said.map_err(|_| format!("no answer within {hundredths} seconds"))?.map_err(|error| error.to_string())
}
