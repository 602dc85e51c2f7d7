//! Session id → worker. Owned by the host: no policy, good or bad, can lose it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::live::Live;
use crate::types::WorkerId;
use crate::upgrade::state;

/// A session heard of more recently than this is in use: Engine.IO clients ask every 25 s.
const SHORTEST_IDLE: Duration = Duration::from_secs(60);

/// Below this many, fleeting sessions are not looked through.
const LEAST_TIDY: usize = 1024;

/// Which worker owns which session, and who is waiting to know.
#[derive(Debug)]
pub struct SessionTable {
    inner: Mutex<Inner>,
    bounds: Live<Bounds>,
    began: Instant,
    /// Its age in the programs before, in seconds.
    before: AtomicU32,
}

/// How many sessions are remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub limit: usize,
    /// How long a session whose end nobody announces is remembered after it was last heard of.
    pub idle: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    owners: HashMap<Box<str>, Owner>,
    /// Sessions whose end nobody will announce, and when they were last heard of.
    fleeting: HashMap<Box<str>, (Owner, Instant)>,
    /// How many fleeting ones there may be before the old ones are looked for.
    tidy_at: usize,
    /// Connections held until somebody announces their session.
    waiting: HashMap<Box<str>, Vec<oneshot::Sender<WorkerId>>>,
}

/// Who has a session, and since which second of the table's life: no larger than a pointer, as there may
/// be a million of them.
#[derive(Debug, Clone, Copy)]
struct Owner {
    worker: WorkerId,
    since: u32,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    New,
    /// The same worker said so before.
    Known,
    /// Another worker owns it. A worker can only claim for itself, and the first claim stands.
    Taken,
    /// The table is at its limit.
    Full,
}

/// What became of a session's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It was part of the worker's load.
    Announced,
    /// It was one whose end nobody had promised to announce.
    Fleeting,
    /// Unknown, or another worker's.
    NotIts,
}

impl SessionTable {
    /// An empty table for at most `limit` sessions. Those whose end nobody announces are forgotten
    /// when they are `idle`.
    #[must_use]
    pub fn new(limit: usize, idle: Duration) -> Self {
        Self {
            inner: Mutex::default(),
            bounds: Live::new(Bounds { limit, idle }),
            began: Instant::now(),
            before: AtomicU32::new(0),
        }
    }

    /// Other bounds from now on. Sessions beyond a lower limit stay; no more are taken.
    pub fn rebound(&self, bounds: Bounds) {
        self.bounds.set(bounds);
    }

    fn idle(&self) -> Duration {
        self.bounds.now().idle
    }

    /// The owner of a session.
    #[must_use]
    pub fn owner(&self, sid: &str) -> Option<WorkerId> {
        self.lock().owner(sid, self.idle())
    }

    /// The owner of a session, without the session counting as used.
    #[must_use]
    pub fn glance(&self, sid: &str) -> Option<WorkerId> {
        self.look(sid).map(|(worker, _)| worker)
    }

    /// The same, and for how long it has had the session.
    #[must_use]
    pub fn look(&self, sid: &str) -> Option<(WorkerId, Duration)> {
        let inner = self.lock();
        let fleeting = || {
            let (owner, seen) = inner.fleeting.get(sid)?;
            (seen.elapsed() < self.idle()).then_some(*owner)
        };
        let Owner { worker, since } = inner.owners.get(sid).copied().or_else(fleeting)?;
        Some((worker, Duration::from_secs(u64::from(self.now().saturating_sub(since)))))
    }

    /// The second of the table's life.
    fn now(&self) -> u32 {
        let here = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        here.saturating_add(self.before.load(Ordering::Relaxed))
    }

    /// A worker announces a session. Whoever waits for it is told.
    pub fn open(&self, sid: &str, worker: WorkerId) -> Opened {
        self.enter(sid, worker, |inner| {
            inner.owners.insert(sid.into(), Owner { worker, since: self.now() });
        })
    }

    /// A worker announces a session whose end it will not announce. It is forgotten when nobody
    /// has asked for it, or announced it again, in a while.
    pub fn open_fleeting(&self, sid: &str, worker: WorkerId) -> Opened {
        let now = Instant::now();
        self.enter(sid, worker, |inner| {
            if inner.fleeting.len() >= inner.tidy_at {
                inner.forget_idle(now, self.idle());
                // Looked through again only when it has doubled: a constant cost for each session.
                inner.tidy_at = (inner.fleeting.len() * 2).max(LEAST_TIDY);
            }
            inner.fleeting.insert(sid.into(), (Owner { worker, since: self.now() }, now));
        })
    }

    fn enter(&self, sid: &str, worker: WorkerId, insert: impl FnOnce(&mut Inner)) -> Opened {
        let mut inner = self.lock();
        match inner.owner(sid, self.idle()) {
            Some(owner) if owner == worker => return Opened::Known,
            Some(_) => return Opened::Taken,
            None if inner.len() >= self.bounds.now().limit && !inner.make_room(self.idle()) => {
                return Opened::Full;
            }
            None => insert(&mut inner),
        }
        for waiter in inner.waiting.remove(sid).unwrap_or_default() {
            // A waiter that has gone in the meantime needs no answer.
            let _ = waiter.send(worker);
        }
        Opened::New
    }

