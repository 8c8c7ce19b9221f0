//! Shorter texts say the same.

#[path = "compress/structural.rs"]
mod structural;
