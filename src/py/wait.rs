//! How a sync caller waits: without the GIL, and with an ear for Ctrl-C.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

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
    let mut work = pin!(work);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        // Not tokio's block_on with a timeout: a timer set from here would wake a worker for nothing, on each call.
        let turn = without_gil(py, || {
            let _entered = runtime.enter();
            let ends = Instant::now() + TURN;
            let mut task = Context::from_waker(&waker);
            loop {
                if let Poll::Ready(result) = work.as_mut().poll(&mut task) {
                    return Some(result);
                }
                let left = ends.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        });
        if let Some(result) = turn {
            return Ok(result);
        }
        py.check_signals()?;
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
