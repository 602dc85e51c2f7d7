//! What whoever keeps a slot finds there at first: nobody, unless the program before has kept it.

use std::sync::Arc;

use super::Origin;
use super::fleet::Fleet;
use super::worker::Worker;
use crate::types::WorkerId;

/// Somebody found in a slot.
#[derive(Debug)]
pub enum Found {
    Worker(Arc<Worker>),
    /// A process whose channel is gone: worker and process id.
    Parting(WorkerId, u32),
}

/// Everybody in a slot, by what they are there for.
#[derive(Debug, Default)]
pub struct Begun {
    /// Whoever has the slot.
    pub present: Option<Found>,
    /// One that was started to follow, and is not ready.
    pub successor: Option<Found>,
    /// Those that were followed, and finish what they have.
    pub before: Vec<Found>,
}

impl Begun {
    /// Looks who is there.
    pub fn find(fleet: &Fleet, slot: &str) -> Self {
        let members = fleet.lock();
        let own = |worker: &&Arc<Worker>| worker.slot == slot && worker.origin == Origin::Started;
        let own: Vec<_> = members.workers.iter().filter(own).cloned().collect();
        let followed = members.succession.contains_key(slot);
        let mut begun = Self::default();
        // Of several, those that get nothing new were followed; all of them may be draining.
        let youngest = own.last().map(|worker| worker.id);
        for worker in own {
            let out = members.draining.contains_key(&worker.id) || worker.lock().asked;
            if out && Some(worker.id) != youngest {
                begun.before.push(Found::Worker(worker));
            } else if begun.present.is_none() {
                begun.present = Some(Found::Worker(worker));
            } else if followed && begun.successor.is_none() {
                begun.successor = Some(Found::Worker(worker));
            } else {
                begun.before.push(Found::Worker(worker));
            }
        }
        for (id, pid, _) in members.parting.iter().filter(|(.., of)| of == slot) {
            let parting = Found::Parting(*id, *pid);
            if begun.present.is_none() {
                begun.present = Some(parting);
            } else {
                begun.before.push(parting);
            }
        }
        begun
    }
}

impl Found {
    /// None for one that cannot be followed any more.
    pub fn id(&self) -> Option<WorkerId> {
        match self {
            Self::Worker(worker) => Some(worker.id),
            Self::Parting(..) => None,
        }
    }
}
