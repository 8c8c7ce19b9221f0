//! What waits to be written: bounded, in order, taken in batches by the writer's thread.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::row::Stored;
use crate::key::Key;
use crate::labels::Label;

/// Answers beyond this are not kept on disk: the calls do not wait for it.
pub const MOST_BYTES: usize = 64 << 20;
/// Enough for one transaction.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const WINDOW: Duration = Duration::from_millis(50);

pub enum Job {
    Put(Box<Stored>),
    /// It was read, and is not to be evicted soon.
    Used(Key),
    Label(Box<Label>),
    /// It is not to be read any more.
    Remove(Key),
    Order(Order, SyncSender<Result<u64, Fault>>),
}

/// What somebody waits for.
#[derive(Clone)]
pub enum Order {
    /// Everything before it is written.
    Flush,
    /// Removes what was stored under a tag; None: everything.
    Invalidate(Option<Arc<str>>),
}

#[derive(Default)]
pub struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    list: VecDeque<Job>,
    bytes: usize,
    urgent: bool,
    closing: bool,
}

/// What was taken.
pub struct Batch {
    pub jobs: VecDeque<Job>,
    pub closing: bool,
}

impl Queue {
    /// False: there is too much already, it was left out.
    pub fn push(&self, job: Job) -> bool {
        self.offer(job).is_none()
    }

    /// [`Self::push`] that gives back what was left out.
    pub fn offer(&self, job: Job) -> Option<Job> {
        let bytes = weight(&job);
        let mut jobs = self.lock();
        if jobs.bytes + bytes > MOST_BYTES || jobs.closing {
            return Some(job);
        }
        jobs.bytes += bytes;
        jobs.list.push_back(job);
        // The writer wakes for the first, and for enough.
        if jobs.list.len() == 1 || jobs.list.len() == BATCH {
            drop(jobs);
            self.changed.notify_one();
        }
        None
    }

    /// Orders something, after what waits already.
    pub fn order(&self, order: Order) -> Receiver<Result<u64, Fault>> {
        let (reply, answer) = sync_channel(1);
        let mut jobs = self.lock();
        jobs.list.push_back(Job::Order(order, reply));
        jobs.urgent = true;
        drop(jobs);
        self.changed.notify_one();
        answer
    }

    /// The writer is to write now.
    pub fn hurry(&self) {
        self.lock().urgent = true;
        self.changed.notify_one();
    }

    /// No more jobs come; the writer ends when it has written those that are there.
    pub fn close(&self) {
        let mut jobs = self.lock();
        jobs.closing = true;
        jobs.urgent = true;
        drop(jobs);
        self.changed.notify_one();
    }

    /// The next batch; an empty one after `tick` without jobs.
    pub fn take(&self, tick: Duration) -> Batch {
        let mut jobs = self.lock();
        let wait = |jobs: MutexGuard<'_, Jobs>, left: Duration| -> bool {
            let waited = self.changed.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner);
            waited.1.timed_out()
        };
        let ends = Instant::now() + tick;
        while jobs.list.is_empty() && !jobs.urgent {
            let left = ends.saturating_duration_since(Instant::now());
            if wait(jobs, left) || left.is_zero() {
                jobs = self.lock();
                break;
            }
            jobs = self.lock();
        }
        let ends = Instant::now() + WINDOW;
        while !jobs.list.is_empty() && jobs.list.len() < BATCH && !jobs.urgent {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(jobs, left);
            jobs = self.lock();
        }
        jobs.urgent = false;
        let most = jobs.list.len().min(4 * BATCH);
        let taken: VecDeque<Job> = jobs.list.drain(..most).collect();
        jobs.bytes = jobs.bytes.saturating_sub(taken.iter().map(weight).sum());
        if !jobs.list.is_empty() {
            jobs.urgent = true;
        }
        Batch { jobs: taken, closing: jobs.closing && jobs.list.is_empty() }
    }

    /// Puts jobs back in front, to be tried again.
    pub fn put_back(&self, mut taken: VecDeque<Job>) {
        let mut jobs = self.lock();
        jobs.bytes += taken.iter().map(weight).sum::<usize>();
        taken.append(&mut jobs.list);
        jobs.list = taken;
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(job: &Job) -> usize {
    match job {
        Job::Put(stored) => stored.weight(),
        Job::Label(label) => label.weight(),
        Job::Used(_) | Job::Remove(_) | Job::Order(..) => 64,
    }
}
