//! Round-robin: every eligible worker in turn, exactly.
//!
//! A worker is eligible unless it is draining. When the workers change, the turn stays with the
//! worker that was next, or falls to whoever took its place when it is gone, so a change neither
//! restarts the round nor favours anyone. The turn survives a trap and a replacement.

use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export};

/// Begins every saved state and says how to read the rest.
const STATE_TAG: &[u8] = b"r1";

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct RoundRobin {
    eligible: Vec<WorkerId>,
    /// Whose turn it is, as a place in `eligible`; past the end means the first.
    turn: usize,
}

impl RoundRobin {
    /// Gives the turn to `id` if it is there.
    fn resume(&mut self, id: Option<WorkerId>) {
        if let Some(turn) = id.and_then(|id| self.eligible.iter().position(|&known| known == id)) {
            self.turn = turn;
        }
    }
}

impl Policy for RoundRobin {
    fn set_workers(&mut self, workers: &[Worker]) {
        let next = self.eligible.get(self.turn).copied();
        self.eligible.clear();
        self.eligible.extend(workers.iter().filter(|worker| !worker.draining).map(|worker| worker.id));
        self.resume(next);
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        if self.turn >= self.eligible.len() {
            self.turn = 0;
        }
        let Some(&id) = self.eligible.get(self.turn) else { return Decision::Defer };
        self.turn += 1;
        // Wrap at once: a worker added at the end now waits for the next round, like any other.
        if self.turn == self.eligible.len() {
            self.turn = 0;
        }
        Decision::Worker(id)
    }

    fn save(&mut self) -> Vec<u8> {
        let turn = u32::try_from(self.turn).unwrap_or(0);
        let mut state = [STATE_TAG, &turn.to_le_bytes()].concat();
        if let Some(id) = self.eligible.get(self.turn) {
            state.extend(id.to_le_bytes());
        }
        state
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let unreadable = || format!("{} bytes that are not a round-robin state", state.len());
        let (turn, id) =
            state.strip_prefix(STATE_TAG).and_then(<[u8]>::split_first_chunk).ok_or_else(unreadable)?;
        let id = match id {
            [] => None,
            id => Some(WorkerId::from_le_bytes(id.try_into().map_err(|_| unreadable())?)),
        };
        self.turn = u32::from_le_bytes(*turn) as usize;
        self.resume(id);
        Ok(())
    }
}

export!(RoundRobin, state);

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(ids: &[WorkerId]) -> Vec<Worker> {
        ids.iter().map(|&id| Worker { id, ..Worker::default() }).collect()
    }

    #[test]
    fn restore_refuses_what_it_did_not_save() {
        let mut policy = RoundRobin::default();
        policy.set_workers(&workers(&[1, 2, 3]));
        policy.balance(&[]);
        for state in [&b""[..], b"r", b"r1", b"r1\0\0\0", b"r1\0\0\0\0\0", b"r2\0\0\0\0"] {
            assert!(policy.restore(state).is_err(), "{state:?}");
        }
        assert_eq!(policy.balance(&[]), Decision::Worker(2), "a refused state changes nothing");
    }
}
