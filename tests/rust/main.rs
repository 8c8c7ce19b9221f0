//! One integration binary; a file for each room of the core.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod budget;
mod compress;
mod config;
mod disk;
mod escalate;
mod evaluate;
mod fallback;
mod glance;
mod key;
mod ledger;
mod price;
mod question;
mod route;
mod share;
mod single_flight;
mod stream;
mod tokens;
mod upstream;
