//! Work that takes a thread for a while: the others of the runtime go on meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Bytes of a text that may take milliseconds.
const MANY: usize = 64 << 10;

/// Does `work` on `bytes` of text at once. Where that may be long, its thread leaves the runtime and another takes its
/// place; a runtime of one thread has only its caller, who waits for this anyway.
pub fn heavy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= MANY && has_others() { block_in_place(work) } else { work() }
}
