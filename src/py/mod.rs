//! The FFI room: converts and calls. No decision about money, caching or routing is made here.
//!
//! `engine.rs` is the door, `state.rs` what the process owns (and a fork replaces), `plain.rs` and `clone.rs` the fast path
//! of a hit, `wait.rs` and `deliver.rs` how sync and async callers wait, `sender.rs` the user's own http client.

mod clone;
mod deliver;
mod engine;
mod error;
mod plain;
mod receipt;
mod sender;
mod state;
mod stream;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::deliver::{Job, LoopQueue};
    #[pymodule_export]
    use super::engine::{Answer, Engine, Hit, Ledger, Prefix, process_report};
    #[pymodule_export]
    use super::error::{CoreError, SendError};
    #[pymodule_export]
    use super::receipt::ReceiptCell;
    #[pymodule_export]
    use super::sender::Completion;
    #[pymodule_export]
    use super::state::{after_fork_in_child, at_exit};
    #[pymodule_export]
    use super::stream::EventPipe;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
