//! The stages: one file each, with the same small trait ([`crate::pipeline::Stage`]). Their order is in `pipeline.rs`.

pub mod cache;
