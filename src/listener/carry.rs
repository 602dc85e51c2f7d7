//! Servers and their listeners as the next program is to find them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::servers::{Inner, Server, Servers};
use super::{Bound, Listen};
use crate::types::Opening;
use crate::upgrade::{Incoming, Outgoing, state};

impl Servers {
    /// What the next program must know, whose listeners these are then.
    pub fn carry(&self, out: &mut Outgoing) -> state::Servers {
        let inner = self.lock();
        let unclaimed = inner.unclaimed.iter();
        state::Servers {
            unclaimed: unclaimed
                .map(|(listen, bound)| state::Unclaimed { listen: listen.carry(), bound: bound.carry(out) })
                .collect(),
            mains: inner.mains.iter().map(|(pool, id)| (pool.to_string(), *id)).collect(),
            apart: inner.apart.iter().map(ToString::to_string).collect(),
            servers: inner.servers.iter().map(|server| server.carry(out)).collect(),
        }
    }

    /// The servers of the program before. None of them is served yet.
    ///
    /// # Errors
    /// When a descriptor has not come along.
    pub fn resume(
        carried: state::Servers,
        incoming: &mut Incoming,
        default: Opening,
        defer: Duration,
    ) -> io::Result<Self> {
        let mut unclaimed = Vec::new();
        for state::Unclaimed { listen, bound } in carried.unclaimed {
            unclaimed.push((Listen::resume(listen), Bound::resume(bound, incoming)?));
        }
        let mut servers = Vec::new();
        for server in carried.servers {
            servers.push(Server::resume(server, incoming)?);
        }
        let mains: HashMap<_, _> = carried.mains.into_iter().map(|(pool, id)| (pool.into(), id)).collect();
        let apart: HashSet<_> = carried.apart.into_iter().map(Arc::from).collect();
        let inner = Inner { unclaimed, mains, apart, servers };
        Ok(Self::of(inner, default, defer))
    }
}

impl Server {
    fn carry(&self, out: &mut Outgoing) -> state::Server {
        let listeners = self.listeners.iter();
        state::Server {
            id: self.id,
            pool: self.pool.as_deref().map(str::to_owned),
            serves: self.serves,
            wanted: self.wanted.iter().map(|(pool, it)| (pool.to_string(), it.clone())).collect(),
            shared: self.shared.iter().map(ToString::to_string).collect(),
            listeners: listeners
                .map(|listener| state::Listener {
                    listen: listener.listen.as_ref().map(Listen::carry),
                    address: listener.address.clone(),
                    bound: listener.bound.upgrade().map(|bound| bound.carry(out)),
                })
                .collect(),
            data: self.data.clone(),
        }
    }

    fn resume(carried: state::Server, incoming: &mut Incoming) -> io::Result<Self> {
        let state::Server { id, pool, serves, wanted, shared, listeners, data } = carried;
        let mut server = Self {
            id,
            pool: pool.map(Arc::from),
            serves,
            wanted: wanted.into_iter().map(|(pool, it)| (pool.into(), it)).collect(),
            shared: shared.into_iter().map(Arc::from).collect(),
            idle: Vec::new(),
            listeners: Vec::new(),
            data,
        };
        for state::Listener { listen, address, bound } in listeners {
            let listen = listen.map(Listen::resume);
            match bound {
                Some(bound) => server.feed(listen, Bound::resume(bound, incoming)?),
                None => drop(server.list(listen, address, Weak::new())),
            }
        }
        Ok(server)
    }
}

impl Listen {
    fn carry(&self) -> state::Listen {
        state::Listen {
            address: self.address.clone(),
            serves: self.serves,
            pool: self.pool.as_deref().map(str::to_owned),
            opening: self.opening,
        }
    }

    fn resume(carried: state::Listen) -> Self {
        let state::Listen { address, serves, pool, opening } = carried;
        Self { address, serves, pool: pool.map(Arc::from), opening }
    }
}

impl Bound {
    fn carry(&self, out: &mut Outgoing) -> state::Bound {
        state::Bound {
            address: self.address.clone(),
            opening: self.opening,
            ours: self.is_ours(),
            socket: out.add(self),
        }
    }

    fn resume(carried: state::Bound, incoming: &mut Incoming) -> io::Result<Self> {
        let state::Bound { address, opening, ours, socket } = carried;
        Ok(Self::of(address, opening, ours, incoming.take(socket)?))
    }
}
