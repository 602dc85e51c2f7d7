//! Power of two choices: of two random workers, the one with the lower load.
//!
//! Nearly as even as looking at all loads, and calmer where loads are old news: a worker that was
//! idle a moment ago is not chosen by everybody at once. Who may be chosen says
//! [`policy_common::Eligible`]. Loads count relative to weights, the new connection
//! included: weight 2 with a load of 3 is as good as weight 1 with a load of 1. Equals are decided by
//! chance. Nothing is remembered between calls.

use policy_common::Eligible;
use sidetrack_policy::{Decision, Policy, Worker, export, host};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct PowerOfTwo {
    eligible: Vec<Eligible>,
}

impl Policy for PowerOfTwo {
    fn set_workers(&mut self, workers: &[Worker]) {
        self.eligible.clear();
        self.eligible.extend(Eligible::of(workers));
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        let (first, second) = match self.eligible.as_slice() {
            [] => return Decision::Defer,
            [only] => return Decision::Worker(only.id),
            several => pair(several, host::random_u64()),
        };
        let load = |worker: &Eligible| 1 + u64::from(loads.get(worker.place).copied().unwrap_or(u32::MAX));
        // Compares load / weight. A load is at most 2^32, a weight less: the product fits.
        let second_is_lower = load(second) * u64::from(first.weight) < load(first) * u64::from(second.weight);
        Decision::Worker(if second_is_lower { second.id } else { first.id })
    }
}

/// Two distinct ones, every ordered pair with the same chance. Of one random number the high half
/// chooses the first and the low half, among those left, the second: that is one call to the host
/// instead of two.
fn pair(several: &[Eligible], random: u64) -> (&Eligible, &Eligible) {
    let first = below(random >> 32, several.len());
    let second = below(random & u64::from(u32::MAX), several.len() - 1);
    (&several[first], &several[if second < first { second } else { second + 1 }])
}

/// Of 32 random bits a number below `bound`, as [`host::random_below`] does it with 64.
#[allow(clippy::cast_possible_truncation, reason = "the result is below `bound`, which fits")]
fn below(random: u64, bound: usize) -> usize {
    ((random * bound as u64) >> 32) as usize
}

export!(PowerOfTwo);

#[cfg(test)]
mod tests {
    use super::*;
    use sidetrack_policy::native::{Script, scripted};

    const CALLS: usize = 50_000;

    fn shares(weights: &[u32], loads: &[u32]) -> Vec<usize> {
        let workers: Vec<_> =
            (0..).zip(weights).map(|(id, &weight)| Worker { id, weight, ..Worker::default() }).collect();
        let mut policy = PowerOfTwo::default();
        policy.set_workers(&workers);
        let mut shares = vec![0; workers.len()];
        scripted(Script::default(), || {
            for _ in 0..CALLS {
                match policy.balance(loads) {
                    Decision::Worker(id) => shares[id as usize] += 1,
                    other => panic!("expected a worker, got {other:?}"),
                }
            }
        });
        shares
    }

    #[test]
    fn equals_get_fair_shares() {
        // Five standard deviations of a binomial with n = 50,000 and p = 1/5 are 447.
        let shares = shares(&[1; 5], &[3; 5]);
        assert!(shares.iter().all(|share| (9_553..=10_447).contains(share)), "{shares:?}");
    }

    #[test]
    fn the_busiest_of_all_gets_nothing_and_the_idlest_two_shares() {
        // Of five workers the idlest is in 2 of 5 pairs; five standard deviations are 548.
        let shares = shares(&[1; 5], &[4, 3, 2, 1, 0]);
        assert_eq!(shares[0], 0);
        assert!((19_452..=20_548).contains(&shares[4]), "{shares:?}");
    }

    #[test]
    fn extreme_loads_and_weights_do_not_overflow() {
        assert_eq!(shares(&[u32::MAX, 1], &[u32::MAX, u32::MAX]), [CALLS, 0]);
    }
}
