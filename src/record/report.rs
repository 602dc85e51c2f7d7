//! What came of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use super::format::Beginning;
use crate::observe::Latencies;
use crate::policy::Counts;

/// What came of a replay, in figures.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub beginning: Beginning,
    pub chain: Vec<String>,
    pub against: Option<Vec<String>>,
    /// From the first line to the last.
    pub time: Duration,
    /// Connections whose session was new or absent.
    pub new: Side,
    /// Connections whose session had an owner.
    pub known: Side,
    /// Sessions that were seen to begin.
    pub sessions: Side,
    /// New connections by where they went and where they would have gone.
    pub table: BTreeMap<(String, String), u64>,
    /// New connections by worker.
    pub spread: BTreeMap<String, Spread>,
    /// The first connections that would have gone elsewhere.
    pub changes: Vec<Change>,
    /// Observations the recorder lost.
    pub lost: u64,
    /// The last line was only the beginning of one.
    pub cut: bool,
    /// Links that went on with the state they had when the recording began.
    pub adopted: Vec<String>,
    pub counts: Counts,
    /// What the policies took, and what they took when it was recorded.
    pub latency: (Latencies, Latencies),
    /// All time spent in policies, for the mean.
    pub spent: Duration,
}

/// How many there were, and how many of them would have been elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    pub all: u64,
    pub changed: u64,
}

/// New connections of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    pub before: u64,
    pub after: u64,
}

/// A connection that would have gone elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Microseconds since the beginning.
    pub t: u64,
    pub target: String,
    pub session: Option<String>,
    pub from: String,
    pub to: String,
}

impl Side {
    pub(super) fn note(&mut self, changed: bool) {
        self.all += 1;
        self.changed += u64::from(changed);
    }
}
