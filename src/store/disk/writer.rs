//! The thread that writes: answers and sums in batches, what is too old or too much out again.
//!
//! It also opens the file, and opens it anew when it went away, broke, or a fork closed it. All of that in rounds; a round
//! holds the gate's pass, so a fork waits for one at most.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::fault::Fault;
use super::file::{self, Identity};
use super::invalidation::{self, Note, Sweep};
use super::queue::{Batch, Job, Order};
use super::steps::{immediately, in_steps};
use super::{CLOCK_SLACK, PATIENCE, Shared, admin, books, now, row};
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
    /// The newest invalidation that memory was told of.
    invalidation: i64,
    /// Invalidations whose answers are removed from here.
    sweeps: Vec<Sweep>,
    /// When the next maintenance may be due.
    maintain_at: Instant,
    /// What failed, and until when nothing is tried.
    resting: Option<(Fault, Instant)>,
    /// Since when nothing could be written for a lock.
    locked: Option<Instant>,
}

/// What ledgers say beyond what is in the file; and which of them, with all that each says now.
type Changes = (Report, Vec<(usize, Report, u64)>);

impl Writer {
    /// Tries to open the file at once, so that its salt is known.
    pub fn open(shared: Arc<Shared>) -> Self {
        let begun = Instant::now();
        let mut writer = Self {
            shared,
            identity: None,
            writable: false,
            broken: None,
            invalidation: 0,
            sweeps: Vec::new(),
            maintain_at: begun + TICK,
            resting: None,
            locked: None,
        };
        if let Err(fault) = writer.round(&mut VecDeque::new()) {
            writer.failed(&fault);
        }
        writer
    }

    pub fn run(mut self) {
        loop {
            let Batch { jobs, closing } = self.shared.queue.take(TICK);
            self.work(jobs, closing);
            if closing {
                break;
            }
        }
        self.shared.connections.close();
        self.shared.connections.gate.end_closing();
    }

