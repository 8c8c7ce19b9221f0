//! Shorter texts say the same; what is chosen of a text is in it; what may be shortened, and whether it pays.

#[path = "compress/places.rs"]
mod places;
#[path = "compress/structural.rs"]
mod structural;
#[path = "compress/worth.rs"]
mod worth;
