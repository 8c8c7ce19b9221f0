//! Shorter texts say the same; what is chosen of a text is in it; what may be shortened, and whether it pays.

#[path = "compress/extractive.rs"]
mod extractive;
#[path = "compress/facts.rs"]
mod facts;
#[path = "compress/places.rs"]
mod places;
#[path = "compress/properties.rs"]
mod properties;
#[path = "compress/structural.rs"]
mod structural;
#[path = "compress/worth.rs"]
mod worth;
