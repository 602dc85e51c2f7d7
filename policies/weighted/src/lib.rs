//! Weighted: smooth weighted round-robin, as nginx does it.
//!
//! In every round of as many decisions as all weights together, each worker gets exactly its weight,
//! spread over the round: weights 5, 1, 1 give `a a b a c a a`. Draining workers are passed over,
//! and weight 0 gets nothing unless all are 0; see [`policy_common::Eligible`].
//!
//! Each worker has a counter. A decision adds to each its weight and takes the one with the highest
//! counter, which then pays the sum of all weights. Counters add up to 0. When the workers change,
//! those that stay keep their counters among one another, and a newcomer begins in their middle: it
//! neither catches up on what it missed nor waits. Counters survive a trap and a replacement.

use policy_common::Eligible;
use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export};

/// Begins every saved state and says how to read the rest: the id and the counter of each worker,
/// little-endian.
const STATE_TAG: &[u8] = b"w1";
const ENTRY: usize = size_of::<WorkerId>() + size_of::<i64>();
/// The contract takes no longer results.
const LONGEST_STATE: usize = 64 * 1024;

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct Weighted {
    eligible: Vec<Counted>,
    /// Of all weights.
    total: i64,
}

#[derive(Debug)]
struct Counted {
    id: WorkerId,
    weight: i64,
    counter: i64,
}

impl Weighted {
    /// Gives workers the counters they had.
    fn resume(&mut self, mut known: Vec<(WorkerId, i64)>) {
        known.sort_unstable_by_key(|&(id, _)| id);
        let counter = |id| Some(known[known.binary_search_by_key(&id, |&(id, _)| id).ok()?].1);
        let counters: Vec<_> = self.eligible.iter().map(|worker| counter(worker.id)).collect();
        // Around the middle of those that stay: otherwise what the leavers owed or were owed would
        // pile up with every change, and a newcomer at 0 would get everything for a while.
        let stay = i128::try_from(counters.iter().flatten().count()).unwrap_or(1).max(1);
        let middle = counters.iter().flatten().map(|&counter| i128::from(counter)).sum::<i128>() / stay;
        for (worker, counter) in self.eligible.iter_mut().zip(counters) {
            let counter = counter.map_or(0, |counter| i128::from(counter) - middle);
            // Nobody is ever ahead or behind by more than a round. With other weights than before
            // somebody could be, and would get many in a row.
            let round = i128::from(self.total);
            worker.counter = i64::try_from(counter.clamp(-round, round)).unwrap_or(0);
        }
    }
}

impl Policy for Weighted {
    fn set_workers(&mut self, workers: &[Worker]) {
        let known = self.eligible.iter().map(|worker| (worker.id, worker.counter)).collect();
        self.eligible.clear();
        self.eligible.extend(Eligible::of(workers).map(|worker| Counted {
            id: worker.id,
            weight: i64::from(worker.weight),
            counter: 0,
        }));
        self.total = self.eligible.iter().map(|worker| worker.weight).sum();
        self.resume(known);
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        let mut best: Option<&mut Counted> = None;
        for worker in &mut self.eligible {
            worker.counter += worker.weight;
            // The first of equals.
            if best.as_ref().is_none_or(|best| worker.counter > best.counter) {
                best = Some(worker);
            }
        }
        let Some(best) = best else { return Decision::Defer };
        best.counter -= self.total;
        Decision::Worker(best.id)
    }

    fn save(&mut self) -> Vec<u8> {
        let mut state = STATE_TAG.to_vec();
        // Beyond some 5,000 workers the last ones begin afresh.
        for worker in self.eligible.iter().take((LONGEST_STATE - STATE_TAG.len()) / ENTRY) {
            state.extend(worker.id.to_le_bytes());
            state.extend(worker.counter.to_le_bytes());
        }
        state
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let unreadable = || format!("{} bytes that are not a state of weighted", state.len());
        let entries = state.strip_prefix(STATE_TAG).ok_or_else(unreadable)?.as_chunks::<ENTRY>();
        let (entries, []) = entries else { return Err(unreadable()) };
        let entry = |entry: &[u8; ENTRY]| {
            let (id, counter) = entry.split_first_chunk()?;
            Some((WorkerId::from_le_bytes(*id), i64::from_le_bytes(counter.try_into().ok()?)))
        };
        self.resume(entries.iter().filter_map(entry).collect());
        Ok(())
    }
}

