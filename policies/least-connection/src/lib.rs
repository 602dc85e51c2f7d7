//! Least-connection: the eligible worker with the lowest load.
//!
//! A worker is eligible unless it is draining. Of several with the same lowest load it takes the
//! first after the one picked last, so workers that stay equal get their connections in turn.

use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct LeastConnection {
    eligible: Vec<Eligible>,
    /// Where the search starts, as a place in `eligible`: after the pick before.
    start: usize,
}

#[derive(Debug)]
struct Eligible {
    id: WorkerId,
    /// Its place among all workers, and so in the loads.
    place: usize,
}

impl Policy for LeastConnection {
    fn set_workers(&mut self, workers: &[Worker]) {
        let next = self.eligible.get(self.start).map(|worker| worker.id);
        self.eligible.clear();
        self.eligible.extend(
            workers
                .iter()
                .enumerate()
                .filter(|(_, worker)| !worker.draining)
                .map(|(place, worker)| Eligible { id: worker.id, place }),
        );
        // The search goes on from the same worker, or from whoever took its place.
        if let Some(start) = self.eligible.iter().position(|worker| Some(worker.id) == next) {
            self.start = start;
        }
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        let load = |worker: &Eligible| loads.get(worker.place).copied().unwrap_or(u32::MAX);
        // Two plain passes are quicker than one that compares and remembers places. Mostly nobody is
        // draining, and then the loads need no looking up.
        let least = if self.eligible.len() == loads.len() {
            loads.iter().copied().min()
        } else {
            self.eligible.iter().map(load).min()
        };
        let (before, after) = self.eligible.split_at(self.start.min(self.eligible.len()));
        let Some((place, worker)) = (self.start..)
            .zip(after)
            .chain((0..).zip(before))
            .find(|(_, worker)| Some(load(worker)) == least)
        else {
            return Decision::Defer;
        };
        self.start = (place + 1) % self.eligible.len();
        Decision::Worker(worker.id)
    }
}

export!(LeastConnection);
