//! One worker after another followed by a new one: how far that has come, and one slot's turn.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::fleet::Fleet;
use super::turnover::{Succession, UnknownSlot};
use crate::types::WorkerId;

/// A rolling restart, as far as it has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rolling {
    /// How many there were before it in this run.
    pub number: u64,
    /// How long each worker that has been followed may take to leave; none for as long as it likes.
    pub within: Option<Duration>,
    /// Slots whose worker is a new one, and its process.
    pub followed: Vec<(String, u32)>,
    /// Whose turn is still to come. While it goes on, it is the first one's.
    pub left: Vec<Turn>,
    /// Why it went no further: a slot, and what its new worker died of.
    pub failed: Option<(String, String)>,
    pub over: bool,
}

/// A slot's turn in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    pub slot: String,
    /// No worker's number: those with higher ones have been started since, and are new by themselves.
    mark: WorkerId,
}

impl Fleet {
    /// What a slot's turn takes.
    ///
    /// # Errors
    /// When nobody has the slot, or only somebody who was not started here.
    pub fn turn(&self, slot: &str) -> Result<Turn, UnknownSlot> {
        self.may_be_followed(slot)?;
        Ok(Turn { slot: slot.to_owned(), mark: self.next_id() })
    }

    /// Has a slot's worker followed by a new one, and waits until that is ready; its process then, or none when
    /// nobody keeps the slot filled any more. Cancelled, an order that was given is carried out all the same.
    ///
    /// # Errors
    /// What the new worker has died of. The one before stays.
    pub async fn follow(&self, turn: &Turn, within: Option<Duration>) -> Result<Option<u32>, String> {
        let mut changes = self.watch();
        loop {
            let Some((youngest, ready)) = self.youngest(&turn.slot).filter(|(id, _)| *id > turn.mark) else {
                let (told, outcome) = oneshot::channel();
                let deadline = within.map(|within| Instant::now() + within);
                if self.succeed(&turn.slot, Succession { deadline, told: Some(told) }).is_err() {
                    return Ok(None);
                }
                // Without an outcome there was no worker, and the next one starts at once; or another order has
                // come, or the slot is closed.
                outcome.await.unwrap_or(Ok(()))?;
                continue;
            };
            if ready && let Some(worker) = self.find(youngest) {
                return Ok(Some(worker.pid));
            }
            if changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