    fn work(&mut self, mut jobs: VecDeque<Job>, closing: bool) {
        if let Some((fault, until)) = &self.resting
            && Instant::now() < *until
        {
            if self.locked.is_some() && !closing {
                self.shared.queue.put_back(jobs);
                std::thread::sleep(TICK / 5);
            } else {
                refuse(jobs, fault);
            }
            return;
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
                self.locked = None;
            }
            Err(Fault::Locked) => {
                self.shared.note(&Fault::Locked);
                let since = *self.locked.get_or_insert_with(Instant::now);
                if closing || since.elapsed() > PATIENCE {
                    let (orders, others): (VecDeque<_>, VecDeque<_>) =
                        jobs.into_iter().partition(|job| matches!(job, Job::Order(..)));
                    refuse(orders, &Fault::Locked);
                    jobs = others;
                }
                if !closing {
                    self.shared.queue.put_back(jobs);
                }
            }
            Err(fault) => {
                self.failed(&fault);
                refuse(jobs, &fault);
            }
        }
    }

    fn failed(&mut self, fault: &Fault) {
        self.shared.note(fault);
        self.resting = Some((fault.clone(), Instant::now() + PAUSE));
        if *fault == Fault::Locked {
            return;
        }
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
            let refused = jobs.iter().any(|job| matches!(job, Job::Put(_) | Job::Order(..)));
            self.follow(connection)?;
            return if refused { Err(Fault::ReadOnly) } else { Ok(()) };
        }
        let book = self.changes();
        if !jobs.is_empty() || book.is_some() {
            self.write(connection, jobs, book)?;
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
        let opened = file::open(&shared.settings.path, &salt, self.broken.take())?;
        if opened.moved.is_some() {
            shared.note(&Fault::Corrupt(opened.moved));
        }
        let _ = shared.salt.set(opened.salt);
        let is_other_file = self.identity != opened.identity;
        if is_other_file || self.invalidation == 0 {
            self.invalidation = invalidation::newest(&opened.connection)?;
            self.sweeps.clear();
        }
        self.identity = opened.identity;
        self.writable = opened.writable;
        shared.connections.set_ready(is_other_file);
        if opened.writable {
            look_at_clock(&opened.connection, |fault| shared.note(&fault))?;
        }
        Ok(opened.connection)
    }

    fn changes(&self) -> Option<Changes> {
        let ledgers = self.shared.ledgers();
        let mut sum = Report::default();
        let mut marks = Vec::new();
        for (at, kept) in ledgers.iter().enumerate() {
            if let Some((all, seen)) = kept.ledger.all_since(kept.seen) {
                sum.add(&all.since(&kept.saved));
                marks.push((at, all, seen));
            }
        }
        (!marks.is_empty()).then_some((sum, marks))
    }

    fn write(
        &mut self,
        connection: &mut Connection,
        jobs: &mut VecDeque<Job>,
        book: Option<Changes>,
    ) -> Result<(), Fault> {
        let now = now();
        let shared = Arc::clone(&self.shared);
        let namespace = &shared.settings.namespace;
        let mut own = None;
        let mut sweeps = Vec::new();
        let mut done = Vec::new();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        look_at_clock(&transaction, |fault| shared.note(&fault))?;
        // Before ours: those are done in memory already, and what was stored since then is to stay there.
        self.follow(&transaction)?;
        for job in jobs.iter() {
            match job {
                Job::Put(stored) => stored.write(&transaction, now)?,
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
        if let Some((sum, _)) = &book {
            books::add(&transaction, now / 1000, sum)?;
        }
        transaction.commit()?;
        self.invalidation = own.unwrap_or(self.invalidation);
        self.sweeps.append(&mut sweeps);
        let mut done = done.into_iter();
        for job in jobs.drain(..) {
            if let Job::Order(_, reply) = job {
                let _ = reply.try_send(Ok(done.next().unwrap_or(0)));
            }
        }
        if let Some((_, marks)) = book {
            let mut ledgers = shared.ledgers();
            // Only this thread takes any out, and new ones come at the end.
            for (at, all, seen) in marks {
                if let Some(kept) = ledgers.get_mut(at) {
                    kept.saved = all;
                    kept.seen = seen;
                }
            }
            ledgers.retain(|kept| Arc::strong_count(&kept.ledger) > 1 || kept.ledger.all_since(kept.seen).is_some());
        }
        Ok(())
    }

    /// Does in memory what other processes invalidated.
    fn follow(&mut self, connection: &Connection) -> Result<(), Fault> {
        let shared = &self.shared;
        for (id, note) in invalidation::since(connection, self.invalidation, &shared.settings.namespace)? {
            self.invalidation = id;
            match note {
                Note::Key(key) => shared.memory.remove(&key),
                Note::Tag(tag) => _ = shared.memory.invalidate_tag(&tag),
                Note::Everything => shared.memory.clear(),
            }
        }
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
    fn evict(&self, connection: &mut Connection) -> Result<(), Fault> {
        let max_bytes = self.shared.settings.max_bytes;
        if admin::bytes_in_use(connection)? <= max_bytes {
            return Ok(());
        }
        // What memory answered is in use as well, though the file was not asked.
        let used = self.shared.memory.take_used();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = transaction.prepare_cached("UPDATE entry SET used = ?2 WHERE id = ?1")?;
            let now = now();
            for key in used {
                statement.execute([row::id(&self.shared.settings.namespace, &key), now])?;
            }
        }
        transaction.commit()?;
        // A little more than needed, so that it is not needed again at once.
        let enough = max_bytes - max_bytes / 16;
        let ended = in_steps(|| {
            let sql = "DELETE FROM entry WHERE id IN (SELECT id FROM entry ORDER BY used LIMIT ?1)";
            Ok(admin::bytes_in_use(connection)? <= enough || connection.prepare_cached(sql)?.execute([STEP])? == 0)
        })?;
        if !ended {
            self.shared.queue.hurry();
        }
        Ok(())
    }

    /// Removes what is too old: answers, invalidations, hours of the ledger. False: there is more to remove.
    fn maintain(&mut self, connection: &mut Connection) -> Result<bool, Fault> {
        let now = now();
        let done = "SELECT value FROM meta WHERE name = 'maintained'";
        let done: Option<i64> = connection.prepare_cached(done)?.query_row((), |row| row.get(0)).optional()?;
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
            tables.execute("INSERT OR REPLACE INTO meta VALUES ('maintained', ?1)", [now])?;
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
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = 'clock'")?;
    let latest: i64 = select.query_row((), |row| row.get(0)).optional()?.unwrap_or(0);
    if latest > now + CLOCK_SLACK {
        note(Fault::Clock);
        let future = now + CLOCK_SLACK;
        connection.execute("DELETE FROM entry WHERE stored > ?1 AND expires IS NOT NULL", [future])?;
        connection.execute("UPDATE entry SET used = ?1 WHERE used > ?1", [now])?;
    }
    if latest + 1000 < now || latest > now + CLOCK_SLACK {
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?1)", [now])?;
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
