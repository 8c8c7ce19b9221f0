//! The same said in fewer tokens.
//!
//! Here is text only: what a text is made of, what of it may go, and what a shorter one has lost. Nothing is sent, nothing
//! is charged and no model is asked; whether compressing pays, and which parts of a request it may touch, is the business
//! of the stage.

pub mod extractive;
pub mod facts;
