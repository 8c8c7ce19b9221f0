//! The FFI room: converts and calls. No decision about money, caching or routing is made here.
//!
//! `engine.rs` is the door, `state.rs` what the process owns (and a fork replaces). Plain calls: `place.rs`, with `guard.rs`
//! (is the client as it was?), `plain.rs` (arguments to key and body) and `clone.rs` (a hit's object). Requests that the SDK
//! built: `call.rs`. `local.rs`, `wait.rs` and `deliver.rs` are how callers wait, `stream.rs` is what a stream's reader
//! reads, `build.rs` makes objects of JSON, `tokens.rs` counts, `floats.rs` unpacks embeddings, `sender.rs` is the user's own
//! http client, `hooks.rs` are the user's functions, `policy.rs` checks what only the core knows. `once.rs`
//! keeps what Python made for us; pyo3's own ways to do so do not survive a fork.

mod build;
mod call;
mod clone;
mod deliver;
mod engine;
mod error;
mod evaluate;
mod file;
mod floats;
mod guard;
mod hit;
mod hooks;
mod local;
mod miss;
mod once;
mod packing;
mod place;
mod plain;
mod plan;
mod policy;
mod receipt;
mod sender;
mod state;
mod stream;
mod tokens;
mod wait;

use pyo3::prelude::*;

/// What is made on one thread and let go on another is most of a miss; `docs/decisions/` has what it is worth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// What only one thread at a time may touch counts on the GIL in more than one place (deliver.rs, clone.rs), and no
// free-threaded interpreter has run it yet.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::build::Builder;
    #[pymodule_export]
    use super::call::Answer;
    #[pymodule_export]
    use super::deliver::{Job, LoopQueue};
    #[pymodule_export]
    use super::engine::{Engine, Ledger, process_report};
    #[pymodule_export]
    use super::error::{CoreError, SendError};
    #[pymodule_export]
    use super::evaluate::{calibrate_drafts, compare_routers, learn_router};
    #[pymodule_export]
    use super::file::{CacheFile, prepare_import};
    #[pymodule_export]
    use super::floats::unpack_embeddings;
    #[pymodule_export]
    use super::guard::Probes;
    #[pymodule_export]
    use super::hit::Hit;
    #[pymodule_export]
    use super::miss::Miss;
    #[pymodule_export]
    use super::packing::Packing;
    #[pymodule_export]
    use super::place::{Place, Shape};
    #[pymodule_export]
    use super::plan::{Choices, Plan};
    #[pymodule_export]
    use super::policy::{check_rules, check_weights};
    #[pymodule_export]
    use super::receipt::ReceiptCell;
    #[pymodule_export]
    use super::sender::Completion;
    #[pymodule_export]
    use super::state::{after_fork_in_child, after_fork_in_parent, at_exit, before_fork, flush_files};
    #[pymodule_export]
    use super::stream::{ChunkReader, EventPipe};
    #[pymodule_export]
    use super::tokens::{count_chat, count_text};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The classes above are made by now. This one has no name in Python, and is made for the reason that `once.rs` gives.
        let _ = module.py().get_type::<crate::py::hooks::HookCompletion>();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
