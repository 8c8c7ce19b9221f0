//! How an async caller waits: results of many calls reach its event loop in one wake-up.
//!
//! Threads of the core never enter the interpreter for it. They leave a parcel and, if it is the first one, write a byte
//! into a socket that the loop watches (`add_reader`); the loop then takes everything that has come in. A loop that
//! cannot watch a socket (Windows' Proactor) is woken through `call_soon_threadsafe`, once for all parcels too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use super::call::{Failed, Landed, into_answer};
use super::once::name;
use super::state::{is_exiting, next_id};

/// What a future gets.
pub enum Parcel {
    Answer(Result<Landed, Failed>),
    /// Something to look at has come in.
    Ready,
}

/// How the loop is told that there are parcels.
enum Bell {
    #[cfg(unix)]
    Socket { rings: std::os::unix::net::UnixStream, heard: std::os::unix::net::UnixStream },
    /// Called from any thread, it has the loop call `drain`.
    Call(Py<PyAny>),
}

struct Inner {
    number: u64,
    bell: Bell,
    parcels: Mutex<Vec<(u64, Parcel)>>,
    /// By address. Only touched with the GIL held, so that no other thread ever drops one.
    futures: Mutex<(u64, HashMap<u64, Py<PyAny>>)>,
}

/// One per event loop, and held by it alone: its futures hold the loop, which would never be let go otherwise.
#[pyclass(frozen, weakref)]
pub struct LoopQueue(Arc<Inner>);

#[pymethods]
impl LoopQueue {
    /// A queue for a loop that calls `drain` when `fileno()` is readable; or, given `wake`, when that is called.
    #[new]
    #[pyo3(signature = (wake=None))]
    fn new(wake: Option<Py<PyAny>>) -> PyResult<Self> {
        let bell = match wake {
            Some(wake) => Bell::Call(wake),
            #[cfg(unix)]
            None => {
                let (rings, heard) = std::os::unix::net::UnixStream::pair()?;
                rings.set_nonblocking(true)?;
                heard.set_nonblocking(true)?;
                Bell::Socket { rings, heard }
            }
            #[cfg(not(unix))]
            None => return Err(pyo3::exceptions::PyNotImplementedError::new_err("no socket to watch here")),
        };
        Ok(Self(Arc::new(Inner { number: next_id(), bell, parcels: Mutex::default(), futures: Mutex::default() })))
    }

    /// What the loop watches; None = it is called instead.
    fn fileno(&self) -> Option<i32> {
        match &self.0.bell {
            #[cfg(unix)]
            Bell::Socket { heard, .. } => Some(std::os::fd::AsRawFd::as_raw_fd(heard)),
            Bell::Call(_) => None,
        }
    }

    /// Hands out what has arrived; called on the loop.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        #[cfg(unix)]
        if let Bell::Socket { heard, .. } = &self.0.bell {
            // Before the parcels are taken: a bell that rings after this is heard in the next turn.
            let mut rung = [0_u8; 64];
            while std::io::Read::read(&mut &*heard, &mut rung).is_ok_and(|count| count == rung.len()) {}
        }
        let parcels = std::mem::take(&mut *lock(&self.0.parcels));
        for (address, parcel) in parcels {
            let Some(future) = lock(&self.0.futures).1.remove(&address) else { continue };
            // One future's trouble is not the others': they still get what is theirs.
            if let Err(error) = hand_over(py, future.bind(py), parcel) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever has the lock has the GIL, unless it is this thread in the middle of a change: the next pass sees it.
        let Ok(futures) = self.0.futures.try_lock() else { return Ok(()) };
        futures.1.values().try_for_each(|future| visit.call(future))
    }

    fn __clear__(&self) {
        self.forget_all();
    }
}

impl LoopQueue {
    /// Tells the loops of this process apart.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Takes a future, for what `work` will have for it; `spawn` starts that and says how to stop it. `left` is set when nobody
    /// waits for it any more.
    pub fn expect(
        &self,
        future: Py<PyAny>,
        left: Option<Arc<AtomicBool>>,
        spawn: impl FnOnce(Address) -> AbortHandle,
    ) -> Job {
        let address = {
            let mut futures = lock(&self.0.futures);
            futures.0 += 1;
            let address = futures.0;
            futures.1.insert(address, future);
            address
        };
        let task = spawn(Address { queue: Arc::clone(&self.0), address });
        Job { queue: Arc::clone(&self.0), address, task, left }
    }

    fn forget_all(&self) {
        let forgotten = std::mem::take(&mut lock(&self.0.futures).1);
        // Not under the lock: what a future takes with it may call anything.
        drop(forgotten);
    }
}

impl Drop for LoopQueue {
    fn drop(&mut self) {
        // The loop is gone, and nobody waits there. What is still on its way finds nothing here.
        self.forget_all();
    }
}

fn hand_over(py: Python<'_>, future: &Bound<'_, PyAny>, parcel: Parcel) -> PyResult<()> {
    // Cancelled while the result was on its way.
    if future.call_method0(name!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    let set_result = name!(py, "set_result");
    match parcel {
        Parcel::Answer(landed) => match into_answer(py, landed) {
            Ok(answer) => future.call_method1(set_result, (answer,))?,
            Err(error) => future.call_method1(name!(py, "set_exception"), (error.into_value(py),))?,
        },
        Parcel::Ready => future.call_method1(set_result, (py.None(),))?,
    };
    Ok(())
}

/// Where a result goes; may be used from any thread.
pub struct Address {
    queue: Arc<Inner>,
    address: u64,
}

impl Address {
    pub fn deliver(self, parcel: Parcel) {
        let first = {
            let mut parcels = lock(&self.queue.parcels);
            parcels.push((self.address, parcel));
            parcels.len() == 1
        };
        // Whoever made the queue non-empty has woken the loop, which will find this parcel too.
        if !first {
            return;
        }
        match &self.queue.bell {
            #[cfg(unix)]
            Bell::Socket { rings, .. } => {
                // A full socket has rung often enough.
                let _ = std::io::Write::write(&mut &*rings, &[1]);
            }
            Bell::Call(wake) => self.call(wake),
        }
    }

    fn call(&self, wake: &Py<PyAny>) {
        if is_exiting() {
            return;
        }
        let _ = Python::try_attach(|py| {
            if wake.bind(py).call0().is_err() {
                // The loop is closed: nobody waits there any more.
                drop(std::mem::take(&mut *lock(&self.queue.parcels)));
            }
        });
    }
}

/// A call that runs for an async caller.
#[pyclass(frozen)]
pub struct Job {
    queue: Arc<Inner>,
    address: u64,
    task: AbortHandle,
    left: Option<Arc<AtomicBool>>,
}

#[pymethods]
impl Job {
    /// The caller does not wait any more.
    fn cancel(&self) {
        // At once: the task ends when a worker comes to it, and the caller may ask the same again before that.
        if let Some(left) = &self.left {
            left.store(true, Ordering::Release);
        }
        self.task.abort();
        let future = lock(&self.queue.futures).1.remove(&self.address);
        drop(future);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
