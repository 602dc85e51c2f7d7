//! One worker after another followed by a new one: how far that has come, and one slot's turn.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::fleet::Fleet;
use super::turnover::{SlotError, Succession};
use crate::types::WorkerId;

/// A rolling restart, as far as it has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rolling {
    /// How many there were before it in this run.
    pub number: u64,
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
    /// How long the worker that has been followed may take to leave; none for as long as it likes.
    within: Option<Duration>,
}

impl Fleet {
    /// What a slot's turn takes.
    ///
    /// # Errors
    /// Why it can have none.
    pub fn turn(&self, slot: &str, within: Option<Duration>) -> Result<Turn, SlotError> {
        self.may_be_followed(&self.lock(), slot)?;
        Ok(Turn { slot: slot.to_owned(), mark: self.next_id(), within })
    }

    /// Has a slot's worker followed by a new one, and waits until that is ready; its process then, or none when
    /// it is not to be filled any more. Cancelled, an order that was given is carried out all the same.
    ///
    /// # Errors
    /// What the new worker has died of. The one before stays, if there was one.
    pub async fn follow(&self, turn: &Turn) -> Result<Option<u32>, String> {
        let mut changes = self.watch();
        loop {
            let newer = self.youngest(&turn.slot).filter(|(id, _)| *id > turn.mark);
            match newer {
                Some((youngest, true)) => {
                    if let Some(worker) = self.find(youngest) {
                        return Ok(Some(worker.pid));
                    }
                }
                Some((_, false)) => {}
                None => {
                    let (told, outcome) = oneshot::channel();
                    let deadline = turn.within.map(|within| Instant::now() + within);
                    match self.succeed(&turn.slot, Succession { deadline, told: Some(told) }) {
                        Ok(()) => {}
                        Err(SlotError::Empty(_)) => {
                            return Err("its workers keep ending, and it is given up".to_owned());
                        }
                        // Somebody wants it empty by now.
                        Err(_) => return Ok(None),
                    }
                    // Without an outcome another order has come, or the slot is closed.
                    if let Ok(outcome) = outcome.await {
                        outcome?;
                        continue;
                    }
                }
            }
            if changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
