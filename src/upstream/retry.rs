//! Which failures are tried again, and when: the OpenAI SDK's rules (`openai/_base_client.py`), because the user
//! configured those. Who counts the attempts is `patience.rs`.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// The SDK takes a `Retry-After` up to this; beyond it, it gives up rather than block the caller. (The SDK's 2.x tried
/// again at once there, which no server that asks for an hour can have meant.)
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);
const FIRST_PAUSE: f64 = 0.5;
const LONGEST_PAUSE: f64 = 8.0;

/// What to do after an answer with an error status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Final,
    /// Try again; the pause is the server's wish, or None for [`pause`].
    Retry(Option<Duration>),
}

/// Judges an answer. `now` is for `Retry-After` dates.
pub fn judge(status: u16, headers: &HeaderMap, now: SystemTime) -> Verdict {
    if (200..300).contains(&status) {
        return Verdict::Final;
    }
    let wanted = match header(headers, "x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status, 408 | 409 | 429) || status >= 500,
    };
    if !wanted {
        return Verdict::Final;
    }
    match retry_after(headers, now) {
        Some(pause) if pause > LONGEST_RETRY_AFTER => Verdict::Final,
        Some(pause) if pause > Duration::ZERO => Verdict::Retry(Some(pause)),
        _ => Verdict::Retry(None),
    }
}

/// The pause before attempt `retry` (1 = the first retry): exponential, with jitter. `random` is in 0..1.
pub fn pause(retry: u32, random: f64) -> Duration {
    let exponent = i32::try_from(retry.saturating_sub(1).min(16)).unwrap_or(16);
    let seconds = (FIRST_PAUSE * 2.0_f64.powi(exponent)).min(LONGEST_PAUSE);
    Duration::from_secs_f64(seconds * (1.0 - 0.25 * random.clamp(0.0, 1.0)))
}

/// RFC 9110, 10.2.3 (seconds or a date), and the finer `retry-after-ms`.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let seconds = |text: &str, scale: f64| {
        let value = text.trim().parse::<f64>().ok().filter(|value| !value.is_nan())? * scale;
        // Too large for a Duration is still a wish for a long pause, and must not become a short one.
        Duration::try_from_secs_f64(value.min(1e9)).ok()
    };
    if let Some(pause) = header(headers, "retry-after-ms").and_then(|text| seconds(text, 0.001)) {
        return Some(pause);
    }
    let text = header(headers, "retry-after")?;
    seconds(text, 1.0)
        .or_else(|| httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
