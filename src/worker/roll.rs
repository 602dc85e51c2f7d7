//! One worker after another followed by a new one.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::fleet::Fleet;
use super::turnover::Succession;

/// What came of a rolling restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rolled {
    /// Slots whose worker is a new one.
    pub followed: usize,
    /// Why it went no further: a slot, and what its new worker died of.
    pub failed: Option<(String, String)>,
}

impl Fleet {
    /// Has the worker of every slot followed by a new one, one slot after another, each when the one before
    /// is ready. Goes no further when one does not become ready: its slot's old worker stays, and so do
    /// those of the slots behind it. Cancelled, it stops where it is.
    pub async fn roll(&self, within: Option<Duration>) -> Rolled {
        let mut followed = 0;
        // No worker is known by this one: those started from now on are new by themselves.
        let mark = self.next_id();
        for slot in self.open_slots() {
            if self.youngest(&slot).is_some_and(|(youngest, _)| youngest > mark) {
                continue;
            }
            let (told, outcome) = oneshot::channel();
            let deadline = within.map(|within| Instant::now() + within);
            // A slot that nobody keeps filled any more.
            if self.succeed(&slot, Succession { deadline, told: Some(told) }).is_err() {
                continue;
            }
            match outcome.await {
                Ok(Ok(())) => followed += 1,
                Ok(Err(reason)) => return Rolled { followed, failed: Some((slot, reason)) },
                // There was no worker, and the next one starts at once; or another order came, or the slot is
                // closed.
                Err(_) => {}
            }
        }
        Rolled { followed, failed: None }
    }
}
