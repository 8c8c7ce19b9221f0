//! The stages: one file each, with the same small trait ([`crate::pipeline::Stage`]). Their order is in `pipeline.rs`.

mod aside;
mod at_end;
pub mod batch;
pub mod cache;
pub mod compress;
mod counterfactual;
pub mod escalate;
mod function;
mod heavy;
mod lacking;
mod resting;
pub mod route;
mod sample;
