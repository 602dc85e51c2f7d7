//! Who leaves a slot, and who follows there.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Origin;
use super::fleet::{Fleet, Members};
use super::scale::by_number;
use super::worker::Worker;
use crate::types::WorkerId;

/// An order to have a slot's worker followed by another one.
#[derive(Debug)]
pub(super) struct Succession {
    /// When the one before leaves at the latest.
    pub(super) deadline: Option<Instant>,
    /// Who wants to know what comes of it.
    pub(super) told: Option<oneshot::Sender<Result<(), String>>>,
}

impl Succession {
    pub(super) fn tell(self, outcome: Result<(), String>) {
        if let Some(told) = self.told {
            // Whoever asked may have gone.
            let _ = told.send(outcome);
        }
    }
}

/// An order about a slot that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    #[error("there is no worker `{slot}`, but {}", known.join(", "))]
    Unknown { slot: String, known: Vec<String> },
    #[error("`{0}` is not draining")]
    NotDraining(String),
    #[error("`{0}` is drained; `sidetrack ctl undrain {0}` takes it back")]
    Drained(String),
    #[error("`{0}` is leaving since there are to be fewer workers; `sidetrack ctl scale` takes it back")]
    Closing(String),
    #[error("`{0}` has joined: whoever has started it can restart it")]
    Joined(String),
    #[error("nobody is in `{0}` just now: a worker is being started, or has kept ending (see the log)")]
    Empty(String),
}

/// Why nobody is in a slot, and nobody follows there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vacancy {
    /// Somebody wants it so.
    Drained,
    /// Its workers kept ending.
    GivenUp,
}

impl Fleet {
    /// A slot gets nothing new from now on. Its worker, if it was started here, leaves when it has nothing
    /// left to do, or at the deadline, and nobody follows it until [`undrain`](Self::undrain).
    ///
    /// # Errors
    /// When nobody has the slot.
    pub fn drain(&self, slot: &str, deadline: Option<Instant>) -> Result<(), SlotError> {
        self.retire(slot, WorkerId(u32::MAX), deadline)?;
        // In time: its worker leaves no sooner than this returns.
        self.lock().vacant.insert(slot.to_owned());
        Ok(())
    }

    /// A slot takes part again; when its worker has left, another one is started.
    ///
    /// # Errors
    /// When it was not draining.
    pub fn undrain(&self, slot: &str) -> Result<(), SlotError> {
        {
            let mut members = self.lock();
            let members = &mut *members;
            if !members.vacant.remove(slot) {
                let known = members.workers.iter().any(|worker| worker.slot == slot);
                return Err(if known {
                    SlotError::NotDraining(slot.to_owned())
                } else {
                    self.nobody(members, slot)
                });
            }
            for worker in members.workers.iter().filter(|worker| worker.slot == slot) {
                members.draining.remove(&worker.id);
            }
        }
        self.refresh();
        Ok(())
    }

    /// Another worker is started in a slot. When it is ready, the one before gets nothing new and leaves as
    /// with [`drain`](Self::drain).
    ///
    /// # Errors
    /// When nobody has the slot, or only somebody who was not started here.
    pub fn restart(&self, slot: &str, deadline: Option<Instant>) -> Result<(), SlotError> {
        self.succeed(slot, Succession { deadline, told: None })
    }

    /// Whether a slot has, or is about to have, a worker that another one can follow.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_be_followed(&self, members: &Members, slot: &str) -> Result<(), SlotError> {
        let origins =
            || members.workers.iter().filter(|worker| worker.slot == slot).map(|worker| worker.origin);
        if members.slots.closing().any(|closing| closing == slot) {
            Err(SlotError::Closing(slot.to_owned()))
        } else if members.vacant.contains(slot) {
            Err(SlotError::Drained(slot.to_owned()))
        } else if members.slots.keeps(slot) || origins().any(|origin| origin == Origin::Started) {
            // Between two workers, the next one need not wait for its turn.
            Ok(())
        } else if origins().next().is_some() {
            Err(SlotError::Joined(slot.to_owned()))
        } else {
            Err(self.nobody(members, slot))
        }
    }

    /// The same as [`restart`](Self::restart), as an order.
    pub(super) fn succeed(&self, slot: &str, order: Succession) -> Result<(), SlotError> {
        {
            let mut members = self.lock();
            self.may_be_followed(&members, slot)?;
            members.succession.insert(slot.to_owned(), order);
        }
        self.refresh();
        Ok(())
    }

    /// Workers of a slot older than `before` get nothing new, and leave.
    pub(super) fn retire(
        &self,
        slot: &str,
        before: WorkerId,
        deadline: Option<Instant>,
    ) -> Result<(), SlotError> {
        {
            let mut members = self.lock();
            let members = &mut *members;
            let old = |worker: &&Arc<Worker>| worker.slot == slot && worker.id < before;
            let old: Vec<WorkerId> = members.workers.iter().filter(old).map(|worker| worker.id).collect();
            if old.is_empty() {
                return Err(self.nobody(members, slot));
            }
            members.draining.extend(old.into_iter().map(|id| (id, deadline)));
        }
        self.refresh();
        Ok(())
    }

    /// When a draining worker leaves at the latest; none when it is not draining.
    #[allow(clippy::option_option, reason = "not draining, draining without a deadline, with one")]
    pub(super) fn draining(&self, worker: WorkerId) -> Option<Option<Instant>> {
        self.lock().draining.get(&worker).copied()
    }

    /// Whether nobody is to follow in a slot.
    pub(super) fn is_vacant(&self, slot: &str) -> bool {
        self.lock().vacant.contains(slot)
    }

    /// Takes the order to have a slot's worker followed by another one.
    pub(super) fn succession(&self, slot: &str) -> Option<Succession> {
        self.lock().succession.remove(slot)
    }

    /// It is being carried out, …
    pub(super) fn succeeding(&self, slot: &str, order: &Succession) {
        self.lock().succeeding.insert(slot.to_owned(), order.deadline);
    }

    /// … or has come to an end.
    pub(super) fn succeeded(&self, slot: &str) {
        self.lock().succeeding.remove(slot);
    }

    /// The youngest worker of a slot, and whether it is ready.
    pub(super) fn youngest(&self, slot: &str) -> Option<(WorkerId, bool)> {
        let members = self.lock();
        let youngest = members.workers.iter().rfind(|worker| worker.slot == slot)?;
        Some((youngest.id, members.ready.iter().any(|worker| worker.id == youngest.id)))
    }

    /// Nobody is in a slot, or there is none of that name.
    fn nobody(&self, members: &Members, slot: &str) -> SlotError {
        if members.vacant.contains(slot) {
            return SlotError::Drained(slot.to_owned());
        }
        if self.has(members, slot) {
            return SlotError::Empty(slot.to_owned());
        }
        let mut known: Vec<String> = members.workers.iter().map(|worker| worker.slot.clone()).collect();
        known.sort_by(|a, b| by_number(a, b));
        known.dedup();
        SlotError::Unknown { slot: slot.to_owned(), known }
    }
}
