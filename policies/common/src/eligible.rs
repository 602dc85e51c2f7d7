//! Who may get something new.

use sidetrack_policy::{Worker, WorkerId};

/// A worker that may get something new: not draining, and of a weight above 0. When all who are not
/// draining weigh 0, they count as equals, since a client served late is better off than one turned
/// away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligible {
    pub id: WorkerId,
    /// Its place among all workers, and so in the loads.
    pub place: usize,
    /// At least 1.
    pub weight: u32,
}

impl Eligible {
    /// Those of `workers`, in their order.
    pub fn of(workers: &[Worker]) -> impl Iterator<Item = Self> + '_ {
        let all_zero = workers.iter().all(|worker| worker.draining || worker.weight == 0);
        workers
            .iter()
            .enumerate()
            .filter(move |(_, worker)| !worker.draining && (all_zero || worker.weight > 0))
            .map(|(place, worker)| Self { id: worker.id, place, weight: worker.weight.max(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eligible(workers: &[(bool, u32)]) -> Vec<(WorkerId, usize, u32)> {
        let workers: Vec<_> = (1..)
            .zip(workers)
            .map(|(id, &(draining, weight))| Worker { id, draining, weight, ..Worker::default() })
            .collect();
        Eligible::of(&workers).map(|worker| (worker.id, worker.place, worker.weight)).collect()
    }

    #[test]
    fn draining_and_weightless_workers_are_passed_over() {
        assert_eq!(eligible(&[(true, 5), (false, 0), (false, 2)]), [(3, 2, 2)]);
    }

    #[test]
    fn workers_of_no_weight_are_equals_when_there_is_nobody_else() {
        assert_eq!(eligible(&[(true, 5), (false, 0), (false, 0)]), [(2, 1, 1), (3, 2, 1)]);
        assert_eq!(eligible(&[(true, 0)]), []);
        assert_eq!(eligible(&[]), []);
    }
}
