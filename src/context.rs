//! What every stage may know about the call it works for. Cheap to clone, so that a stage can hand it to a task.
//! The request itself is not here, nor anything that only one stage needs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::budget::Budgets;
use crate::error::{Error, Result};
use crate::hooks::Hooks;
use crate::ledger::{Books, Money, Purpose};
use crate::patience::{Limits, Patience};
use crate::receipt::Receipt;
use crate::stages::batch::window::Packing;
use crate::upstream::Sender;
use crate::upstream::plan::{Plan, Tier};

/// How the exact cache is used by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    On,
    Off,
    /// Answers from the cache, stores nothing.
    ReadOnly,
    /// Stores, and never answers from the cache.
    WriteOnly,
    /// Asks again and replaces what is stored.
    Refresh,
}

impl Mode {
    pub const NAMES: [(&'static str, Self); 5] = [
        ("on", Self::On),
        ("off", Self::Off),
        ("read_only", Self::ReadOnly),
        ("write_only", Self::WriteOnly),
        ("refresh", Self::Refresh),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }

    pub fn reads(self) -> bool {
        matches!(self, Self::On | Self::ReadOnly)
    }

    pub fn writes(self) -> bool {
        matches!(self, Self::On | Self::WriteOnly | Self::Refresh)
    }
}

/// Counts the tasks that stages spawned, for whoever drives the runtime and wants to know when it may stop.
#[derive(Debug, Default)]
pub struct Tasks {
    running: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Waits until none is left.
    pub async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running() == 0 {
                return;
            }
            ended.await;
        }
    }
}

struct Running(Arc<Tasks>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// What one call asks of the stages that choose a model.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// A good answer, to compare with.
    pub reference: Option<String>,
    /// After it, nobody is asked or waited for.
    pub deadline: Option<Duration>,
    /// Whatever may cost more than is left of it is not asked.
    pub max_cost: Option<Money>,
}

/// One call's surroundings.
#[derive(Clone)]
pub struct Context {
    pub began: Instant,
    pub books: Books,
    pub receipt: Arc<Receipt>,
    pub sender: Arc<dyn Sender>,
    /// Which upstreams are asked; None = the request's own, of which nothing is said in the policy.
    pub plan: Option<Arc<Plan>>,
    /// The model that a stage chose for the call; None = the request's own.
    pub tier: Option<Arc<Tier>>,
    /// What the call may cost in all; None = nothing is said of it.
    pub max_cost: Option<Arc<Budgets>>,
    /// What the attempts are for; who pays is the same, but it stands elsewhere in the books.
    pub purpose: Purpose,
    pub limits: Limits,
    /// Shared by everybody who waits for the same work; the stage that shares the work replaces it.
    pub patience: Arc<Patience>,
    pub mode: Mode,
    /// How old an answer may be, and how long a stored one lives; None = what the policy says.
    pub ttl: Option<Duration>,
    pub tag: Option<Arc<str>>,
    /// None = what the policy says. A call with wishes shares no work with others.
    pub wishes: Option<Arc<Wishes>>,
    /// The calls of one `map`, which share requests with each other; None = it is none of them.
    pub packing: Option<Arc<Packing>>,
    /// The caller has looked for the answer on disk, just now.
    pub looked_on_disk: bool,
    /// The event loop that the caller waits on, by a number; None = it blocks a thread, and whatever loop may be on it.
    pub event_loop: Option<u64>,
    /// Set when the caller waits no more; the call itself ends a little later. None = it ends with the caller.
    pub left: Option<Arc<AtomicBool>>,
    /// Calls the functions of the policy; None = it has none. A call that has them needs the shared runtime.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// The call comes from inside a function of a policy. It must not wait for others: they may wait for that function.
    pub inside: bool,
    /// Counts what [`Self::spawn`] spawns; None when nobody asks.
    pub tasks: Option<Arc<Tasks>>,
    /// Where the policy is strict: the first thing that a stage of the call could not do. None = it is not.
    pub fault: Option<Arc<OnceLock<String>>>,
}

impl Context {
    /// A stage could not do its part: where the policy is strict the call fails by it, else it goes on without. Inside a
    /// function of the policy it always goes on: functions are not called from there, so they would all fail.
    pub fn fail(&self, stage: &'static str, why: &str) {
        if let Some(fault) = self.fault.as_ref().filter(|_| !self.inside) {
            let _ = fault.set(format!("{stage}: {why}"));
        }
    }

    /// # Errors
    /// [`Error::Internal`], where the policy is strict and a stage has failed.
    pub fn check(&self) -> Result<()> {
        let fault = self.fault.as_ref().and_then(|fault| fault.get());
        fault.map_or(Ok(()), |said| Err(Error::Internal(said.clone())))
    }

    /// Starts work that may outlive this call. A stage that works for several callers starts it here.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        match &self.tasks {
            None => tokio::spawn(work).abort_handle(),
            Some(tasks) => {
                tasks.running.fetch_add(1, Ordering::AcqRel);
                let running = Running(Arc::clone(tasks));
                let counted = async move {
                    let _running = running;
                    work.await;
                };
                tokio::spawn(counted).abort_handle()
            }
        }
    }
}
