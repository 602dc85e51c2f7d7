//! How long calls take: quantiles of any number of them, in a few kilobytes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets for each doubling: a quantile is right to a sixteenth.
const FINE: u64 = 16;
const FINE_BITS: u32 = FINE.trailing_zeros();

/// Times by size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// As long as the largest time so far needs.
    buckets: Vec<u64>,
    count: u64,
    sum: Duration,
}

impl Latencies {
    pub fn note(&mut self, time: Duration) {
        let bucket = bucket(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// All of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How many are shorter than 2^`doublings` nanoseconds, and not shorter than the power before: exact,
    /// since buckets end there.
    #[must_use]
    pub fn between(&self, from: u32, to: u32) -> u64 {
        let end = |doublings: u32| 1_u64.checked_shl(doublings).map_or(usize::MAX, bucket);
        let (from, to) = (end(from).min(self.buckets.len()), end(to).min(self.buckets.len()));
        self.buckets.get(from..to).unwrap_or_default().iter().sum()
    }

    /// The time that so many parts of a hundred stay below; none when there are none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        let found = self.buckets.iter().position(|&count| {
            below += count;
            below >= wanted
        });
        found.map(|bucket| Duration::from_nanos(middle(bucket as u64)))
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let bucket = match nanoseconds.checked_ilog2() {
        Some(doublings @ FINE_BITS..) => {
            let coarse = u64::from(doublings - FINE_BITS);
            (coarse + 1) * FINE + ((nanoseconds >> coarse) - FINE)
        }
        _ => nanoseconds,
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn middle(bucket: u64) -> u64 {
    if bucket < FINE {
        return bucket;
    }
    let coarse = bucket / FINE - 1;
    ((bucket % FINE + FINE) << coarse) + ((1 << coarse) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut last = 0;
        for nanoseconds in 0..100_000 {
            let now = bucket(nanoseconds);
            assert!(now == last || now == last + 1, "{nanoseconds}");
            last = now;
        }
        for nanoseconds in [0, 15, 16, 1000, 123_456_789, u64::MAX / 3] {
            let middle = middle(bucket(nanoseconds) as u64);
            assert!(middle.abs_diff(nanoseconds) <= nanoseconds / 16, "{nanoseconds}: {middle}");
        }
    }

    #[test]
    fn powers_of_two_are_counted_exactly() {
        let mut times = Latencies::default();
        for nanoseconds in [0, 255, 256, 1023, 1024, 5000, 1 << 40] {
            times.note(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(
            [(0, 8), (8, 10), (10, 12), (12, 28)].map(|(from, to)| times.between(from, to)),
            [1, 2, 1, 1]
        );
        assert_eq!((times.between(28, 64), times.count()), (1, 7));
        assert_eq!(times.sum(), Duration::from_nanos(255 + 256 + 1023 + 1024 + 5000 + (1 << 40)));
    }

    #[test]
    fn percentiles_are_right_to_a_sixteenth() {
        let mut times = Latencies::default();
        assert_eq!(times.percentile(50), None);
        for micros in 1..=1000 {
            times.note(Duration::from_micros(micros));
        }
        for (percent, expected) in [(50, 500_000), (99, 990_000), (100, 1_000_000)] {
            let found = times.percentile(percent).unwrap().as_nanos();
            assert!(found.abs_diff(expected) <= expected / 16, "{percent}: {found}");
        }
    }
}