    /// A worker says a session has ended.
    pub fn close(&self, sid: &str, worker: WorkerId) -> Closed {
        let mut inner = self.lock();
        if inner.owners.get(sid).is_some_and(|owner| owner.worker == worker) {
            inner.owners.remove(sid);
            return Closed::Announced;
        }
        if inner.fleeting.get(sid).is_some_and(|(owner, _)| owner.worker == worker) {
            inner.fleeting.remove(sid);
            return Closed::Fleeting;
        }
        Closed::NotIts
    }

    /// Forgets every session of a worker that is no more and returns how many there were.
    pub fn forget(&self, worker: WorkerId) -> usize {
        let mut inner = self.lock();
        let before = inner.len();
        inner.owners.retain(|_, owner| owner.worker != worker);
        inner.fleeting.retain(|_, (owner, _)| owner.worker != worker);
        before - inner.len()
    }

    /// Every session, for the next program. Those who wait for one are not here.
    #[must_use]
    pub fn carry(&self) -> state::Sessions {
        let inner = self.lock();
        let owners =
            inner.owners.iter().map(|(sid, Owner { worker, since })| (sid.to_string(), *worker, *since));
        let fleeting = inner
            .fleeting
            .iter()
            .map(|(sid, (Owner { worker, since }, seen))| (sid.to_string(), *worker, *since, seen.elapsed()));
        state::Sessions { age: self.now(), owners: owners.collect(), fleeting: fleeting.collect() }
    }

    /// Goes on with the sessions of the program before.
    pub fn resume(&self, carried: state::Sessions) {
        let mut inner = self.lock();
        let now = Instant::now();
        let state::Sessions { age, owners, fleeting } = carried;
        self.before.store(age.saturating_sub(self.now()), Ordering::Relaxed);
        let owner = |(sid, worker, since): (String, _, _)| (sid.into(), Owner { worker, since });
        inner.owners.extend(owners.into_iter().map(owner));
        inner.fleeting.extend(fleeting.into_iter().map(|(sid, worker, since, age)| {
            (sid.into(), (Owner { worker, since }, now.checked_sub(age).unwrap_or(now)))
        }));
        inner.tidy_at = (inner.fleeting.len() * 2).max(LEAST_TIDY);
    }

