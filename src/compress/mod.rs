//! The same in fewer tokens.
//!
//! Here is text only: what may be left out of a text, and how what stays is written. Nothing here knows of requests, money,
//! tokens or models; whether it pays is the business of the stage.

pub mod structural;
