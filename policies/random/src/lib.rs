//! Random: every eligible worker with the same chance.
//!
//! A worker is eligible unless it is draining. Nothing is remembered between calls.

use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export, host};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct Random {
    eligible: Vec<WorkerId>,
}

impl Policy for Random {
    fn set_workers(&mut self, workers: &[Worker]) {
        self.eligible.clear();
        self.eligible.extend(workers.iter().filter(|worker| !worker.draining).map(|worker| worker.id));
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        let place = host::random_below(self.eligible.len());
        self.eligible.get(place).map_or(Decision::Defer, |&id| Decision::Worker(id))
    }
}

export!(Random);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_a_fair_share() {
        let mut policy = Random::default();
        let workers: Vec<_> = (0..5).map(|id| Worker { id, ..Worker::default() }).collect();
        policy.set_workers(&workers);
        let script = sidetrack_policy::native::Script::default();
        let (shares, _) = sidetrack_policy::native::scripted(script, || {
            let mut shares = [0; 5];
            for _ in 0..50_000 {
                match policy.balance(&[0; 5]) {
                    Decision::Worker(id) => shares[id as usize] += 1,
                    other => panic!("expected a worker, got {other:?}"),
                }
            }
            shares
        });
        // Five standard deviations of a binomial with n = 50,000 and p = 1/5 are 447.
        assert!(shares.iter().all(|share| (9_553..=10_447).contains(share)), "{shares:?}");
    }
}
