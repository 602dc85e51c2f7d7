//! Waiting for what must happen, without guessing how long it takes.

use std::time::{Duration, Instant};

/// Far beyond what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until there is something to see, and returns it.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// The same with another patience.
#[track_caller]
pub fn eventually_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
