//! How many of the pending connections each client has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts. Only clients with a connection are in them, so that the limit of pending connections
/// bounds them too.
#[derive(Debug)]
pub struct Shares {
    most: u32,
    taken: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection's; given back when dropped.
#[derive(Debug)]
pub struct Share {
    client: IpAddr,
    of: Arc<Shares>,
}

impl Shares {
    /// With this many for each client at most.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// One more for a client, unless it has all it may have.
    #[must_use]
    pub fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let mut taken = self.lock();
        let count = taken.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { client, of: Arc::clone(self) })
    }

    /// The share of a connection that had one before: also when a client now may have fewer.
    #[must_use]
    pub fn keep(self: &Arc<Self>, client: IpAddr) -> Share {
        *self.lock().entry(client).or_default() += 1;
        Share { client, of: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // Nothing panics under the lock; were it so, the counts would still be whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Whose it is.
    #[must_use]
    pub const fn client(&self) -> IpAddr {
        self.client
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.of.lock().entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_as_it_may_and_leaves_nothing_behind() {
        let shares = Arc::new(Shares::new(2));
        let [a, b] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let held: Vec<_> = [a, a, b].map(|client| shares.take(client)).into_iter().flatten().collect();
        assert_eq!(held.len(), 3);
        assert!(shares.take(a).is_none() && shares.take(b).is_some());
        drop(held);
        assert!(shares.lock().is_empty());
        assert!(shares.take(a).is_some());
    }
}
