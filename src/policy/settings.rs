//! What the host may be told about running policies.

use std::time::Duration;

use super::{BuiltIn, Clock};

/// How a chain runs its policy.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The native last link. By default the twin of the last policy when that is a built-in which
    /// always answers, and least-connection behind any other.
    pub fallback: Option<BuiltIn>,
    pub limits: Limits,
    /// How long a version that was put in another one's place is on trial. Default 30 s; zero for no
    /// trial.
    pub trial: Duration,
    /// Keep compiled policies between runs. Default yes.
    pub cache: bool,
    /// What `now` says. Default the machine's clock.
    pub clock: Clock,
    /// Default deciding.
    pub role: Role,
}

/// What a chain is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Its answers count, and its faults are logged as they happen.
    #[default]
    Deciding,
    /// Its answers are only compared. Faults are counted; at debug level they are logged.
    Shadow,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fallback: None,
            limits: Limits::default(),
            trial: Duration::from_secs(30),
            cache: true,
            clock: Clock::Machine,
            role: Role::Deciding,
        }
    }
}

/// How far a policy may go, and what happens to one that goes further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Fuel for one decision; an instruction costs about one. Default 8,000,000, about 1 ms of CPU:
    /// thousands of times what a built-in needs, and 30 times a script in an embedded engine.
    pub decision_fuel: u64,
    /// Fuel for starting an instance with `configure` and `restore` off the hot path. Default
    /// 1,000,000,000, about 125 ms: enough for a script engine to start.
    pub setup_fuel: u64,
    /// After this time on the clock, in steps of 50 ms, a decision is looked at, and ends once it has
    /// used half as much CPU since; setting up gets 20 times that. Only a backstop for what fuel cannot
    /// see, so it is coarse on purpose, and a policy that waits for a busy machine is never blamed.
    /// Default 250 ms.
    pub backstop: Duration,
    /// Memory of an instance in bytes; above 64 MiB growing becomes dear. Default 16 MiB.
    pub memory: usize,
    /// Calls between two `save`s, the most that a trap can make a policy forget. Default 256, which
    /// spreads the cost of a save to about 1 ns a call.
    pub save_every: u32,
    /// This many faults within `fault_window` take a policy out of service. Default 5 in 10 s.
    pub faults: usize,
    pub fault_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decision_fuel: 8_000_000,
            setup_fuel: 1_000_000_000,
            backstop: Duration::from_millis(250),
            memory: 16 << 20,
            save_every: 256,
            faults: 5,
            fault_window: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Fuel for taking over a roster: a decision's, and some more for every worker.
    pub(super) fn roster_fuel(&self, workers: usize) -> u64 {
        const PER_WORKER: u64 = 20_000;
        self.decision_fuel.saturating_add(PER_WORKER.saturating_mul(workers as u64))
    }
}
