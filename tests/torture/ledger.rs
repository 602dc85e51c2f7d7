//! What happened, and what may be excused.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Shared by everybody.
#[derive(Debug)]
pub struct Ledger {
    requests: u64,
    begun: AtomicU64,
    done: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The workers that were killed, and when.
    dead: HashMap<u32, Instant>,
    served: BTreeMap<&'static str, u64>,
    excused: BTreeMap<&'static str, u64>,
    failures: Vec<String>,
}

impl Ledger {
    pub fn new(requests: u64) -> Self {
        Self { requests, begun: AtomicU64::new(0), done: AtomicU64::new(0), inner: Mutex::default() }
    }

    /// True while there is something left to ask for.
    pub fn next(&self) -> bool {
        self.begun.fetch_add(1, Ordering::Relaxed) < self.requests
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn finished(&self) -> bool {
        self.begun.load(Ordering::Relaxed) >= self.requests
    }

    /// A worker is about to be killed.
    pub fn dies(&self, pid: u32) {
        self.lock().dead.insert(pid, Instant::now());
    }

    pub fn is_dead(&self, pid: u32) -> bool {
        self.lock().dead.contains_key(&pid)
    }

    /// True when some worker was killed since then.
    pub fn killed_since(&self, moment: Instant) -> bool {
        self.lock().dead.values().any(|at| *at >= moment)
    }

    pub fn served(&self, kind: &'static str) {
        self.done.fetch_add(1, Ordering::Relaxed);
        *self.lock().served.entry(kind).or_default() += 1;
    }

    /// It failed because its worker was killed.
    pub fn excused(&self, kind: &'static str) {
        self.done.fetch_add(1, Ordering::Relaxed);
        *self.lock().excused.entry(kind).or_default() += 1;
    }

    pub fn failed(&self, failure: String) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.lock().failures.push(failure);
    }

    pub fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        write!(
            f,
            "served {:?}\nended by a kill {:?}\nworkers killed {}, failures {}",
            inner.served,
            inner.excused,
            inner.dead.len(),
            inner.failures.len()
        )
    }
}
