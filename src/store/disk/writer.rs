//! The thread that writes: answers and sums in batches, what is too old or too much out again.
//!
//! It also opens the file, and opens it anew when it went away, broke, or a fork closed it. All of that in rounds; a round
//! holds the gate's pass, so a fork waits for one at most.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;
use super::file::{self, Identity};
use super::invalidation::{self, Note, Recent, Sweep};
use super::queue::{Batch, Job, Order};
use super::steps::{immediately, in_steps};
use super::{CLOCK_SLACK, PATIENCE, Shared, admin, books, budget, labels, now, row};
use crate::ledger::Report;

/// Sums are written, and other processes' invalidations read, this often.
const TICK: Duration = Duration::from_millis(500);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// All processes together do it once in so many milliseconds, however short they live.
const MAINTENANCE: i64 = 60_000;
/// Rows that one transaction removes.
const STEP: i64 = 128;

pub struct Writer {
    shared: Arc<Shared>,
    identity: Option<Identity>,
    writable: bool,
    /// The file that was found broken.
    broken: Option<Identity>,
    /// The newest invalidation that memory was told of; None: no file was open yet.
    invalidation: Option<i64>,
    recent: Recent,
    /// Invalidations whose answers are removed from here.
    sweeps: Vec<Sweep>,
    /// What the rows may weigh when the eviction that is going on ends.
    enough: Option<i64>,
    /// When the next maintenance may be due.
    maintain_at: Instant,
    /// What failed, and until when nothing is tried.
    resting: Option<(Fault, Instant)>,
    /// Since when nothing could be written for a lock.
    locked: Option<Instant>,
}

impl Writer {
    /// Tries to open the file at once, so that its salt is known.
    pub fn open(shared: Arc<Shared>) -> Self {
        let begun = Instant::now();
        let mut writer = Self {
            shared,
            identity: None,
            writable: false,
            broken: None,
            invalidation: None,
            recent: Recent::default(),
            sweeps: Vec::new(),
            enough: None,
            maintain_at: begun + TICK,
            resting: None,
            locked: None,
        };
        writer.work(VecDeque::new(), false);
        writer
    }

    pub fn run(mut self) {
        let mut ends = None;
        loop {
            let Batch { jobs, closing } = self.shared.queue.take(TICK);
            let is_done = self.work(jobs, closing);
            if closing && (is_done || Instant::now() > *ends.get_or_insert_with(|| Instant::now() + PATIENCE)) {
                break;
            }
        }
        self.shared.connections.close();
        self.shared.connections.gate.end_closing();
    }

