//! Least-connection: the eligible worker with the lowest load.
//!
//! A worker is eligible unless it is draining. Of several with the same lowest load it takes the
//! first after the one picked last, so workers that stay equal get their connections in turn.

use policy_common::Group;
use sidetrack_policy::{Decision, Policy, Worker, export};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct LeastConnection {
    eligible: Group,
}

impl Policy for LeastConnection {
    fn set_workers(&mut self, workers: &[Worker]) {
        self.eligible.set_workers(workers, |_| true);
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        self.eligible.least(loads).map_or(Decision::Defer, Decision::Worker)
    }
}

export!(LeastConnection);
