//! The worker processes: started, watched, talked to, replaced.
//!
//! [`Fleet`] is all of them; it answers the questions of routing (who may be chosen, how loaded
//! are they) with a snapshot and takes connections for delivery. A [`supervisor`] keeps one slot
//! filled. What a worker says arrives through its channel and is understood in `dialogue`.

mod adapter;
mod attend;
mod backoff;
mod begun;
mod carry;
mod census;
mod channel;
mod dialogue;
mod fleet;
mod join;
mod mixing;
pub mod node;
mod probe;
mod process;
mod roll;
mod scale;
pub mod supervisor;
mod turnover;
#[expect(clippy::module_inception, reason = "the folder is about workers, the file is the worker")]
mod worker;

pub use backoff::Restarts;
pub use census::WorkerReport;
pub use fleet::{Fleet, HandedBack, Reports, Returned, Undelivered, Why};
pub use join::{JoinSettings, JoinSocket, Terms};
pub use process::{Place, Program};
pub use roll::{Rolling, Turn};
pub use scale::TakenSlot;
pub use supervisor::Fatal;
pub use turnover::{SlotError, Vacancy};
pub use worker::Standing;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a worker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Started here, in a slot of the configuration.
    Started,
    /// Came by itself. What is wrong with it is no reason to end the run.
    Joined,
}

/// What a policy may know of a slot's worker besides its load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Relative capacity.
    pub weight: u32,
    /// Free-form, in the order of the configuration.
    pub labels: Vec<(String, String)>,
}

impl Default for Facts {
    fn default() -> Self {
        Self { weight: 1, labels: Vec::new() }
    }
}

/// How workers are treated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By slot; a slot that is not here has the default.
    pub facts: BTreeMap<String, Facts>,
    /// How many unacknowledged connections a worker may have.
    pub window: usize,
    /// How many connections may wait for a place in the window.
    pub queue: usize,
    /// The longest time in that queue.
    pub queue_wait: Duration,
    /// A worker that acknowledges nothing for this long gets no new connections until it does.
    pub unresponsive_after: Duration,
    /// A worker that acknowledges nothing for this long is replaced.
    pub replace_after: Duration,
    /// The longest time from start to ready.
    pub start_timeout: Duration,
    pub restarts: Restarts,
}
