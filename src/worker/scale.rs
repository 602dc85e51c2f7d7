//! How many slots there are, while the run goes on.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Instant;

use super::Origin;
use super::fleet::{Fleet, Members};
use super::turnover::Vacancy;
use crate::pool;

/// The slots of the configuration, `w0` and so on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Somebody keeps these filled.
    kept: HashSet<String>,
    /// … and these only until their worker has left.
    closing: HashSet<String>,
    /// How many there are to be.
    count: usize,
}

impl Slots {
    /// Whether somebody keeps a slot filled.
    pub(super) fn keeps(&self, slot: &str) -> bool {
        self.kept.contains(slot) && !self.closing.contains(slot)
    }

    /// Those that go with their worker.
    pub(super) fn closing(&self) -> impl Iterator<Item = &String> {
        self.closing.iter()
    }

    /// Goes on with those that went in the program before; somebody is to keep them until then.
    pub(super) fn resume(&mut self, closing: Vec<String>) {
        self.kept.extend(closing.iter().cloned());
        self.closing.extend(closing);
    }
}

/// The order of slots by their names: `w2` comes before `w10`.
pub(super) fn by_number(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A slot that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a worker that has joined is known as {0}; have it join by another name (`join --slot NAME`)")]
pub struct TakenSlot(String);

impl Fleet {
    /// Whether there may be so many slots.
    ///
    /// # Errors
    /// When a joined worker has the name of one.
    pub fn may_scale(&self, count: usize) -> Result<(), TakenSlot> {
        let members = self.lock();
        let mut guests = members.workers.iter().filter(|worker| worker.origin == Origin::Joined);
        let taken = guests.find(|guest| (0..count).any(|number| guest.slot == self.name(number)));
        taken.map_or(Ok(()), |guest| Err(TakenSlot(guest.slot.clone())))
    }

    /// Makes it so many slots: returns those that nobody keeps filled yet, for the caller to see to. The
    /// highest ones close: their workers get nothing new, and leave when they have nothing left to do, or
    /// at the deadline. One that is still closing is simply used again.
    pub fn scale(&self, count: usize, deadline: Option<Instant>) -> Vec<String> {
        let mut fresh = Vec::new();
        {
            let mut members = self.lock();
            let members = &mut *members;
            let wanted: Vec<String> = (0..count).map(|number| self.name(number)).collect();
            let slots = &mut members.slots;
            slots.count = count;
            for slot in &wanted {
                if slots.closing.remove(slot) {
                    members.vacant.remove(slot);
                    let own = members.workers.iter().filter(|worker| worker.slot == *slot);
                    if let Some(youngest) = own.max_by_key(|worker| worker.id) {
                        members.draining.remove(&youngest.id);
                    }
                } else if slots.kept.insert(slot.clone()) {
                    fresh.push(slot.clone());
                }
            }
            let wanted: HashSet<&String> = wanted.iter().collect();
            for slot in slots.kept.iter().filter(|slot| !wanted.contains(slot)) {
                members.vacant.insert(slot.clone());
                for worker in members.workers.iter().filter(|worker| worker.slot == *slot) {
                    // One that is leaving already gets no more time than it had.
                    let known = members.draining.entry(worker.id).or_insert(deadline);
                    *known = match (*known, deadline) {
                        (Some(known), Some(deadline)) => Some(known.min(deadline)),
                        (known, deadline) => known.or(deadline),
                    };
                }
                slots.closing.insert(slot.clone());
            }
        }
        self.refresh();
        fresh
    }

    /// Slots that go with their worker.
    #[must_use]
    pub fn closing(&self) -> Vec<String> {
        self.lock().slots.closing().cloned().collect()
    }

    /// How many slots there are to be.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.lock().slots.count
    }

    /// Slots that nobody is in, and nobody is about to be.
    #[must_use]
    pub fn vacancies(&self) -> Vec<(String, Vacancy)> {
        let members = self.lock();
        let vacancy = |slot: &String| {
            if members.workers.iter().any(|worker| worker.slot == *slot) {
                None
            } else if members.vacant.contains(slot) {
                Some(Vacancy::Drained)
            } else {
                (!members.slots.keeps(slot)).then_some(Vacancy::GivenUp)
            }
        };
        let slots = (0..members.slots.count).map(|number| self.name(number));
        slots.filter_map(|slot| vacancy(&slot).map(|why| (slot, why))).collect()
    }

    /// Slots that stay, in their order.
    #[must_use]
    pub fn open_slots(&self) -> Vec<String> {
        let members = self.lock();
        let open = |slot: &String| members.slots.keeps(slot) && !members.vacant.contains(slot);
        (0..members.slots.count).map(|number| self.name(number)).filter(open).collect()
    }

    /// Whether there is to be a slot of that name.
    pub(super) fn has(&self, members: &Members, slot: &str) -> bool {
        (0..members.slots.count).any(|number| self.name(number) == slot)
    }

    /// Whether a slot is to go with its worker.
    pub(super) fn is_closing(&self, slot: &str) -> bool {
        self.lock().slots.closing.contains(slot)
    }

    /// Nobody keeps a slot filled any more.
    pub(super) fn left(&self, slot: &str) {
        {
            let mut members = self.lock();
            members.slots.kept.remove(slot);
            members.succession.remove(slot);
            if members.slots.closing.remove(slot) {
                members.vacant.remove(slot);
            }
        }
        self.refresh();
    }

    /// `w0`, or in a pool by a name `api.w0`.
    fn name(&self, number: usize) -> String {
        format!("{}w{number}", pool::prefix(&self.reports.pool))
    }
}
