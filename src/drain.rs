//! The phases of a run and the signal that ends it.

use tokio::sync::watch;

/// Where a run stands. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving, or about to.
    Running,
    /// The listeners close; connections on their way still reach their workers.
    Closing,
    /// The workers finish what they have.
    Draining,
    /// Workers that are still there are told to end.
    Ending,
    /// What is left is killed.
    Cutting,
}

/// Moves the phase on.
#[derive(Debug, Clone)]
pub struct Drain(watch::Sender<Phase>);

/// Sees the phase.
#[derive(Debug, Clone)]
pub struct Phases(watch::Receiver<Phase>);

impl Drain {
    /// A run in its first phase.
    #[must_use]
    pub fn new() -> (Self, Phases) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), Phases(receiver))
    }

    /// Enters a phase, unless the run is already past it.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }
}

impl Phases {
    /// The phase now.
    #[must_use]
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the run is in `phase` or past it. Cancel safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the run itself is gone, which is past every phase.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}
