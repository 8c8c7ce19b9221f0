//! Shorter texts say the same; what is chosen of a text is in it; what a text may lose is known.

#[path = "compress/structural.rs"]
mod structural;
