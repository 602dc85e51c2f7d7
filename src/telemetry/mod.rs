//! What happens, told once: every event both logs and counts, so that the log and the figures
//! cannot disagree. Call sites emit one typed event and stay readable.

mod counters;
mod events;
pub mod spans;
pub mod trace;

pub use counters::{Cause, Counter, Counters, Refusals};
pub use events::Event;

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub counters: Counters,
    /// What `refused` counts, by cause and status.
    pub refusals: Refusals,
}
