//! Loads as they would have been. Pure.
//!
//! A recording has the loads that its own decisions led to. Shown to another policy they lie: a worker
//! that it prefers would never fill up. So what goes up in the recording goes up, in the replay, on the
//! worker that the replayed decision chose, and comes down there when the recording comes down, the
//! oldest first. While both decide alike the loads are exactly the recorded ones.

use std::collections::{HashMap, VecDeque};

/// How many decisions are remembered until their worker's load shows them. Requests that are over before
/// the next decision never do.
const PENDING: usize = 256;

/// The loads of a replay.
#[derive(Debug, Default)]
pub(super) struct Shifted {
    workers: HashMap<u32, Worker>,
}

/// A worker of the recording.
#[derive(Debug, Default)]
struct Worker {
    /// Its load in the recording.
    recorded: u32,
    /// Its load in the replay.
    replayed: u32,
    /// Where each part of its recorded load is in the replay, the oldest first.
    parts: VecDeque<u32>,
    /// Where its latest connections went in the replay.
    pending: VecDeque<u32>,
    latest: Option<u32>,
}

impl Shifted {
    /// Takes the loads of a decision and returns them as they would have been. `known` are the workers
    /// in the same order.
    pub(super) fn follow(&mut self, known: &[u32], loads: &[u32]) -> Vec<u32> {
        for (id, load) in known.iter().zip(loads) {
            self.set(*id, *load);
        }
        known.iter().map(|id| self.workers.get(id).map_or(0, |worker| worker.replayed)).collect()
    }

    /// A connection went to one worker in the recording and to another in the replay.
    pub(super) fn decided(&mut self, recorded: u32, replayed: u32) {
        let worker = self.workers.entry(recorded).or_default();
        worker.pending.push_back(replayed);
        worker.latest = Some(replayed);
        if worker.pending.len() > PENDING {
            worker.pending.pop_front();
        }
    }

    /// A worker is no more, and what it had is gone.
    pub(super) fn failed(&mut self, id: u32) {
        self.set(id, 0);
        self.workers.remove(&id);
    }

    fn set(&mut self, id: u32, load: u32) {
        let worker = self.workers.entry(id).or_default();
        let before = std::mem::replace(&mut worker.recorded, load);
        let mut moved: Vec<(u32, bool)> = Vec::new();
        for _ in before..load {
            // What comes without a connection of its own, such as a session, is its latest one's.
            let place = worker.pending.pop_front().or(worker.latest).unwrap_or(id);
            worker.parts.push_back(place);
            moved.push((place, true));
        }
        for _ in load..before {
            moved.extend(worker.parts.pop_front().map(|place| (place, false)));
        }
        for (place, up) in moved {
            let load = &mut self.workers.entry(place).or_default().replayed;
            *load = if up { load.saturating_add(1) } else { load.saturating_sub(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_decisions_have_the_recorded_loads() {
        let mut loads = Shifted::default();
        for step in [[3, 1, 0], [4, 1, 0], [2, 5, 1], [0, 0, 0], [7, 7, 7]] {
            assert_eq!(loads.follow(&[10, 11, 12], &step), step);
            loads.decided(10, 10);
            loads.decided(11, 11);
        }
    }

    #[test]
    fn what_goes_elsewhere_loads_that_worker_until_it_ends() {
        let mut loads = Shifted::default();
        assert_eq!(loads.follow(&[1, 2], &[0, 0]), [0, 0]);
        loads.decided(1, 2);
        assert_eq!(loads.follow(&[1, 2], &[1, 0]), [0, 1]);
        assert_eq!(loads.follow(&[1, 2], &[2, 0]), [0, 2], "its session as well");
        loads.decided(1, 1);
        assert_eq!(loads.follow(&[1, 2], &[3, 1]), [1, 3]);
        assert_eq!(loads.follow(&[1, 2], &[1, 1]), [1, 1], "the oldest end first");
        loads.failed(1);
        assert_eq!(loads.follow(&[2], &[1]), [1]);
    }
}