    /// How many sessions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.bounds.now().limit
    }

    /// True when no session is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until somebody announces the session, at most for `grace`. Cancel safe.
    pub async fn announced(&self, sid: &str, grace: Duration) -> Option<WorkerId> {
        let answer = {
            let mut inner = self.lock();
            if let Some(owner) = inner.owner(sid, self.idle()) {
                return Some(owner);
            }
            let (sender, receiver) = oneshot::channel();
            inner.waiting.entry(sid.into()).or_default().push(sender);
            receiver
        };
        let owner = timeout(grace, answer).await.ok().and_then(Result::ok);
        if owner.is_none() {
            self.stop_waiting(sid);
        }
        owner
    }

    /// Drops the entries of waiters that have gone.
    fn stop_waiting(&self, sid: &str) {
        let mut inner = self.lock();
        if let Entry::Occupied(mut entry) = inner.waiting.entry(sid.into()) {
            entry.get_mut().retain(|waiter| !waiter.is_closed());
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock; were it so, the maps would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn owner(&mut self, sid: &str, idle: Duration) -> Option<WorkerId> {
        if let Some(owner) = self.owners.get(sid) {
            return Some(owner.worker);
        }
        if self.fleeting.is_empty() {
            return None;
        }
        let (owner, seen) = self.fleeting.get_mut(sid)?;
        let (owner, now) = (owner.worker, Instant::now());
        if now.saturating_duration_since(*seen) >= idle {
            self.fleeting.remove(sid);
            return None;
        }
        *seen = now;
        Some(owner)
    }

    fn len(&self) -> usize {
        self.owners.len() + self.fleeting.len()
    }

    fn forget_idle(&mut self, now: Instant, idle: Duration) {
        self.fleeting.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < idle);
    }

    /// At the limit, sessions that nobody ends give way to new ones, the longest idle first. False
    /// when all of them are in use.
    fn make_room(&mut self, idle: Duration) -> bool {
        let (now, before) = (Instant::now(), self.fleeting.len());
        let mut idle = idle;
        while self.fleeting.len() == before && idle >= SHORTEST_IDLE {
            self.forget_idle(now, idle);
            idle /= 2;
        }
        self.fleeting.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const IDLE: Duration = Duration::from_secs(120);

    #[test]
    fn the_first_claim_stands_and_only_the_owner_ends_it() {
        let table = SessionTable::new(10, IDLE);
        assert_eq!(table.open("s", A), Opened::New);
        assert_eq!(table.open("s", A), Opened::Known);
        assert_eq!(table.open("s", B), Opened::Taken);
        assert_eq!(table.owner("s"), Some(A));
        assert_eq!(table.close("s", B), Closed::NotIts);
        assert_eq!(table.close("s", A), Closed::Announced);
        assert_eq!(table.owner("s"), None);
    }

    #[test]
    fn a_dead_workers_sessions_go_and_the_others_stay() {
        let table = SessionTable::new(10, IDLE);
        for (sid, worker) in [("a", A), ("b", B), ("c", A)] {
            table.open(sid, worker);
        }
        assert_eq!(table.forget(A), 2);
        assert_eq!((table.owner("a"), table.owner("b"), table.len()), (None, Some(B), 1));
    }

    #[test]
    fn the_table_is_bounded() {
        let table = SessionTable::new(1, IDLE);
        table.open("a", A);
        assert_eq!(table.open("b", A), Opened::Full);
        assert_eq!(table.open("a", A), Opened::Known);
    }

    #[tokio::test(start_paused = true)]
    async fn another_table_goes_on_with_its_sessions() {
        let (before, after) = (SessionTable::new(10, IDLE), SessionTable::new(10, IDLE));
        tokio::time::advance(IDLE * 2).await;
        before.open("owned", A);
        before.open_fleeting("fleeting", B);
        tokio::time::advance(IDLE / 2).await;
        after.resume(before.carry());
        assert_eq!(after.look("owned"), before.look("owned"), "since the same time");
        assert_eq!((after.glance("owned"), after.glance("fleeting"), after.len()), (Some(A), Some(B), 2));
        tokio::time::advance(IDLE * 2 / 3).await;
        assert_eq!((after.owner("owned"), after.owner("fleeting")), (Some(A), None), "idle since before");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_ends_is_forgotten_when_nobody_asks() {
        let table = SessionTable::new(10_000, IDLE);
        assert_eq!(table.open_fleeting("kept", A), Opened::New);
        assert_eq!(table.open_fleeting("kept", B), Opened::Taken);
        assert_eq!(table.open_fleeting("left", A), Opened::New);
        assert_eq!(table.open_fleeting("ended", A), Opened::New);
        assert_eq!((table.close("ended", B), table.close("ended", A)), (Closed::NotIts, Closed::Fleeting));
        assert_eq!(table.owner("ended"), None);
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(table.owner("kept"), Some(A));
        tokio::time::advance(IDLE * 2 / 3).await;
        for number in 0..LEAST_TIDY {
            table.open_fleeting(&number.to_string(), B);
        }
        assert_eq!((table.owner("kept"), table.owner("left")), (Some(A), None));
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(table.glance("kept"), Some(A));
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(table.glance("kept"), None, "a glance is no use");
        assert_eq!(table.owner("kept"), None, "looked through or not");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_known_since_its_first_announcement() {
        let table = SessionTable::new(10, IDLE);
        tokio::time::advance(Duration::from_secs(5)).await;
        table.open("s", A);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(table.open("s", A), Opened::Known);
        assert_eq!(table.look("s"), Some((A, Duration::from_secs(40))));
        assert_eq!(table.look("t"), None);
        // An owner and its time have room where the owner alone would be padded.
        assert_eq!(size_of::<(Box<str>, Owner)>(), size_of::<(Box<str>, WorkerId)>());
        assert_eq!(size_of::<(Box<str>, (Owner, Instant))>(), size_of::<(Box<str>, (WorkerId, Instant))>());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_the_longest_idle_give_way_and_those_in_use_stay() {
        let table = SessionTable::new(2, IDLE * 10);
        table.open("owned", A);
        table.open_fleeting("old", A);
        assert_eq!(table.open_fleeting("new", A), Opened::Full, "everything is in use");
        tokio::time::advance(IDLE * 3).await;
        assert_eq!(table.open("new", A), Opened::New);
        assert_eq!((table.owner("owned"), table.owner("old")), (Some(A), None));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_since_when_and_bounds_may_change() {
        let table = SessionTable::new(1, IDLE);
        tokio::time::advance(Duration::from_secs(5)).await;
        table.open("s", A);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(table.look("s"), Some((A, Duration::from_secs(7))));
        assert_eq!(table.open("other", A), Opened::Full);
        table.rebound(Bounds { limit: 2, idle: IDLE });
        assert_eq!(table.open_fleeting("other", B), Opened::New);
        table.rebound(Bounds { limit: 1, idle: IDLE / 2 });
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(
            (table.owner("s"), table.owner("other")),
            (Some(A), None),
            "what was there stays its time"
        );
        assert_eq!(std::mem::size_of::<Owner>(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_or_gives_up() {
        let table = SessionTable::new(10, IDLE);
        let (told, ()) = tokio::join!(table.announced("s", Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            table.open("s", A);
        });
        assert_eq!(told, Some(A));
        assert_eq!(table.announced("other", Duration::from_secs(1)).await, None);
        assert!(table.lock().waiting.is_empty());
    }
}
