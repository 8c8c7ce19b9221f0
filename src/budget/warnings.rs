//! Warnings that wait for somebody who can log them: Python's logger is asked by whoever holds the GIL next (`py/call.rs`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

static WAITING: AtomicBool = AtomicBool::new(false);
static WARNINGS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
/// Nobody took the older ones.
const MOST: usize = 1000;

pub fn add(text: String) {
    let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    if warnings.len() >= MOST {
        warnings.pop_front();
    }
    warnings.push_back(text);
    WAITING.store(true, Ordering::Release);
}

/// What is to be logged; costs nothing when there is nothing.
pub fn take_warnings() -> Vec<String> {
    if !WAITING.load(Ordering::Acquire) {
        return Vec::new();
    }
    let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    WAITING.store(false, Ordering::Release);
    warnings.drain(..).collect()
}
