//! Which listening socket feeds which server of the workers.
//!
//! A *server* is what one `listen()` call of the program asks for, the same in every worker. The
//! first worker to ask decides where sidetrack listens; the others get the same answer.
//!
//! One of them is the *main* server: the one that configured addresses without a port of their own
//! feed. It is that of the first `listen()`, and that of workers which never call it, such as those in
//! other languages than Node: so all of them share its connections, whichever is ready first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::{BindError, Bound, Listen, ListenAddress, bind};
use crate::types::ServerId;

/// What a program's `listen()` asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub address: ListenAddress,
    /// Tells several servers with the same address apart.
    pub index: u64,
}

/// Whether a worker that takes connections as messages may call `listen()` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    Never,
    /// What it listens for is something else, such as metrics.
    Perhaps,
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
    /// The one that has claimed those without a port of their own.
    main: Option<ServerId>,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    id: ServerId,
    wanted: Option<Wanted>,
    /// It belongs to workers that never say what they want: the first who does means the same.
    shared: bool,
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
        let inner = Inner { unclaimed, main: None, servers: Vec::new() };
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
        let (id, address) = inner.claim(wanted, self.defer)?;
        Ok((id, address.unwrap_or_else(|| wanted.address.clone())))
    }

    /// The server of workers that take connections as messages.
    ///
    /// # Errors
    /// `EDESTADDRREQ` when the configuration names no address: such a worker names none either.
    pub fn claim_for_messages(&self, listens: Listens) -> Result<ServerId, Errno> {
        let mut inner = self.lock();
        if let Some(main) = inner.main {
            // Others have listened, or will.
            return Ok(main);
        }
        let bound = inner.take(|listen| listen.serves.is_none());
        if bound.is_empty() {
            return Err(Errno::EDESTADDRREQ);
        }
        let server = inner.add(None, bound);
        server.shared = listens == Listens::Never;
        let id = server.id;
        inner.main = Some(id);
        Ok(id)
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
    /// A server that nobody has asked for yet: fed by the configured listeners that name its port, else
    /// the main one, else by a listener of its own.
    fn claim(
        &mut self,
        wanted: &Wanted,
        defer: Duration,
    ) -> Result<(ServerId, Option<ListenAddress>), BindError> {
        let port = match wanted.address {
            ListenAddress::Tcp { port, .. } => Some(port),
            ListenAddress::Unix(_) => None,
        };
        let mut bound = self.take(|listen| listen.serves.is_some() && listen.serves == port);
        let named = !bound.is_empty();
        if !named && let Some(server) = self.servers.iter_mut().find(|server| server.shared) {
            server.shared = false;
            server.wanted = Some(wanted.clone());
            return Ok((server.id, server.addresses.first().cloned()));
        }
        let main = !named && self.main.is_none();
        if main {
            bound = self.take(|listen| listen.serves.is_none());
        }
        if bound.is_empty() {
            bound.push(bind(&wanted.address, defer)?);
        }
        let server = self.add(Some(wanted.clone()), bound);
        let (id, address) = (server.id, server.addresses.first().cloned());
        if main {
            self.main = Some(id);
        }
        Ok((id, address))
    }

    fn take(&mut self, wanted: impl Fn(&Listen) -> bool) -> Vec<Bound> {
        let (taken, left) =
            std::mem::take(&mut self.unclaimed).into_iter().partition(|(listen, _)| wanted(listen));
        self.unclaimed = left;
        Vec::into_iter(taken).map(|(_, bound): (Listen, Bound)| bound).collect()
    }

    fn add(&mut self, wanted: Option<Wanted>, idle: Vec<Bound>) -> &mut Server {
        let id = ServerId(u32::try_from(self.servers.len()).unwrap_or(u32::MAX));
        let addresses = idle.iter().map(|bound| bound.address.clone()).collect();
        let place = self.servers.len();
        self.servers.push(Server { id, wanted, shared: false, idle, addresses });
        &mut self.servers[place]
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
        assert_eq!(servers.claim_for_messages(Listens::Never), Ok(first));
    }

    #[test]
    fn configured_addresses_feed_the_first_server_and_named_ones_their_own() {
        let servers = servers(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0=9100"]);
        let (metrics, _) = servers.claim(&wanted(9100)).unwrap();
        let (main, _) = servers.claim(&wanted(3000)).unwrap();
        assert_ne!(main, metrics);
        assert_eq!((servers.take_idle(main).len(), servers.take_idle(metrics).len()), (2, 1));
        assert_eq!(servers.addresses().len(), 3);
        assert_eq!(servers.claim_for_messages(Listens::Never), Ok(main), "not the first that came");
    }

    #[test]
    fn those_that_never_listen_and_the_first_that_does_share_a_server() {
        let servers = servers(&["127.0.0.1:0", "127.0.0.1:0=9100"]);
        let shared = servers.claim_for_messages(Listens::Never).unwrap();
        let (metrics, _) = servers.claim(&wanted(9100)).unwrap();
        let (main, address) = servers.claim(&wanted(3000)).unwrap();
        assert_eq!(main, shared);
        assert_ne!(main, metrics);
        assert!(servers.addresses().contains(&address));
        assert_eq!(servers.claim(&wanted(3000)).unwrap(), (main, address), "the second worker gets the same");
        assert_ne!(servers.claim(&wanted(0)).unwrap().0, main, "another server is another");
    }

    #[test]
    fn one_that_takes_messages_may_listen_for_something_else() {
        let servers = servers(&["127.0.0.1:0"]);
        let main = servers.claim_for_messages(Listens::Perhaps).unwrap();
        assert_ne!(servers.claim(&wanted(0)).unwrap().0, main);
        assert_eq!(servers.claim_for_messages(Listens::Never), Ok(main));
    }

    #[test]
    fn workers_that_take_messages_need_a_configured_address() {
        assert_eq!(servers(&[]).claim_for_messages(Listens::Perhaps), Err(Errno::EDESTADDRREQ));
        assert!(servers(&["127.0.0.1:0"]).claim_for_messages(Listens::Perhaps).is_ok());
    }
}
