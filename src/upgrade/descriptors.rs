//! Descriptors on their way from one program to the next, where they are only numbers.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sys::exec;
use crate::types::{Share, Shares};

/// Those that go along. Nothing happens to them yet.
#[derive(Debug, Default)]
pub struct Outgoing(Vec<RawFd>);

impl Outgoing {
    /// One more: its number, by which the next program knows it.
    pub fn add(&mut self, descriptor: impl AsFd) -> RawFd {
        let number = exec::number(descriptor);
        self.0.push(number);
        number
    }

    /// All of them.
    #[must_use]
    pub fn numbers(self) -> Vec<RawFd> {
        self.0
    }
}

/// Those that have come along, each to be taken once; and what the connections among them hold.
#[derive(Debug)]
pub struct Incoming {
    left: BTreeSet<RawFd>,
    permits: Arc<Semaphore>,
    shares: Option<Arc<Shares>>,
}

impl Incoming {
    /// What the program before has sent along.
    #[must_use]
    pub fn new(numbers: &[RawFd], permits: Arc<Semaphore>, shares: Option<Arc<Shares>>) -> Self {
        Self { left: numbers.iter().copied().collect(), permits, shares }
    }

    /// Takes one over.
    ///
    /// # Errors
    /// When it has not come along, or was taken before.
    pub fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        if !self.left.remove(&number) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("descriptor {number} has not come along"),
            ));
        }
        exec::inherited(number)
    }

    /// A permit for a connection that had one before: also when the settings now allow fewer.
    ///
    /// # Errors
    /// Never, as the semaphore is never closed.
    pub fn permit(&self) -> io::Result<OwnedSemaphorePermit> {
        if self.permits.available_permits() == 0 {
            self.permits.add_permits(1);
        }
        Arc::clone(&self.permits).try_acquire_owned().map_err(io::Error::other)
    }

    /// A client's share for a connection that had one before, if there is a limit still.
    pub fn share(&self, client: IpAddr) -> Option<Share> {
        self.shares.as_ref().map(|shares| shares.keep(client))
    }

    /// Closes what nobody has taken and returns how many there were.
    pub fn close_rest(self) -> usize {
        self.left.into_iter().filter_map(|number| exec::inherited(number).ok()).count()
    }
}
