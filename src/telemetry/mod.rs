//! What happens, told once: every event both logs and counts, so that the log and the figures
//! cannot disagree. Call sites emit one typed event and stay readable.

mod counters;
mod events;
pub mod trace;

use std::sync::Arc;

pub use counters::{ByStatus, Counter, Counters};
pub use events::Event;

use crate::observe::Observers;

/// The figures of one run, and whoever watches it.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub counters: Counters,
    /// What `refused` counts, by status.
    pub refusals: ByStatus,
    pub observers: Arc<Observers>,
}
