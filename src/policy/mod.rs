//! The policy host: which worker shall have a connection, asked of a WebAssembly component.
//!
//! A [`Chain`] is asked about each connection and always answers. Its links are components (built-ins
//! or files), asked in order until one does not defer; its last is a native twin of a built-in policy
//! that takes over when all of them defer, fail or talk nonsense. A component is bounded in
//! instructions, time, memory and output, and reaches nothing but the request and a few harmless
//! host functions; what it does wrong costs one answer, and after a few faults its version's service.
//! A version is replaced while connections flow, with its state, and returns when the new one fails.
//!
//! ```text
//! engine, cache ── version (compiled, checked) ── instance (one store, one call at a time)
//!                          └───── slot (the live one, those before, its trial) ── chain ── pipeline
//! ```
//!
//! This module knows no socket and no session table; the pipeline brings requests and loads, and
//! the session table is asked through [`SessionOwner`]. The contract is the WIT package in `wit/`;
//! code generated from it stays behind `bindings`.

mod bindings;
mod cache;
mod candidate;
mod carry;
mod chain;
mod clock;
mod contract;
mod counts;
mod engine;
mod fault;
mod host;
mod instance;
mod links;
mod live;
mod load;
mod native;
mod script;
mod settings;
mod slot;
mod source;
mod state;
mod store;
mod swap;
mod trial;
mod vectors;
mod version;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use candidate::{Candidate, Run};
pub use chain::{Answer, Chain, Description, LinkName, Step};
pub use clock::Clock;
pub use contract::ContractError;
pub use counts::{Counts, FaultCounts, VersionCounts, VersionFigures};
pub use fault::{Fault, FaultKind};
pub use instance::StartError;
pub use links::Prepared;
pub use load::{LoadError, LoadProblem};
pub use settings::{Limits, Role, Settings};
pub use source::{BuiltIn, LinkError, PolicyLink, PolicySource, UnknownPolicy};
pub use state::{LinkState, States};
pub use swap::{Carried, Ending, LinkStatus, Past, Replacement, SwapError, SwapProblem, Swapped};
pub use vectors::{VectorError, Vectors};
pub use version::Digest;
pub use watch::Watch;

pub use crate::types::Request;
use crate::types::WorkerId;

/// The session table, as far as a policy may ask it. Called during a decision: it must not block.
pub trait SessionOwner: Send + Sync {
    /// The worker that owns a session.
    fn owner(&self, sid: &str) -> Option<WorkerId>;
}

impl<F: Fn(&str) -> Option<WorkerId> + Send + Sync> SessionOwner for F {
    fn owner(&self, sid: &str) -> Option<WorkerId> {
        self(sid)
    }
}

/// What a policy that exports `events` is told, after the fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    SessionOpened { sid: &'a str, worker: WorkerId },
    SessionClosed { sid: &'a str, worker: WorkerId },
    WorkerFailed { worker: WorkerId },
}

/// Cuts text from a policy to `limit` characters.
fn shorten(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// Folds text of several lines into one, for messages that promise to be.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Locks regardless of a panic elsewhere: what these mutexes guard is replaced or rebuilt whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
