//! What happened so far, for metrics and the admin interface.

use serde::{Deserialize, Serialize};

use super::FaultKind;
use crate::observe::Latencies;

/// A snapshot of a chain's counters, all since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// `balance` and `find` calls made into the component.
    pub calls: u64,
    /// Decisions left to the native link, for whatever reason.
    pub native_calls: u64,
    /// Calls that ended their instance.
    pub faults: FaultCounts,
    /// Answers that named an unknown worker or an impossible status.
    pub bad_answers: u64,
    /// Instances made anew after a fault.
    pub rebuilds: u64,
    /// New instances that could not take the saved state and began without.
    pub states_lost: u64,
    /// Versions taken out of service.
    pub quarantines: u64,
    /// Versions put in another one's place.
    pub swaps: u64,
    /// Versions that were to be and were not taken.
    pub swaps_refused: u64,
    /// Versions that returned because the one after them was not fit.
    pub rollbacks: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            native_calls: self.native_calls + other.native_calls,
            faults: FaultCounts {
                fuel: self.faults.fuel + other.faults.fuel,
                deadline: self.faults.deadline + other.faults.deadline,
                memory: self.faults.memory + other.faults.memory,
                oversized: self.faults.oversized + other.faults.oversized,
                trap: self.faults.trap + other.faults.trap,
            },
            bad_answers: self.bad_answers + other.bad_answers,
            rebuilds: self.rebuilds + other.rebuilds,
            states_lost: self.states_lost + other.states_lost,
            quarantines: self.quarantines + other.quarantines,
            swaps: self.swaps + other.swaps,
            swaps_refused: self.swaps_refused + other.swaps_refused,
            rollbacks: self.rollbacks + other.rollbacks,
        }
    }
}

impl Counts {
    /// What has been added since `before`.
    #[must_use]
    pub(super) const fn since(self, before: &Self) -> VersionCounts {
        VersionCounts {
            calls: self.calls - before.calls,
            bad_answers: self.bad_answers - before.bad_answers,
            faults: FaultCounts {
                fuel: self.faults.fuel - before.faults.fuel,
                deadline: self.faults.deadline - before.faults.deadline,
                memory: self.faults.memory - before.faults.memory,
                oversized: self.faults.oversized - before.faults.oversized,
                trap: self.faults.trap - before.faults.trap,
            },
        }
    }
}

impl Counts {
    /// These, without what has been `added` last.
    #[must_use]
    pub(super) const fn before(&self, added: &VersionCounts) -> Self {
        Self {
            calls: self.calls.saturating_sub(added.calls),
            bad_answers: self.bad_answers.saturating_sub(added.bad_answers),
            faults: FaultCounts {
                fuel: self.faults.fuel.saturating_sub(added.faults.fuel),
                deadline: self.faults.deadline.saturating_sub(added.faults.deadline),
                memory: self.faults.memory.saturating_sub(added.faults.memory),
                oversized: self.faults.oversized.saturating_sub(added.faults.oversized),
                trap: self.faults.trap.saturating_sub(added.faults.trap),
            },
            ..*self
        }
    }
}

/// What one version has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionCounts {
    pub calls: u64,
    pub bad_answers: u64,
    pub faults: FaultCounts,
}

/// One version's figures, for as long as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionFigures {
    pub generation: u64,
    pub counts: VersionCounts,
    /// How long its calls took, as far as they were timed.
    pub latencies: Latencies,
}

/// Faults by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultCounts {
    pub fuel: u64,
    pub deadline: u64,
    pub memory: u64,
    pub oversized: u64,
    pub trap: u64,
}

impl FaultCounts {
    pub(super) const fn add(&mut self, kind: &FaultKind) {
        *match kind {
            FaultKind::Fuel => &mut self.fuel,
            FaultKind::Deadline => &mut self.deadline,
            FaultKind::Memory => &mut self.memory,
            FaultKind::Oversized => &mut self.oversized,
            FaultKind::Trap(_) => &mut self.trap,
        } += 1;
    }

    #[must_use]
    pub const fn total(&self) -> u64 {
        self.fuel + self.deadline + self.memory + self.oversized + self.trap
    }
}
