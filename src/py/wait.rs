//! How a sync caller waits: without the GIL, and with an ear for Ctrl-C.

use std::future::Future;
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::Handle;

use super::state::without_gil;

/// Signals are looked for this often.
pub const TURN: Duration = Duration::from_millis(50);

/// Blocks until `work` is done.
///
/// # Errors
/// What a signal handler raised (KeyboardInterrupt); `work` is dropped then, which cancels it.
pub fn block<T: Send>(py: Python<'_>, runtime: &Handle, work: impl Future<Output = T> + Send) -> PyResult<T> {
    let mut work = Box::pin(work);
    loop {
        let turn = without_gil(py, || runtime.block_on(async { tokio::time::timeout(TURN, &mut work).await }));
        if let Ok(result) = turn {
            return Ok(result);
        }
        py.check_signals()?;
    }
}
