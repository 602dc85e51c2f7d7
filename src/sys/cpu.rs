//! CPU time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What the calling thread has had of a CPU. It stands still while others have it.
#[must_use]
pub fn thread_time() -> Duration {
    // Linux has this clock for every thread; without it nothing is known to have been used.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
