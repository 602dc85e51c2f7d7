//! Workers as the policy and the router see them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names one worker process for as long as sidetrack runs. Never reused: a restarted worker in
/// the same slot is a new worker with a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a policy is told about a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    pub id: WorkerId,
    /// The slot's name: `w0`, `w1`, …
    pub name: String,
    /// Relative capacity; 1 unless configured.
    pub weight: u32,
    /// True when the worker shall get no new sessions.
    pub draining: bool,
    /// Free-form facts from the configuration.
    pub labels: Vec<(String, String)>,
}

/// The workers that may be chosen now.
///
/// `version` changes whenever `workers` does, so whoever mirrors the list (a policy instance) knows
/// with one comparison whether it is current. Versions are never reused.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    pub version: u64,
    pub workers: Arc<[WorkerInfo]>,
}

impl Roster {
    /// The place of a worker in the list.
    #[must_use]
    pub fn position(&self, id: WorkerId) -> Option<usize> {
        self.workers.iter().position(|worker| worker.id == id)
    }
}
