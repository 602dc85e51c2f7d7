//! Which listening socket feeds which server of the workers.
//!
//! A *server* is what one `listen()` call of the program asks for, the same in every worker. The
//! first worker to ask decides where sidetrack listens; the others get the same answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::{BindError, Bound, Listen, ListenAddress, bind};
use crate::types::ServerId;

/// The server of workers that take connections as messages and never call `listen()`.
const MESSAGES: ServerId = ServerId(0);

/// What a program's `listen()` asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub address: ListenAddress,
    /// Tells several servers with the same address apart.
    pub index: u64,
}

/// All servers and their listeners.
#[derive(Debug)]
pub struct Servers {
    inner: Mutex<Inner>,
    defer: Duration,
}

#[derive(Debug)]
struct Inner {
    /// `--listen` addresses that no server has claimed yet.
    unclaimed: Vec<(Listen, Bound)>,
    /// Whether the first server has claimed those without a port of their own.
    claimed: bool,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    id: ServerId,
    wanted: Option<Wanted>,
    /// Bound and not yet served.
    idle: Vec<Bound>,
    /// Where it listens.
    addresses: Vec<ListenAddress>,
}

impl Servers {
    /// Binds every address of the configuration.
    ///
    /// # Errors
    /// Every address that cannot be bound.
    pub fn new(listens: &[Listen], defer: Duration) -> Result<Self, Vec<BindError>> {
        let (mut unclaimed, mut errors) = (Vec::new(), Vec::new());
        for listen in listens {
            match bind(&listen.address, defer) {
                Ok(bound) => unclaimed.push((listen.clone(), bound)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let inner = Inner { unclaimed, claimed: false, servers: Vec::new() };
        Ok(Self { inner: Mutex::new(inner), defer })
    }

    /// The server a worker's `listen()` means, and the address it listens on. Binds that address
    /// unless the configuration says where to listen instead.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn claim(&self, wanted: &Wanted) -> Result<(ServerId, ListenAddress), BindError> {
        let mut inner = self.lock();
        if let Some(server) = inner.servers.iter().find(|server| server.wanted.as_ref() == Some(wanted)) {
            let address = server.addresses.first().unwrap_or(&wanted.address);
            return Ok((server.id, address.clone()));
        }
        let mut bound = inner.take_for(wanted);
        if bound.is_empty() {
            bound.push(bind(&wanted.address, self.defer)?);
        }
        let id = inner.add(Some(wanted.clone()), bound);
        let address = inner.servers.last().and_then(|server| server.addresses.first());
        Ok((id, address.unwrap_or(&wanted.address).clone()))
    }

    /// The server of workers that take connections as messages.
    ///
    /// # Errors
    /// `EDESTADDRREQ` when the configuration names no address: such a worker names none either.
    pub fn claim_for_messages(&self) -> Result<ServerId, Errno> {
        let mut inner = self.lock();
        if inner.claimed {
            // A worker that once listened may come back as one that takes messages.
            return inner.servers.first().map(|server| server.id).ok_or(Errno::EDESTADDRREQ);
        }
        let bound = inner.take_first();
        if bound.is_empty() {
            return Err(Errno::EDESTADDRREQ);
        }
        Ok(inner.add(None, bound))
    }

    /// Takes the listeners of a server that are bound and not yet served.
    #[must_use]
    pub fn take_idle(&self, id: ServerId) -> Vec<Bound> {
        let mut inner = self.lock();
        let server = inner.servers.iter_mut().find(|server| server.id == id);
        server.map(|server| std::mem::take(&mut server.idle)).unwrap_or_default()
    }

    /// Every address in force.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let inner = self.lock();
        let waiting = inner.unclaimed.iter().map(|(_, bound)| &bound.address);
        inner.servers.iter().flat_map(|server| &server.addresses).chain(waiting).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock; were it so, the lists would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The configured listeners meant for a server: those that name its port, else those that
    /// name none, if it is the first.
    fn take_for(&mut self, wanted: &Wanted) -> Vec<Bound> {
        let port = match wanted.address {
            ListenAddress::Tcp { port, .. } => Some(port),
            ListenAddress::Unix(_) => None,
        };
        let named = self.take(|listen| listen.serves.is_some() && listen.serves == port);
        if named.is_empty() { self.take_first() } else { named }
    }

    fn take_first(&mut self) -> Vec<Bound> {
        if self.claimed {
            return Vec::new();
        }
        self.claimed = true;
        self.take(|listen| listen.serves.is_none())
    }

    fn take(&mut self, wanted: impl Fn(&Listen) -> bool) -> Vec<Bound> {
        let (taken, left) =
            std::mem::take(&mut self.unclaimed).into_iter().partition(|(listen, _)| wanted(listen));
        self.unclaimed = left;
        Vec::into_iter(taken).map(|(_, bound): (Listen, Bound)| bound).collect()
    }

    fn add(&mut self, wanted: Option<Wanted>, idle: Vec<Bound>) -> ServerId {
        let count = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        let id = ServerId(MESSAGES.0 + count);
        let addresses = idle.iter().map(|bound| bound.address.clone()).collect();
        self.servers.push(Server { id, wanted, idle, addresses });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(port: u16) -> Wanted {
        Wanted { address: ListenAddress::Tcp { host: Some("127.0.0.1".into()), port }, index: 0 }
    }

    fn servers(listens: &[&str]) -> Servers {
        let listens: Vec<Listen> = listens.iter().map(|text| text.parse().unwrap()).collect();
        Servers::new(&listens, Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn without_configuration_the_program_decides() {
        let servers = servers(&[]);
        let (first, address) = servers.claim(&wanted(0)).unwrap();
        assert_eq!(servers.claim(&wanted(0)).unwrap(), (first, address), "the second worker gets the same");
        assert_eq!(servers.take_idle(first).len(), 1);
        assert!(servers.take_idle(first).is_empty(), "a listener is served once");
        assert_eq!(servers.claim_for_messages(), Ok(first));
    }

    #[test]
    fn configured_addresses_feed_the_first_server_and_named_ones_their_own() {
        let servers = servers(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0=9100"]);
        let (metrics, _) = servers.claim(&wanted(9100)).unwrap();
        let (main, _) = servers.claim(&wanted(3000)).unwrap();
        assert_ne!(main, metrics);
        assert_eq!((servers.take_idle(main).len(), servers.take_idle(metrics).len()), (2, 1));
        assert_eq!(servers.addresses().len(), 3);
    }

    #[test]
    fn workers_that_take_messages_need_a_configured_address() {
        assert_eq!(servers(&[]).claim_for_messages(), Err(Errno::EDESTADDRREQ));
        assert!(servers(&["127.0.0.1:0"]).claim_for_messages().is_ok());
    }
}
