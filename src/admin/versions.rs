//! A link of the chain, its versions and its counters, as they are told.

use schemars::JsonSchema;
use serde::Serialize;

use super::policy::time;
use crate::policy;

/// A link and the version in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Link {
    name: String,
    policy: String,
    /// JSON text.
    options: String,
    /// Counts its versions.
    generation: u64,
    /// Of the policy's bytes; null for a native one.
    digest: Option<String>,
    interfaces: Vec<&'static str>,
    in_service: bool,
    /// When its version took over.
    since: String,
    /// What is left of the version's trial; null when there is none.
    trial_left_ms: Option<u64>,
    counts: Counts,
    store: Store,
    /// Versions before, the latest first.
    history: Vec<Past>,
}

/// What a link's store holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Store {
    keys: usize,
    bytes: usize,
}

/// A version before.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Past {
    generation: u64,
    policy: String,
    digest: String,
    since: String,
    until: String,
    ended: Ended,
    /// Null when it was replaced.
    reason: Option<String>,
}

/// How a version ended.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ended {
    Replaced,
    #[serde(rename = "rolled back")]
    RolledBack,
    Quarantined,
}

/// A link's counters, since it was loaded.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Counts {
    /// Calls made into the component.
    calls: u64,
    /// Decisions left to the native link.
    native_calls: u64,
    faults: Faults,
    /// Answers that named an unknown worker or an impossible status.
    bad_answers: u64,
    /// Instances made anew after a fault.
    rebuilds: u64,
    /// New instances that could not take the saved state.
    states_lost: u64,
    /// Versions taken out of service.
    quarantines: u64,
    /// Versions put in another one's place.
    swaps: u64,
    /// Versions that returned because the one after them was not fit.
    rollbacks: u64,
}

/// Calls that ended their instance, by kind.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Faults {
    fuel: u64,
    deadline: u64,
    memory: u64,
    oversized: u64,
    trap: u64,
}

impl From<policy::LinkStatus> for Link {
    fn from(status: policy::LinkStatus) -> Self {
        Self {
            name: status.name,
            policy: status.policy,
            options: status.options,
            generation: status.generation,
            digest: status.digest.map(|digest| format!("{digest:#}")),
            interfaces: status.interfaces,
            in_service: status.in_service,
            since: time(status.since),
            trial_left_ms: status.trial.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            counts: (&status.counts).into(),
            store: Store { keys: status.stored.0, bytes: status.stored.1 },
            history: status.history.iter().map(Past::from).collect(),
        }
    }
}

impl From<&policy::Past> for Past {
    fn from(past: &policy::Past) -> Self {
        Self {
            generation: past.generation,
            policy: past.policy.clone(),
            digest: format!("{:#}", past.digest),
            since: time(past.since),
            until: time(past.until),
            ended: match past.ending {
                policy::Ending::Replaced => Ended::Replaced,
                policy::Ending::RolledBack(_) => Ended::RolledBack,
                policy::Ending::Quarantined(_) => Ended::Quarantined,
            },
            reason: past.ending.reason().map(str::to_owned),
        }
    }
}

impl From<&policy::Counts> for Counts {
    fn from(counts: &policy::Counts) -> Self {
        let faults = &counts.faults;
        Self {
            calls: counts.calls,
            native_calls: counts.native_calls,
            faults: Faults {
                fuel: faults.fuel,
                deadline: faults.deadline,
                memory: faults.memory,
                oversized: faults.oversized,
                trap: faults.trap,
            },
            bad_answers: counts.bad_answers,
            rebuilds: counts.rebuilds,
            states_lost: counts.states_lost,
            quarantines: counts.quarantines,
            swaps: counts.swaps,
            rollbacks: counts.rollbacks,
        }
    }
}
