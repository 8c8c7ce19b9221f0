//! farthing's core: every LLM call goes through a chain of stages that spend less on it, and a ledger says what was spent.
//!
//! `docs/path.md` follows one request through the files. The core knows nothing of Python; that is `py/`, behind the
//! feature `python`.

pub mod batch;
pub mod budget;
pub mod compress;
pub mod config;
pub mod context;
pub mod effects;
pub mod engine;
pub mod error;
pub mod escalate;
pub mod evaluate;
pub mod exchange;
pub mod glance;
pub mod hooks;
pub mod key;
pub mod labels;
pub mod ledger;
pub mod patience;
pub mod pipeline;
pub mod question;
pub mod receipt;
pub mod route;
pub mod single_flight;
pub mod stages;
pub mod store;
pub mod stream;
pub mod tokens;
pub mod upstream;

#[cfg(feature = "python")]
mod py;
