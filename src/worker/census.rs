//! Every worker as it is now, for people and machines.

use std::time::Instant;

use super::fleet::Fleet;
use super::worker::{Standing, Worker};
use super::{Facts, Origin};
use crate::types::WorkerId;

/// A worker, and what it has to do.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerReport {
    pub slot: String,
    pub id: WorkerId,
    pub pid: u32,
    pub origin: Origin,
    pub standing: Standing,
    /// It gets nothing new.
    pub draining: bool,
    pub facts: Facts,
    /// What policies see: sessions, sockets, and what is under way.
    pub load: u32,
    pub sessions: u32,
    /// Connections in its hands, as far as it reports their end.
    pub sockets: u32,
    /// Sent to it and not yet acknowledged.
    pub unacknowledged: usize,
    /// Waiting to be sent to it.
    pub queued: usize,
    pub handed_off: u64,
    pub handed_back: u64,
    pub ready_since: Option<Instant>,
}

impl Fleet {
    /// How many connections each worker may have unacknowledged, and how many more may wait.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        let settings = self.settings.now();
        (settings.window, settings.queue)
    }

    /// All workers, in the order of their slots.
    #[must_use]
    pub fn census(&self) -> Vec<WorkerReport> {
        let mut list: Vec<_> = self.workers().iter().map(|worker| self.report_on(worker)).collect();
        list.sort_by(|a, b| {
            a.slot.len().cmp(&b.slot.len()).then_with(|| (&a.slot, a.id).cmp(&(&b.slot, b.id)))
        });
        list
    }

    fn report_on(&self, worker: &Worker) -> WorkerReport {
        let facts = self.settings.now().facts.get(&worker.slot).cloned().unwrap_or_default();
        let load = worker.total_load();
        let draining = self.draining(worker.id).is_some();
        let state = worker.lock();
        WorkerReport {
            slot: worker.slot.clone(),
            id: worker.id,
            pid: worker.pid,
            origin: worker.origin,
            standing: state.profile.standing,
            draining,
            facts,
            load,
            sessions: worker.load.sessions(),
            sockets: worker.load.sockets(),
            unacknowledged: state.window.pending(),
            queued: state.window.waiting(),
            handed_off: worker.handed_off.get(),
            handed_back: worker.handed_back.get(),
            ready_since: state.profile.ready_since,
        }
    }
}
