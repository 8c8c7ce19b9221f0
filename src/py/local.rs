//! Runtimes that a sync caller drives itself: a plain answer then crosses no thread on its way, which halves its time.
//!
//! A caller takes one, drives it until its own answer is there, and puts it back with its open connections. What others
//! still wait for (the caller left a flight that somebody had joined) is driven to its end by a thread of ours. Streams,
//! and clients that send through Python, are the shared runtime's (`state.rs`).

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::error::{CoreError, to_python};
use super::state::{State, state, without_gil};
use super::wait::TURN;
use crate::context::Tasks;
use crate::error::{Error, Result};
use crate::upstream::http::{HttpSender, IDLE};

/// Each has a few file descriptors of its own; callers beyond this many at a time use the shared runtime.
const MOST: usize = 16;
/// What a server does to a connection within this time crosses the next request in any case.
const SHORT_REST: Duration = Duration::from_millis(1);
/// What is left behind is aborted work as a rule, and ends at once; a flight that others wait for has their timeouts.
const LONGEST_AFTERLIFE: Duration = Duration::from_secs(3600);

/// One of them.
pub struct Local {
    runtime: Runtime,
    pub http: Arc<HttpSender>,
    pub tasks: Arc<Tasks>,
    /// Nobody has driven it for a while.
    is_behind: bool,
}

/// Those that nobody drives, each since when, the last used one last.
#[derive(Default)]
pub struct Locals {
    idle: Mutex<Vec<(Instant, Local)>>,
    made: AtomicUsize,
}

impl Locals {
    /// None: enough of them are at work.
    pub fn take(&self) -> Result<Option<Local>> {
        if let Some((since, mut local)) = self.idle().pop() {
            local.is_behind = since.elapsed() > SHORT_REST;
            return Ok(Some(local));
        }
        if self.made.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.made.fetch_sub(1, Ordering::Relaxed);
            return Ok(None);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                let (http, tasks) = (Arc::default(), Arc::default());
                Ok(Some(Local { runtime, http, tasks, is_behind: false }))
            }
            Err(error) => {
                self.made.fetch_sub(1, Ordering::Relaxed);
                Err(Error::Internal(format!("runtime: {error}")))
            }
        }
    }

    fn put(&self, local: Local) {
        let now = Instant::now();
        let unused = {
            let mut idle = self.idle();
            idle.push((now, local));
            // One at a time: whoever puts one back does not want to wait for sixteen to close their connections.
            let is_unused = idle.first().is_some_and(|(since, _)| now.duration_since(*since) > IDLE);
            is_unused.then(|| idle.remove(0))
        };
        if unused.is_some() {
            self.made.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Local)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the connections see what came in while nobody drove them: that the server has closed them, for one. Each turn
/// first asks the system what there is, then runs the tasks that this wakes; the second is for what those wake.
async fn catch_up() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

impl Local {
    /// Drives `work` to its end, with an ear for Ctrl-C.
    ///
    /// # Errors
    /// What a signal handler raised; `work` is dropped then, which cancels it.
    pub fn block<T: Send>(self, py: Python<'_>, work: impl Future<Output = T> + Send) -> PyResult<T> {
        let home = state();
        let result = {
            let is_behind = self.is_behind;
            let mut work = pin!(async move {
                if is_behind {
                    catch_up().await;
                }
                work.await
            });
            loop {
                let turn = without_gil(py, || {
                    self.runtime.block_on(async { tokio::time::timeout(TURN, work.as_mut()).await })
                });
                match turn {
                    Ok(result) => break Ok(result),
                    Err(_) => {
                        if let Err(interrupt) = py.check_signals() {
                            break Err(interrupt);
                        }
                        if !std::ptr::eq(home, state()) {
                            // A signal handler forked: this is the child, and the runtime is its parent's.
                            std::mem::forget(self);
                            return Err(CoreError::new_err("the process forked while it waited"));
                        }
                    }
                }
            }
        };
        self.put_back(home).map_err(|error| to_python(py, &error))?;
        result
    }

    fn put_back(self, home: &'static State) -> Result<()> {
        if self.tasks.running() == 0 {
            home.locals.put(self);
            return Ok(());
        }
        home.locals.made.fetch_sub(1, Ordering::Relaxed);
        let rest = move || {
            let Self { runtime, tasks, .. } = self;
            let ended = async { tasks.ended().await };
            let _ = runtime.block_on(async { tokio::time::timeout(LONGEST_AFTERLIFE, ended).await });
        };
        let spawned = std::thread::Builder::new().name("farthing-rest".to_owned()).spawn(rest);
        spawned.map(drop).map_err(|error| Error::Internal(format!("thread: {error}")))
    }
}
