//! Which process something in a file belongs to, and whether it still lives.

use std::sync::{Mutex, PoisonError};

/// A process, by what no other one will have: "boot:namespace:number:start".
pub struct Owner {
    pub text: String,
}

/// What can be said of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Lives,
    Gone,
    /// It is in another container, or the system does not say.
    Unknown,
}

impl Owner {
    /// This process.
    pub fn of_us() -> Self {
        static KNOWN: Mutex<Option<(u32, String)>> = Mutex::new(None);
        let process = std::process::id();
        // A fork may have been in the middle of this: then it is found out again.
        let Ok(mut known) = KNOWN.try_lock() else { return Self { text: describe(process) } };
        match &*known {
            Some((of, text)) if *of == process => Self { text: text.clone() },
            _ => {
                let text = describe(process);
                *known = Some((process, text.clone()));
                Self { text }
            }
        }
    }

    /// Whether the process that `text` describes lives.
    pub fn life(text: &str) -> Life {
        let us = Self::of_us().text;
        let parts = |text: &str| -> Option<[String; 4]> {
            text.split(':').map(str::to_owned).collect::<Vec<_>>().try_into().ok()
        };
        let (Some([boot, space, process, start]), Some([our_boot, our_space, ..])) = (parts(text), parts(&us)) else {
            return Life::Unknown;
        };
        if boot.is_empty() || our_boot.is_empty() {
            return Life::Unknown;
        }
        if boot != our_boot {
            // The machine was started again since then.
            return Life::Gone;
        }
        if space != our_space {
            return Life::Unknown;
        }
        match process.parse().ok().map(started) {
            Some(Some(now)) if now == start => Life::Lives,
            _ => Life::Gone,
        }
    }
}

fn describe(process: u32) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
    let space = space.unwrap_or_default().replace(':', "");
    let start = started(process);
    // Without the time of its start, a process cannot be told from the next one with its number.
    let boot = if start.is_some() { boot.trim() } else { "" };
    format!("{boot}:{space}:{process}:{}", start.unwrap_or_else(unique))
}

/// When a process was started, in ticks since the boot (Linux). None: there is no such process, or no such system.
fn started(process: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets, and may have anything in it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // A zombie does nothing any more; its parent has not noticed.
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// Where the system does not tell one process from another.
fn unique() -> String {
    static KNOWN: Mutex<Option<String>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .get_or_insert_with(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap_or_default().as_nanos().to_string()
        })
        .clone()
}