export!(Weighted, state);

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(weights: &[(WorkerId, u32)]) -> Vec<Worker> {
        weights.iter().map(|&(id, weight)| Worker { id, weight, ..Worker::default() }).collect()
    }

    fn picks(policy: &mut Weighted, count: usize) -> Vec<WorkerId> {
        (0..count)
            .map(|_| match policy.balance(&[]) {
                Decision::Worker(id) => id,
                other => panic!("expected a worker, got {other:?}"),
            })
            .collect()
    }

    fn shares(picks: &[WorkerId], ids: &[WorkerId]) -> Vec<usize> {
        ids.iter().map(|id| picks.iter().filter(|pick| *pick == id).count()).collect()
    }

    #[test]
    fn every_round_is_exact() {
        let mut policy = Weighted::default();
        policy.set_workers(&workers(&[(1, 7), (2, 3), (3, 0), (4, 13)]));
        for _ in 0..100 {
            let round = picks(&mut policy, 23);
            assert_eq!(shares(&round, &[1, 2, 3, 4]), [7, 3, 0, 13]);
        }
    }

    /// A worker that comes and goes all the time must not pile up credit for anyone.
    #[test]
    fn changes_do_not_add_up() {
        let mut policy = Weighted::default();
        for change in 0..1_000 {
            policy.set_workers(&workers(&[(1, 5), (2, 1), (1_000 + change, 3)]));
            picks(&mut policy, 2);
        }
        policy.set_workers(&workers(&[(1, 5), (2, 1), (3, 3), (4, 9)]));
        let shares = shares(&picks(&mut policy, 18), &[1, 2, 3, 4]);
        for (share, weight) in shares.iter().zip([5, 1, 3, 9_usize]) {
            assert!(share.abs_diff(weight) <= 2, "{shares:?}");
        }
    }

    #[test]
    fn other_weights_give_nobody_many_in_a_row() {
        let mut policy = Weighted::default();
        policy.set_workers(&workers(&[(1, 1_000_000), (2, 1_000_000), (3, 1)]));
        picks(&mut policy, 3);
        policy.set_workers(&workers(&[(1, 1), (2, 1), (3, 1)]));
        let shares = shares(&picks(&mut policy, 12), &[1, 2, 3]);
        assert!(shares.iter().all(|&share| (1..=8).contains(&share)), "{shares:?}");
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut policy = Weighted::default();
        policy.set_workers(&workers(&[(1, u32::MAX), (2, u32::MAX)]));
        let hostile =
            [STATE_TAG, &[1, 0, 0, 0], &i64::MAX.to_le_bytes(), &[2, 0, 0, 0], &i64::MIN.to_le_bytes()];
        assert_eq!(policy.restore(&hostile.concat()), Ok(()));
        assert_eq!(shares(&picks(&mut policy, 10), &[1, 2]).iter().sum::<usize>(), 10);
    }

    #[test]
    fn the_state_of_very_many_workers_fits() {
        let mut policy = Weighted::default();
        policy.set_workers(&workers(&(0..6_000).map(|id| (id, 1)).collect::<Vec<_>>()));
        picks(&mut policy, 5);
        let state = policy.save();
        assert!((LONGEST_STATE - ENTRY..=LONGEST_STATE).contains(&state.len()), "{}", state.len());
        assert_eq!(policy.restore(&state), Ok(()));
    }

    #[test]
    fn restore_refuses_what_it_did_not_save() {
        let mut policy = Weighted::default();
        policy.set_workers(&workers(&[(1, 1), (2, 1)]));
        policy.balance(&[]);
        for state in [&b""[..], b"w", b"w1\0", b"w1\0\0\0\0\0\0\0\0\0\0\0", b"w2"] {
            assert!(policy.restore(state).is_err(), "{state:?}");
        }
        assert_eq!(policy.balance(&[]), Decision::Worker(2), "a refused state changes nothing");
    }
}
