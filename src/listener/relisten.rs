//! Other addresses while connections flow: what is new is bound first, and nothing changes if one cannot be.

use std::time::Duration;

use super::servers::{Idle, Inner, Server, Servers};
use super::{BindError, Bound, Listen, ListenAddress, bind};
use crate::types::ServerId;

/// Why the addresses stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum RelistenError {
    #[error(transparent)]
    Bind(BindError),
    #[error(
        "cannot listen on {0}: the listener that this very change takes away still has the port; take it away first, in a change of its own"
    )]
    Own(ListenAddress),
    #[error("the workers take connections as messages and name no port themselves; say where to listen")]
    NoAddress,
}

/// A change of listeners, with all that is new bound. To be carried out before anything else happens to
/// the servers, or dropped.
#[derive(Debug)]
pub struct Relisten {
    servers: Vec<Change>,
    unclaimed: Vec<(Listen, Option<Bound>)>,
}

/// What changes for one server.
#[derive(Debug)]
struct Change {
    id: ServerId,
    /// Listeners that stay, by their place, and as what.
    kept: Vec<(usize, Option<Listen>)>,
    fresh: Vec<(Option<Listen>, Bound)>,
}

impl Servers {
    /// Binds what another configuration wants in addition.
    ///
    /// # Errors
    /// Everything that stands against it; nothing is bound then.
    pub fn prepare(&self, listens: &[Listen], defer: Duration) -> Result<Relisten, Vec<RelistenError>> {
        let inner = self.lock();
        let (mut errors, mut left) = (Vec::new(), listens.to_vec());
        let opening = |listen: &Listen| listen.opening.unwrap_or(self.opening);
        let mut bind = |address: &ListenAddress, opening| match bind(address, opening, defer) {
            Ok(bound) => Some(bound),
            Err(error) => {
                errors.push(if inner.leaves(address, listens) {
                    RelistenError::Own(address.clone())
                } else {
                    RelistenError::Bind(error)
                });
                None
            }
        };
        let mut servers = Vec::new();
        let mut nowhere = false;
        for server in inner.servers.iter().filter(|server| !server.is_gone()) {
            let target = inner.target(server, listens);
            left.retain(|listen| !target.contains(listen));
            let own = server.own();
            nowhere |= target.is_empty() && own.is_none();
            let (kept, missing) = plan(server, target, own);
            let address =
                |listen: &Option<Listen>| listen.as_ref().map(|listen| &listen.address).or(own).cloned();
            let missing = missing.into_iter().filter_map(|listen| Some((address(&listen)?, listen)));
            let fresh = missing.filter_map(|(address, listen)| {
                let opening = listen.as_ref().map_or(self.opening, opening);
                Some((listen, bind(&address, opening)?))
            });
            let fresh = fresh.collect();
            servers.push(Change { id: server.id, kept, fresh });
        }
        let mut waiting: Vec<&Listen> = inner.unclaimed.iter().map(|(listen, _)| listen).collect();
        let mut unclaimed = Vec::new();
        for listen in left {
            let known = waiting.iter().position(|other| **other == listen);
            match known {
                Some(place) => {
                    waiting.swap_remove(place);
                    unclaimed.push((listen, None));
                }
                None => {
                    let bound = bind(&listen.address, opening(&listen));
                    unclaimed.push((listen, bound));
                }
            }
        }
        if nowhere {
            errors.push(RelistenError::NoAddress);
        }
        if errors.is_empty() { Ok(Relisten { servers, unclaimed }) } else { Err(errors) }
    }

    /// Carries a change out: listeners that are not wanted close, connections they have accepted go on.
    /// Returns the servers that have new ones to be served.
    pub fn relisten(&self, change: Relisten) -> Vec<ServerId> {
        let mut inner = self.lock();
        let mut fed = Vec::new();
        for Change { id, kept, fresh } in change.servers {
            let Some(server) = inner.servers.iter_mut().find(|server| server.id == id) else { continue };
            let mut before: Vec<_> = std::mem::take(&mut server.listeners).into_iter().map(Some).collect();
            for (place, listen) in kept {
                if let Some(mut listener) = before.get_mut(place).and_then(Option::take) {
                    listener.listen = listen;
                    server.listeners.push(listener);
                }
            }
            // What is left of them is dropped, and with it what is still idle.
            drop(before);
            server.idle.retain_mut(Idle::is_wanted);
            if !fresh.is_empty() {
                fed.push(id);
            }
            fresh.into_iter().for_each(|(listen, bound)| server.feed(listen, bound));
        }
        let mut before = std::mem::take(&mut inner.unclaimed);
        for (listen, bound) in change.unclaimed {
            let known = || {
                let place = before.iter().position(|(other, _)| *other == listen)?;
                Some(before.swap_remove(place).1)
            };
            if let Some(bound) = bound.or_else(known) {
                inner.unclaimed.push((listen, bound));
            }
        }
        self.tell();
        fed
    }
}

