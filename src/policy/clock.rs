//! The clock behind a policy's `now`: the machine's, or one that somebody sets by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Where the machine's clock counts from: once per process, so that it never goes back, whatever is
/// rebuilt.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What `now` says to components. Native twins run on the caller's thread and read the time of its
/// [`Script`](sidetrack_policy::native::Script), if it has one.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// Since the first use in this process.
    #[default]
    Machine,
    /// Nanoseconds as they were last [set](Self::set), the same for all clones. For tests and replays,
    /// which are to come out alike each time.
    Scripted(Arc<AtomicU64>),
}

impl Clock {
    /// One that stands at zero until it is set.
    #[must_use]
    pub fn scripted() -> Self {
        Self::Scripted(Arc::default())
    }

    /// Nanoseconds; only differences mean something.
    #[must_use]
    pub fn now(&self) -> u64 {
        match self {
            Self::Machine => u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Scripted(time) => time.load(Ordering::Relaxed),
        }
    }

    /// Moves a scripted clock, which never goes back; the machine's goes by itself.
    pub fn set(&self, nanoseconds: u64) {
        if let Self::Scripted(time) = self {
            time.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripted_clock_stands_until_it_is_set_and_never_goes_back() {
        let clock = Clock::scripted();
        let same = clock.clone();
        assert_eq!(clock.now(), 0);
        clock.set(7);
        assert_eq!(same.now(), 7);
        same.set(3);
        assert_eq!(clock.now(), 7);
    }

    #[test]
    fn the_machine_s_clock_goes_by_itself() {
        let clock = Clock::default();
        let before = clock.now();
        clock.set(u64::MAX);
        assert!((before..u64::MAX).contains(&clock.now()));
    }
}
