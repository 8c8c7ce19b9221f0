//! What can go wrong on the way to an answer. An upstream's 4xx or 5xx is not here: that is a [`crate::exchange::Response`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::budget::Blocked;

/// The part of an exchange that ran out of time, as httpx names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Read,
    Write,
    Pool,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Read => "read",
            Self::Write => "write",
            Self::Pool => "pool",
        }
    }
}

/// What a connection failed at, as httpx tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Connect,
    Read,
    Protocol,
    /// The body does not decode (gzip, br, zstd).
    Decoding,
    Redirects,
}

impl Broken {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect_error",
            Self::Read => "connection",
            Self::Protocol => "protocol_error",
            Self::Decoding => "decoding_error",
            Self::Redirects => "too_many_redirects",
        }
    }
}

/// An error object of whoever sends in our place (a Python exception); the core only hands it back.
#[derive(Clone)]
pub struct Foreign(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreign")
    }
}

/// Cheap to clone, because every waiter of a shared flight gets its own.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer within the {} timeout", phase.name())]
    Timeout { phase: Phase, cause: Option<Foreign> },
    #[error("{message}")]
    Connection { broken: Broken, message: Arc<str>, cause: Option<Foreign> },
    /// The sender raised something that is no transport error: not retried, raised as it is.
    #[error("the http client raised an error")]
    Raised(Foreign),
    /// The task that did the work for several callers ended without a result (its event loop closed, it panicked).
    #[error("the shared call was lost")]
    FlightLost,
    /// A budget has no room for the call: it did not leave.
    #[error("{0}")]
    Budget(Arc<Blocked>),
    #[error("{0}")]
    Config(String),
    /// farthing's own failure. The caller falls back to the plain call.
    #[error("farthing failed: {0}")]
    Internal(String),
}

impl Error {
    pub fn connection(message: impl Into<Arc<str>>) -> Self {
        Self::broken(Broken::Read, message)
    }

    pub fn broken(broken: Broken, message: impl Into<Arc<str>>) -> Self {
        Self::Connection { broken, message: message.into(), cause: None }
    }

    pub fn timeout(phase: Phase) -> Self {
        Self::Timeout { phase, cause: None }
    }

    /// Whether an attempt that ended so may have cost money: the upstream may have worked on it.
    pub fn may_be_billed(&self) -> bool {
        match self {
            Self::Timeout { phase, .. } => *phase == Phase::Read,
            Self::Connection { broken, .. } => !matches!(broken, Broken::Connect | Broken::Redirects),
            Self::Raised(_) | Self::FlightLost => true,
            Self::Budget(_) | Self::Config(_) | Self::Internal(_) => false,
        }
    }

    /// A word for it, without anything of the request in it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { phase: Phase::Connect, .. } => "connect_timeout",
            Self::Timeout { phase: Phase::Read, .. } => "read_timeout",
            Self::Timeout { phase: Phase::Write, .. } => "write_timeout",
            Self::Timeout { phase: Phase::Pool, .. } => "pool_timeout",
            Self::Connection { broken, .. } => broken.name(),
            Self::Raised(_) => "raised",
            Self::FlightLost => "lost",
            Self::Budget(_) => "budget",
            Self::Config(_) | Self::Internal(_) => "internal",
        }
    }

    /// Whether another attempt could succeed, by the SDK's rules: timeouts and connection errors.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Connection { .. })
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