    /// False: it is to be tried again.
    fn work(&mut self, mut jobs: VecDeque<Job>, closing: bool) -> bool {
        if let Some((fault, until)) = &self.resting
            && Instant::now() < *until
            && !closing
        {
            refuse(jobs, fault);
            return true;
        }
        let mut result = self.round(&mut jobs);
        if matches!(result, Err(Fault::Corrupt(None))) {
            // Once more, with a fresh file.
            self.lost(result.as_ref().err());
            result = self.round(&mut jobs);
        }
        match result {
            Ok(()) => {
                self.shared.news.clear();
                (self.locked, self.resting) = (None, None);
            }
            Err(Fault::Locked) => {
                // Others write as well: that is no fault until it lasts.
                let since = *self.locked.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    self.shared.note(&Fault::Locked);
                    let (orders, others) = jobs.into_iter().partition(|job| matches!(job, Job::Order(..)));
                    refuse(orders, &Fault::Locked);
                    jobs = others;
                }
                self.shared.queue.put_back(jobs);
                return false;
            }
            Err(fault) => {
                self.failed(&fault);
                refuse(jobs, &fault);
            }
        }
        true
    }

    fn failed(&mut self, fault: &Fault) {
        self.shared.note(fault);
        self.resting = Some((fault.clone(), Instant::now() + PAUSE));
        self.lost(Some(fault));
    }

    /// The connections are good for nothing any more.
    fn lost(&mut self, fault: Option<&Fault>) {
        if fault.is_some_and(Fault::is_corrupt) {
            self.broken = self.identity;
        }
        let _pass = self.shared.connections.gate.enter();
        self.shared.connections.writer().take();
        // What can be read is read on: a full disk is no reason to ask an upstream again.
        if !matches!(fault, Some(Fault::Full | Fault::ReadOnly | Fault::Other(_))) {
            self.shared.connections.set_gone();
        }
    }

    /// One pass through the file. Jobs are taken out of `jobs` when they are done.
    fn round(&mut self, jobs: &mut VecDeque<Job>) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let _pass = shared.connections.gate.enter();
        let mut place = shared.connections.writer();
        if shared.news.take_suspect() {
            self.broken = self.identity;
            *place = None;
            // Nobody is to read a file that is half made.
            shared.connections.set_gone();
        }
        if place.is_some() && file::identity(&shared.settings.path) != self.identity {
            // Deleted, or replaced by somebody.
            *place = None;
        }
        let connection = match place.as_mut() {
            Some(connection) => connection,
            None => place.insert(self.reopen()?),
        };
        if !self.writable {
            let refused = jobs.iter().any(|job| matches!(job, Job::Put(_) | Job::Label(_) | Job::Order(..)));
            self.follow(connection)?;
            return if refused { Err(Fault::ReadOnly) } else { Ok(()) };
        }
        let sums = shared.book.take();
        if !jobs.is_empty() || sums != Report::default() {
            let written = self.write(connection, jobs, &sums);
            if written.is_err() {
                shared.book.give_back(&sums);
            }
            written?;
        }
        self.follow(connection)?;
        self.sweep(connection)?;
        self.evict(connection)?;
        if Instant::now() > self.maintain_at {
            self.maintain_at = Instant::now() + TICK * if self.maintain(connection)? { 10 } else { 1 };
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<Connection, Fault> {
        let shared = &self.shared;
        let salt = *shared.salt.get().unwrap_or(&shared.own_salt);
        let mut opened = file::open(&shared.settings.path, &salt, self.broken.take())?;
        if let Some(moved) = opened.moved.take() {
            // The answers can be asked for again, the sums cannot.
            if let Ok(old) = file::connect(&moved) {
                let _ = immediately(&mut opened.connection, |tables| books::salvage(tables, &old));
                let _ = immediately(&mut opened.connection, |tables| budget::salvage(tables, &old));
                let _ = immediately(&mut opened.connection, |tables| labels::salvage(tables, &old));
            }
            shared.note(&Fault::Corrupt(Some(moved)));
        }
        let _ = shared.salt.set(opened.salt);
        let is_other_file = self.identity != opened.identity;
        if is_other_file || self.invalidation.is_none() {
            self.invalidation = Some(invalidation::newest(&opened.connection)?);
            self.sweeps.clear();
        }
        self.identity = opened.identity;
        self.writable = opened.writable;
        shared.connections.set_ready(is_other_file);
        Ok(opened.connection)
    }

    fn write(&mut self, connection: &mut Connection, jobs: &mut VecDeque<Job>, sums: &Report) -> Result<(), Fault> {
        let now = now();
        let shared = Arc::clone(&self.shared);
        let namespace = &shared.settings.namespace;
        let mut own = None;
        let mut sweeps = Vec::new();
        let mut done = Vec::new();
        let mut has_labels = false;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        look_at_clock(&transaction, |fault| shared.note(&fault))?;
        // Before ours: those are done in memory already, and what was stored since then is to stay there.
        self.follow(&transaction)?;
        for job in jobs.iter() {
            match job {
                Job::Put(stored) if self.recent.hides(stored) => {}
                Job::Put(stored) => stored.write(&transaction, now)?,
                Job::Label(label) => {
                    labels::add(&transaction, label)?;
                    has_labels = true;
                }
                Job::Used(key) => {
                    let mut statement = transaction.prepare_cached("UPDATE entry SET used = ?2 WHERE id = ?1")?;
                    statement.execute([row::id(namespace, key), now])?;
                }
                Job::Remove(key) => {
                    let mut statement = transaction.prepare_cached("DELETE FROM entry WHERE id = ?1")?;
                    statement.execute([row::id(namespace, key)])?;
                }
                Job::Order(Order::Flush, _) => done.push(0),
                Job::Order(Order::Invalidate(tag), _) => {
                    let (mut sweep, count) = invalidation::add(&transaction, Some(namespace), tag.as_deref(), now)?;
                    own = Some(invalidation::newest(&transaction)?);
                    done.push(count);
                    if !invalidation::step(&transaction, &mut sweep)? {
                        sweeps.push(sweep);
                    }
                }
            }
        }
        if has_labels {
            labels::trim(&transaction, labels::MOST, shared.settings.most_label_bytes())?;
        }
        if *sums != Report::default() {
            books::add(&transaction, now / 1000, sums)?;
        }
        transaction.commit()?;
        self.invalidation = own.or(self.invalidation);
        self.sweeps.append(&mut sweeps);
        // Before anybody hears that it is done.
        shared.news.clear();
        let mut done = done.into_iter();
        for job in jobs.drain(..) {
            if let Job::Order(_, reply) = job {
                let _ = reply.try_send(Ok(done.next().unwrap_or(0)));
            }
        }
        Ok(())
    }

    /// Does in memory what other processes invalidated.
    fn follow(&mut self, connection: &Connection) -> Result<(), Fault> {
        let shared = &self.shared;
        let after = self.invalidation.unwrap_or(0);
        for (id, note, at) in invalidation::since(connection, after, &shared.settings.namespace)? {
            self.invalidation = Some(id);
            shared.invalidations.fetch_add(1, Ordering::AcqRel);
            match &note {
                Note::Key(key) => shared.memory.remove(key),
                Note::Tag(tag) => _ = shared.memory.invalidate_tag(tag),
                Note::Everything => shared.memory.clear(),
            }
            self.recent.add(note, at);
        }
        self.recent.forget(now());
        Ok(())
    }

    /// Removes some of what was invalidated.
    fn sweep(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let Some(sweep) = self.sweeps.first_mut() else { return Ok(()) };
        if in_steps(|| immediately(connection, |tables| invalidation::step(tables, sweep)))? {
            self.sweeps.remove(0);
        }
        // The rest in the next round, at once.
        self.shared.queue.hurry();
        Ok(())
    }

    /// Keeps the file within its bound: what was not used for longest goes.
    ///
    /// Rows that go leave holes in the file's pages, which what comes fills again: the file does not get smaller by them.
    /// So there is one eviction, and the next when the rows weigh as much again as would fill the file to its bound.
    fn evict(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let max_bytes = self.shared.settings.max_bytes.try_into().unwrap_or(i64::MAX);
        let evicted_at = format!("evicted at {max_bytes}");
        let enough = match self.enough {
            Some(enough) => enough,
            None => {
                let in_use = admin::bytes_in_use(connection)?.try_into().unwrap_or(i64::MAX);
                if in_use <= max_bytes {
                    return Ok(());
                }
                let weight = row::all_weigh(connection)?;
                if file::number(connection, &evicted_at)?.is_some_and(|at| weight < at) {
                    return Ok(());
                }
                self.note_uses(connection)?;
                let fits = i128::from(weight) * i128::from(max_bytes) / i128::from(in_use);
                let fits = i64::try_from(fits).unwrap_or(i64::MAX);
                file::set_number(connection, &evicted_at, fits)?;
                // A little more than needed, so that it is not needed again at once.
                *self.enough.insert(fits - fits / 16)
            }
        };
        let ended = in_steps(|| immediately(connection, |tables| row::evict(tables, enough, STEP)))?;
        if ended {
            self.enough = None;
        } else {
            self.shared.queue.hurry();
        }
        Ok(())
    }

    /// What memory answered is in use as well, though the file was not asked.
    fn note_uses(&self, connection: &mut Connection) -> Result<(), Fault> {
        let used = self.shared.memory.take_used();
        immediately(connection, |tables| {
            let mut statement = tables.prepare_cached("UPDATE entry SET used = ?2 WHERE id = ?1")?;
            let now = now();
            for key in used {
                statement.execute([row::id(&self.shared.settings.namespace, &key), now])?;
            }
            Ok(())
        })
    }

    /// Removes what is too old: answers, invalidations, hours of the ledger. False: there is more to remove.
    fn maintain(&mut self, connection: &mut Connection) -> Result<bool, Fault> {
        let now = now();
        let done = file::number(connection, "maintained")?;
        if done.is_some_and(|done| done <= now && done + MAINTENANCE > now) {
            return Ok(true);
        }
        let ended = in_steps(|| {
            let sql = "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE expires <= ?1 LIMIT ?2)";
            Ok(connection.prepare_cached(sql)?.execute([now, STEP])? < STEP as usize)
        })?;
        if !ended {
            return Ok(false);
        }
        let orphan = immediately(connection, |tables| {
            books::fold(tables, now / 1000)?;
            budget::maintain(tables, now.div_euclid(86_400_000))?;
            file::set_number(tables, "maintained", now)?;
            invalidation::maintain(tables, now)
        })?;
        if self.sweeps.is_empty() {
            self.sweeps.extend(orphan);
        }
        Ok(true)
    }
}

/// Writes down how late it is. When it was later before, the clock was set back: then nobody knows how old the entries
/// from the future are, and those whose age matters go.
fn look_at_clock(connection: &Connection, note: impl FnOnce(Fault)) -> Result<(), Fault> {
    let now = now();
    let latest = file::number(connection, "clock")?.unwrap_or(0);
    if latest > now + CLOCK_SLACK {
        note(Fault::Clock);
        let future = now + CLOCK_SLACK;
        connection.execute("DELETE FROM entry WHERE stored > ?1 AND expires IS NOT NULL", [future])?;
        connection.execute("UPDATE entry SET used = ?1 WHERE used > ?1", [now])?;
    }
    if latest + 1000 < now || latest > now + CLOCK_SLACK {
        file::set_number(connection, "clock", now)?;
    }
    Ok(())
}

fn refuse(jobs: VecDeque<Job>, fault: &Fault) {
    for job in jobs {
        if let Job::Order(_, reply) = job {
            let _ = reply.try_send(Err(fault.clone()));
        }
    }
}
