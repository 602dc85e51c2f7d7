//! Noticing that connections come back too often: something in front mixes sessions. Pure: no clock.

use std::time::{Duration, Instant};

/// How long is counted at a time.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Fewer in a period are what browsers do that share connections among tabs.
const MANY: u64 = 1000;

/// The hand-offs to one worker and its hand-backs, as they were at the start of the period.
#[derive(Debug)]
pub struct Mixing {
    since: Instant,
    before: Traffic,
    told: bool,
}

/// Both since the worker has started, or within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub handed_off: u64,
    pub handed_back: u64,
}

impl Mixing {
    /// Nothing has come back yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { since: now, before: Traffic::default(), told: false }
    }

    /// At the end of a period in which most connections came back: its traffic. Once is enough.
    pub fn noticed(&mut self, now: Instant, traffic: Traffic) -> Option<Traffic> {
        if self.told || now.saturating_duration_since(self.since) < PERIOD {
            return None;
        }
        let within = Traffic {
            handed_off: traffic.handed_off - self.before.handed_off,
            handed_back: traffic.handed_back - self.before.handed_back,
        };
        (self.since, self.before) = (now, traffic);
        self.told = within.handed_back >= MANY && within.handed_back * 2 > within.handed_off;
        self.told.then_some(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_most_must_come_back_and_it_is_told_once() {
        let start = Instant::now();
        let at = |periods: u32| start + PERIOD * periods;
        let traffic = |handed_off, handed_back| Traffic { handed_off, handed_back };
        let mut mixing = Mixing::new(start);
        assert_eq!(mixing.noticed(start, traffic(5000, 5000)), None, "the period is not over");
        assert_eq!(mixing.noticed(at(1), traffic(900, 900)), None, "not many");
        assert_eq!(mixing.noticed(at(2), traffic(5900, 2900)), None, "not most");
        assert_eq!(mixing.noticed(at(3), traffic(7900, 4900)), Some(traffic(2000, 2000)));
        assert_eq!(mixing.noticed(at(4), traffic(17_900, 14_900)), None, "told");
    }
}
