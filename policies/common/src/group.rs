//! Some of the workers, the one with the lowest load first.

use sidetrack_policy::{Worker, WorkerId};

/// The workers of a group that are not draining.
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Member>,
    /// Where the search starts, as a place in `members`: after the pick before.
    start: usize,
}

#[derive(Debug)]
struct Member {
    id: WorkerId,
    /// Its place among all workers, and so in the loads.
    place: usize,
}

impl Group {
    /// Takes those of `workers` that belong to it.
    pub fn set_workers(&mut self, workers: &[Worker], belongs: impl Fn(&Worker) -> bool) {
        let next = self.members.get(self.start).map(|member| member.id);
        self.members.clear();
        self.members.extend(
            workers
                .iter()
                .enumerate()
                .filter(|(_, worker)| !worker.draining && belongs(worker))
                .map(|(place, worker)| Member { id: worker.id, place }),
        );
        // The search goes on from the same worker, or from whoever took its place.
        if let Some(start) = self.members.iter().position(|member| Some(member.id) == next) {
            self.start = start;
        }
    }

    /// The member with the lowest load, the first after the pick before if several have it.
    pub fn least(&mut self, loads: &[u32]) -> Option<WorkerId> {
        let load = |member: &Member| loads.get(member.place).copied().unwrap_or(u32::MAX);
        // Two plain passes are quicker than one that compares and remembers places. Mostly everybody
        // belongs, and then the loads need no looking up.
        let least = if self.members.len() == loads.len() {
            loads.iter().copied().min()
        } else {
            self.members.iter().map(load).min()
        };
        let (before, after) = self.members.split_at(self.start.min(self.members.len()));
        let mut in_turn = (self.start..).zip(after).chain((0..).zip(before));
        let (place, member) = in_turn.find(|(_, member)| Some(load(member)) == least)?;
        self.start = (place + 1) % self.members.len();
        Some(member.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_taken_in_turn_also_across_a_change() {
        let workers = |ids: &[WorkerId]| -> Vec<_> {
            ids.iter().map(|&id| Worker { id, ..Worker::default() }).collect()
        };
        let mut group = Group::default();
        group.set_workers(&workers(&[1, 2, 3, 4]), |worker| worker.id != 2);
        assert_eq!([(); 4].map(|()| group.least(&[5; 4])), [Some(1), Some(3), Some(4), Some(1)]);
        group.set_workers(&workers(&[3, 4, 5]), |_| true);
        assert_eq!([(); 3].map(|()| group.least(&[5; 3])), [Some(3), Some(4), Some(5)]);
        assert_eq!(group.least(&[5, 4, 5]), Some(4));
        group.set_workers(&[], |_| true);
        assert_eq!(group.least(&[]), None);
    }
}
