//! Session id → worker. Owned by the host: no policy, good or bad, can lose it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::types::WorkerId;

/// Which worker owns which session, and who is waiting to know.
#[derive(Debug)]
pub struct SessionTable {
    inner: Mutex<Inner>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    owners: HashMap<Box<str>, WorkerId>,
    /// Connections held until somebody announces their session.
    waiting: HashMap<Box<str>, Vec<oneshot::Sender<WorkerId>>>,
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

impl SessionTable {
    /// An empty table for at most `limit` sessions.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { inner: Mutex::default(), limit }
    }

    /// The owner of a session.
    #[must_use]
    pub fn owner(&self, sid: &str) -> Option<WorkerId> {
        self.lock().owners.get(sid).copied()
    }

    /// A worker announces a session. Whoever waits for it is told.
    pub fn open(&self, sid: &str, worker: WorkerId) -> Opened {
        let mut inner = self.lock();
        let full = inner.owners.len() >= self.limit;
        match inner.owners.entry(sid.into()) {
            Entry::Occupied(entry) if *entry.get() == worker => return Opened::Known,
            Entry::Occupied(_) => return Opened::Taken,
            Entry::Vacant(_) if full => return Opened::Full,
            Entry::Vacant(entry) => entry.insert(worker),
        };
        for waiter in inner.waiting.remove(sid).unwrap_or_default() {
            // A waiter that has gone in the meantime needs no answer.
            let _ = waiter.send(worker);
        }
        Opened::New
    }

    /// A worker says a session has ended. False when it was not its own.
    pub fn close(&self, sid: &str, worker: WorkerId) -> bool {
        let mut inner = self.lock();
        let owned = inner.owners.get(sid) == Some(&worker);
        if owned {
            inner.owners.remove(sid);
        }
        owned
    }

    /// Forgets every session of a worker that is no more and returns how many there were.
    pub fn forget(&self, worker: WorkerId) -> usize {
        let mut inner = self.lock();
        let before = inner.owners.len();
        inner.owners.retain(|_, owner| *owner != worker);
        before - inner.owners.len()
    }

    /// How many sessions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().owners.len()
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
            if let Some(&owner) = inner.owners.get(sid) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    #[test]
    fn the_first_claim_stands_and_only_the_owner_ends_it() {
        let table = SessionTable::new(10);
        assert_eq!(table.open("s", A), Opened::New);
        assert_eq!(table.open("s", A), Opened::Known);
        assert_eq!(table.open("s", B), Opened::Taken);
        assert_eq!(table.owner("s"), Some(A));
        assert!(!table.close("s", B));
        assert!(table.close("s", A));
        assert_eq!(table.owner("s"), None);
    }

    #[test]
    fn a_dead_workers_sessions_go_and_the_others_stay() {
        let table = SessionTable::new(10);
        for (sid, worker) in [("a", A), ("b", B), ("c", A)] {
            table.open(sid, worker);
        }
        assert_eq!(table.forget(A), 2);
        assert_eq!((table.owner("a"), table.owner("b"), table.len()), (None, Some(B), 1));
    }

    #[test]
    fn the_table_is_bounded() {
        let table = SessionTable::new(1);
        table.open("a", A);
        assert_eq!(table.open("b", A), Opened::Full);
        assert_eq!(table.open("a", A), Opened::Known);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_or_gives_up() {
        let table = SessionTable::new(10);
        let (told, ()) = tokio::join!(table.announced("s", Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            table.open("s", A);
        });
        assert_eq!(told, Some(A));
        assert_eq!(table.announced("other", Duration::from_secs(1)).await, None);
        assert!(table.lock().waiting.is_empty());
    }
}
