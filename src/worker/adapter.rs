//! Relaying the messages of `@socket.io/cluster-adapter` between workers, as its primary does.

use std::collections::HashMap;

use crate::types::WorkerId;

/// Adapter names remembered at most. A program has one for each worker and namespace; a worker
/// that invents more only makes its answers go to everybody.
const MOST_NAMES: usize = 10_000;

/// Which worker speaks under which adapter name.
#[derive(Debug, Default)]
pub struct Adapters(HashMap<String, WorkerId>);

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every worker but the sender.
    Others,
    /// The one that asked.
    One(WorkerId),
}

impl Adapters {
    /// Notes the speaker and says whom the message is for.
    pub fn route(&mut self, from: WorkerId, uid: Option<&str>, requester: Option<&str>) -> Audience {
        if let Some(uid) = uid
            && self.0.get(uid) != Some(&from)
            && self.0.len() < MOST_NAMES
        {
            self.0.insert(uid.to_owned(), from);
        }
        match requester.and_then(|requester| self.0.get(requester)) {
            Some(&worker) => Audience::One(worker),
            None => Audience::Others,
        }
    }

    /// A speaker and its worker, as they were noted before.
    pub fn note(&mut self, name: String, worker: WorkerId) {
        self.0.insert(name, worker);
    }

    /// Everybody noted.
    pub fn names(&self) -> impl Iterator<Item = (&str, WorkerId)> {
        self.0.iter().map(|(name, worker)| (name.as_str(), *worker))
    }

    /// Forgets a worker that is no more.
    pub fn forget(&mut self, worker: WorkerId) {
        self.0.retain(|_, owner| *owner != worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_who_asked_and_the_rest_to_the_others() {
        let (a, b) = (WorkerId(1), WorkerId(2));
        let mut adapters = Adapters::default();
        assert_eq!(adapters.route(a, Some("ua"), None), Audience::Others);
        assert_eq!(adapters.route(b, Some("ub"), Some("ua")), Audience::One(a));
        adapters.forget(a);
        assert_eq!(adapters.route(b, Some("ub"), Some("ua")), Audience::Others);
    }
}