impl Inner {
    /// The configured addresses that feed a server: those of its pool, or of all, that name its port; and
    /// those that name none for a main one.
    fn target(&self, server: &Server, listens: &[Listen]) -> Vec<Listen> {
        let apart = server.pool.as_ref().filter(|pool| self.apart.contains(*pool));
        let main = match &server.pool {
            Some(pool) => self.mains.get(pool) == Some(&server.id),
            None => server.serves.is_none(),
        };
        let port = server.serves.or_else(|| match server.own()? {
            ListenAddress::Tcp { port, .. } => Some(*port),
            ListenAddress::Unix(_) => None,
        });
        let feeds = |listen: &&Listen| {
            listen.pool.as_ref() == apart
                && match listen.serves {
                    Some(serves) => port == Some(serves),
                    None => main,
                }
        };
        listens.iter().filter(feeds).cloned().collect()
    }

    /// Whether an address is in the way of another one only until the change is carried out.
    fn leaves(&self, wanted: &ListenAddress, listens: &[Listen]) -> bool {
        let ListenAddress::Tcp { port, .. } = wanted else { return false };
        let own = self.servers.iter().flat_map(|server| &server.listeners);
        let own = own.map(|listener| (listener.listen.as_ref(), &listener.address));
        let waiting = self.unclaimed.iter().map(|(listen, bound)| (Some(listen), &bound.address));
        let stays = |listen: Option<&Listen>| listen.is_some_and(|listen| listens.contains(listen));
        let same = |address: &ListenAddress| matches!(address, ListenAddress::Tcp { port: other, .. } if other == port);
        own.chain(waiting).any(|(listen, address)| same(address) && !stays(listen))
    }
}

impl Server {
    /// Where its only pool's program wanted it to be.
    fn own(&self) -> Option<&ListenAddress> {
        let mut wanted = self.wanted.values();
        wanted.next().filter(|_| wanted.next().is_none()).map(|wanted| &wanted.address)
    }
}

/// Listeners that stay, by their place and as what, and those that are missing.
type Plan = (Vec<(usize, Option<Listen>)>, Vec<Option<Listen>>);

/// Which listeners of a server stay, and what is missing then. `None` is the listener of the program's own
/// choice, which a server without any configured one has.
fn plan(server: &Server, target: Vec<Listen>, own: Option<&ListenAddress>) -> Plan {
    let mut present: Vec<Option<(Option<&Listen>, &ListenAddress)>> =
        server.listeners.iter().map(|listener| Some((listener.listen.as_ref(), &listener.address))).collect();
    let mut take = |fits: &dyn Fn(Option<&Listen>, &ListenAddress) -> bool| {
        let place =
            present.iter().position(|other| other.is_some_and(|(listen, address)| fits(listen, address)))?;
        present[place] = None;
        Some(place)
    };
    let wanted: Vec<Option<Listen>> =
        if target.is_empty() { vec![None] } else { target.into_iter().map(Some).collect() };
    let (mut kept, mut missing) = (Vec::new(), Vec::new());
    for listen in wanted {
        match take(&|other, _| other == listen.as_ref()) {
            Some(place) => kept.push((place, listen)),
            None => missing.push(listen),
        }
    }
    // One that listens there already, for another reason.
    missing.retain(|listen| {
        let Some(address) = listen.as_ref().map(|listen| &listen.address).or(own) else { return true };
        let place = take(&|_, other| other == address);
        kept.extend(place.map(|place| (place, listen.clone())));
        place.is_none()
    });
    (kept, missing)
}
