//! The time that a call on the ladder has in all: its drafts, what is asked about them, and its answer.

use std::time::{Duration, Instant};

use crate::error::{Error, Phase, Result};
use crate::exchange::{Endpoint, Response};
use crate::stream::Kind;
use crate::upstream::begin::begin;

/// See the module.
#[derive(Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// `span`: None = the call may take as long as it takes.
    pub fn of(began: Instant, span: Option<Duration>) -> Self {
        Self(span.map(|span| began + span))
    }

    pub fn is_over(self) -> bool {
        self.0.is_some_and(|until| Instant::now() >= until)
    }

    /// What a call ends with that has no answer by then.
    pub fn error() -> Error {
        Error::timeout(Phase::Read)
    }

    /// # Errors
    /// [`Self::error`]
    pub async fn hold<T>(self, work: impl Future<Output = T>) -> Result<T> {
        match self.0 {
            None => Ok(work.await),
            Some(until) => tokio::time::timeout_at(until.into(), work).await.map_err(|_| Self::error()),
        }
    }

    /// An answer that goes to the caller as it comes. A stream is there in time when its first token is.
    ///
    /// # Errors
    /// [`Self::error`], and those of the call.
    pub async fn answer(self, endpoint: Endpoint, call: impl Future<Output = Result<Response>>) -> Result<Response> {
        if self.0.is_none() {
            return call.await;
        }
        let begun = async {
            let response = call.await?;
            Ok(match Kind::of(endpoint) {
                Some(kind) => begin(kind, response).await.0,
                None => response,
            })
        };
        self.hold(begun).await?
    }
}
