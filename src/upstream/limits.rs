//! How much an upstream is given to do at a time: calls at once, requests and tokens a minute, and what its own answers
//! say is left (`x-ratelimit-*`). A wait, never a failure, as long as the caller has the time for it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Phase, Result};

/// A quota a minute.
#[derive(Debug)]
struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
    quota: u32,
    burst: u32,
}

impl Bucket {
    fn new(quota: u32) -> Option<Self> {
        let burst = NonZeroU32::new(quota / BURST).unwrap_or(NonZeroU32::MIN);
        let each_minute = Quota::per_minute(NonZeroU32::new(quota)?).allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(each_minute, MonotonicClock);
        Some(Self { limiter, quota, burst: burst.get() })
    }

    /// Waits until `count` are there, and takes them in parts that the bucket can hold.
    async fn draw(&self, count: u64, until: Option<Instant>) -> Result<()> {
        // What a full bucket would take for it: nobody waits for what cannot come in time.
        let least = count.saturating_sub(u64::from(self.burst)) as f64 * 60.0 / f64::from(self.quota);
        let least = Duration::try_from_secs_f64(least).unwrap_or(Duration::MAX);
        if until.is_some_and(|until| least > until.saturating_duration_since(Instant::now())) {
            return Err(too_late());
        }
        let mut rest = count;
        while rest > 0 {
            let part = u32::try_from(rest).unwrap_or(u32::MAX).min(self.burst);
            let Some(cells) = NonZeroU32::new(part) else { break };
            while let Ok(Err(not_until)) = self.limiter.check_n(cells) {
                sleep(Instant::now() + not_until.wait_time_from(MonotonicClock.now()), until).await?;
            }
            rest -= u64::from(part);
        }
        Ok(())
    }
}

/// The share of a minute's quota that may go out at once; the rest comes evenly. A bucket that holds a whole minute would
/// let two minutes' worth out in the first.
const BURST: u32 = 6;

/// What the policy says of one upstream; None = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub concurrency: Option<u32>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
}

/// What an upstream says is left of one quota.
#[derive(Clone, Copy, Debug)]
struct Left {
    remaining: f64,
    /// How much comes back in a second; None = all of it at once, at `resets`.
    rate: Option<f64>,
    since: Instant,
    resets: Instant,
}

impl Left {
    fn read(headers: &HeaderMap, kind: &str, now: Instant) -> Option<Self> {
        let text = |what: &str| headers.get(format!("x-ratelimit-{what}-{kind}"))?.to_str().ok();
        let count = |what: &str| text(what)?.trim().parse::<u64>().ok().map(|count| count as f64);
        let (remaining, span) = (count("remaining")?, duration(text("reset")?)?);
        // The reset is the time until all of it is there again; where the whole is known, it comes back evenly.
        let missing = count("limit").map(|limit| limit - remaining).filter(|missing| *missing > 0.0);
        let rate = missing.map(|missing| missing / span.as_secs_f64()).filter(|rate| rate.is_finite());
        Some(Self { remaining, rate, since: now, resets: now.checked_add(span)? })
    }

    /// When there will be `needed` of it.
    fn ready(&self, needed: f64) -> Instant {
        let missing = needed - self.remaining;
        if missing <= 0.0 {
            return self.since;
        }
        let wait = self.rate.and_then(|rate| Duration::try_from_secs_f64(missing / rate).ok());
        wait.map_or(self.resets, |wait| (self.since + wait).min(self.resets))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    slots: Option<Arc<Semaphore>>,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Tokens that answers used beyond what was reckoned for them: the next requests wait for these too.
    debt: AtomicU64,
    left: Mutex<[Option<Left>; 2]>,
}

/// A place among the calls at once; held until the answer has ended.
#[derive(Debug, Default)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Limiter {
    /// None when there is nothing to limit.
    pub fn new(settings: Settings) -> Option<Self> {
        if settings == Settings::default() {
            return None;
        }
        Some(Self {
            slots: settings.concurrency.map(|slots| Arc::new(Semaphore::new(slots as usize))),
            requests: settings.requests_per_minute.and_then(Bucket::new),
            tokens: settings.tokens_per_minute.and_then(Bucket::new),
            debt: AtomicU64::new(0),
            left: Mutex::default(),
        })
    }

    /// Whether it matters how many tokens a request will use: by the policy, or by what the upstream has said.
    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_some() || self.left.lock().unwrap_or_else(PoisonError::into_inner)[1].is_some()
    }

    /// Waits until a request of about `tokens` tokens may go out.
    ///
    /// # Errors
    /// [`Error::Timeout`] as soon as it is clear that this will not be before `until`.
    pub async fn enter(&self, tokens: u64, until: Option<Instant>) -> Result<Slot> {
        let slot = match &self.slots {
            None => Slot(None),
            Some(slots) => {
                let waits = Arc::clone(slots).acquire_owned();
                let permit = match until {
                    Some(until) => tokio::time::timeout_at(until.into(), waits).await.map_err(|_| too_late())?,
                    None => waits.await,
                };
                Slot(permit.ok())
            }
        };
        let debt = if self.tokens.is_some() { self.debt.swap(0, Ordering::Relaxed) } else { 0 };
        let result = self.pass(tokens, debt, until).await;
        if result.is_err() {
            self.debt.fetch_add(debt, Ordering::Relaxed);
        }
        result.map(|()| slot)
    }

    async fn pass(&self, tokens: u64, debt: u64, until: Option<Instant>) -> Result<()> {
        // What the upstream itself says comes first: taking out of our own buckets cannot be undone.
        while let Some(at) = self.said(tokens) {
            sleep(at, until).await?;
        }
        if let Some(requests) = &self.requests {
            requests.draw(1, until).await?;
        }
        if let Some(bucket) = &self.tokens {
            bucket.draw(tokens.saturating_add(debt), until).await?;
        }
        Ok(())
    }

    /// When what the upstream said lets the request out; None = now, and then it is taken off.
    fn said(&self, tokens: u64) -> Option<Instant> {
        let now = Instant::now();
        let mut quotas = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for quota in quotas.iter_mut() {
            *quota = quota.filter(|quota| quota.resets > now);
        }
        let needs = [1.0, tokens as f64];
        let ready = quotas.iter().zip(needs).filter_map(|(quota, needed)| Some(quota.as_ref()?.ready(needed)));
        if let Some(latest) = ready.max().filter(|latest| *latest > now) {
            return Some(latest);
        }
        for (quota, needed) in quotas.iter_mut().zip(needs) {
            if let Some(quota) = quota {
                quota.remaining -= needed;
            }
        }
        None
    }

    /// Notes what an answer says is left.
    pub fn heard(&self, headers: &HeaderMap) {
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, kind) in left.iter_mut().zip(["requests", "tokens"]) {
            if let Some(said) = Left::read(headers, kind, now) {
                *slot = Some(said);
            }
        }
    }

    /// Notes what an answer used beyond what was reckoned for it.
    pub fn used(&self, reckoned: u64, used: u64) {
        if self.tokens.is_some() {
            self.debt.fetch_add(used.saturating_sub(reckoned), Ordering::Relaxed);
        }
    }
}

async fn sleep(at: Instant, until: Option<Instant>) -> Result<()> {
    if until.is_some_and(|until| at > until) {
        return Err(too_late());
    }
    tokio::time::sleep_until(at.into()).await;
    Ok(())
}

fn too_late() -> Error {
    Error::timeout(Phase::Pool)
}

/// A span as OpenAI writes it: "1s", "6m0s", "20ms", "1h2m3.5s"; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        seconds += number
            * match &after[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
        rest = &after[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}
