//! The workers as the next program is to find them: nothing of what they have said, and of what is under
//! way to them, is lost. The processes and their channels notice nothing.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sidetrack_worker::wire::ServerQuery;

use super::fleet::Fleet;
use super::turnover::Succession;
use super::worker::{Parcel, Pending, Profile, State, Worker};
use crate::handoff::{Routed, Window};
use crate::types::Roster;
use crate::upgrade::state;
use crate::upgrade::{Incoming, Outgoing};

impl Fleet {
    /// What the next program must know.
    pub fn carry(&self, out: &mut Outgoing) -> state::Fleet {
        let now = Instant::now();
        let members = self.lock();
        let left = |deadline: Option<Instant>| deadline.map(|at| at.saturating_duration_since(now));
        let waiting = members.succession.iter().map(|(slot, order)| (slot, &order.deadline));
        let orders = waiting.chain(&members.succeeding);
        state::Fleet {
            next_id: members.next_id,
            version: members.roster.version,
            roster: members.roster.workers.to_vec(),
            workers: members.workers.iter().map(|worker| worker.carry(out, now)).collect(),
            parting: members.parting.clone(),
            opened: members.opened.clone(),
            draining: members.draining.iter().map(|(id, deadline)| (*id, left(*deadline))).collect(),
            vacant: members.vacant.iter().cloned().collect(),
            succession: orders.map(|(slot, deadline)| (slot.clone(), left(*deadline))).collect(),
            closing: members.slots.closing().cloned().collect(),
            adapters: members.adapters.names().map(|(name, id)| (name.to_owned(), id)).collect(),
        }
    }

    /// Takes the workers of the program before over. Whoever keeps a slot finds them there.
    ///
    /// # Errors
    /// When a descriptor has not come along.
    pub fn resume(&self, carried: state::Fleet, incoming: &mut Incoming) -> io::Result<()> {
        let now = Instant::now();
        let at = |left: Option<Duration>| left.map(|left| now + left);
        let settings = self.settings.whole();
        // Whoever wants to know what comes of it asks again.
        let order = |left| Succession { deadline: at(left), told: None };
        let mut workers = Vec::new();
        for worker in carried.workers {
            workers.push(Arc::new(Worker::resume(worker, &settings, incoming, now)?));
        }
        workers.sort_unstable_by_key(|worker| worker.id);
        {
            let mut members = self.lock();
            members.next_id = carried.next_id;
            members.roster = Roster { version: carried.version, workers: carried.roster.into() };
            let of = |id| workers.iter().find(|worker| worker.id == id).cloned();
            members.ready = members.roster.workers.iter().filter_map(|info| of(info.id)).collect();
            members.workers = workers;
            members.parting = carried.parting;
            members.draining = carried.draining.into_iter().map(|(id, left)| (id, at(left))).collect();
            members.vacant = carried.vacant.into_iter().collect();
            members.succession =
                carried.succession.into_iter().map(|(slot, left)| (slot, order(left))).collect();
            members.slots.resume(carried.closing);
            for (name, id) in carried.adapters {
                members.adapters.note(name, id);
            }
        }
        for server in carried.opened {
            self.open(server);
        }
        // The settings may name other weights and labels by now.
        self.refresh_if_changed();
        Ok(())
    }
}

impl Worker {
    fn carry(&self, out: &mut Outgoing, now: Instant) -> state::Worker {
        let state = self.lock();
        let (inbound, descriptors) = state.channel.unread();
        let (sessions, sockets) = self.load.exact();
        state::Worker {
            id: self.id,
            slot: self.slot.clone(),
            pid: self.pid,
            origin: self.origin,
            socket: out.add(&self.socket),
            sessions,
            sockets,
            handed_off: self.handed_off.get(),
            handed_back: self.handed_back.get(),
            channel: state::Channel {
                inbound: state::Bytes(inbound.to_vec()),
                descriptors: descriptors.map(|descriptor| descriptor.map(|it| out.add(it))).collect(),
                outbound: state::Bytes(state.channel.unwritten().to_vec()),
            },
            window: state.window.carry(now, |parcel| parcel.carry(out)),
            profile: state.profile.carry(now),
            sequence: state.sequence,
            asked: state.asked,
        }
    }

    fn resume(
        carried: state::Worker,
        settings: &super::Settings,
        incoming: &mut Incoming,
        now: Instant,
    ) -> io::Result<Self> {
        let socket = UnixStream::from(incoming.take(carried.socket)?);
        let worker = Self::new(carried.id, carried.slot, carried.pid, socket, carried.origin, settings);
        worker.load.set(carried.sessions, carried.sockets);
        worker.handed_off.add(carried.handed_off);
        worker.handed_back.add(carried.handed_back);
        {
            let mut state = worker.lock();
            let State { channel, window, profile, sequence, asked, .. } = &mut *state;
            let state::Channel { inbound, descriptors, outbound } = carried.channel;
            let mut came = Vec::new();
            for number in descriptors {
                came.push(number.map(|number| incoming.take(number)).transpose()?);
            }
            channel.resume(&inbound.0, came, &outbound.0);
            let (limit, room) = (settings.window, settings.queue);
            *window =
                Window::resume(limit, room, carried.window, now, |parcel| Parcel::resume(parcel, incoming))?;
            *profile = Profile::resume(carried.profile, now);
            (*sequence, *asked) = (carried.sequence, carried.asked);
        }
        Ok(worker)
    }
}

impl Parcel {
    fn carry(&self, out: &mut Outgoing) -> state::Parcel {
        match self {
            Self::Client(routed) => state::Parcel::Client(Box::new(routed.carry(out))),
            Self::Probe(end) => state::Parcel::Probe(out.add(end)),
        }
    }

    fn resume(carried: state::Parcel, incoming: &mut Incoming) -> io::Result<Self> {
        Ok(match carried {
            state::Parcel::Client(routed) => Self::Client(Box::new(Routed::resume(*routed, incoming)?)),
            state::Parcel::Probe(end) => Self::Probe(incoming.take(end)?),
        })
    }
}

impl Profile {
    fn carry(&self, now: Instant) -> state::Profile {
        let age = |moment: Option<Instant>| moment.map(|moment| now.saturating_duration_since(moment));
        state::Profile {
            standing: self.standing,
            servers: self.servers.iter().map(|(id, key)| (*id, key.clone())).collect(),
            keys: self.keys.iter().map(|(key, id)| (key.clone(), *id)).collect(),
            pending: self.pending.iter().map(Pending::carry).collect(),
            messages: self.messages,
            listens: self.listens,
            online: self.online,
            reports: self.reports,
            never_listens: self.never_listens,
            replays: self.replays,
            ready_for: age(self.ready_since),
            faults: self.faults,
            unfit: self.unfit.clone(),
        }
    }

    fn resume(carried: state::Profile, now: Instant) -> Self {
        let then = |age: Option<Duration>| age.map(|age| now.checked_sub(age).unwrap_or(now));
        Self {
            standing: carried.standing,
            servers: carried.servers.into_iter().collect(),
            keys: carried.keys.into_iter().collect::<HashMap<_, _>>(),
            pending: carried.pending.into_iter().map(Pending::resume).collect(),
            messages: carried.messages,
            listens: carried.listens,
            online: carried.online,
            reports: carried.reports,
            never_listens: carried.never_listens,
            replays: carried.replays,
            ready_since: then(carried.ready_for),
            faults: carried.faults,
            unfit: carried.unfit,
            refused: None,
        }
    }
}

impl Pending {
    fn carry(&self) -> state::Pending {
        let Self { server, key, query } = self;
        state::Pending {
            server: *server,
            key: key.clone(),
            seq: query.seq,
            address: query.address.as_deref().map(str::to_owned),
            port: query.port,
            address_type: query.address_type.as_ref().to_owned(),
            fd: query.fd,
            index: query.index,
        }
    }

    fn resume(carried: state::Pending) -> Self {
        let state::Pending { server, key, seq, address, port, address_type, fd, index } = carried;
        let (address, address_type) = (address.map(Into::into), address_type.into());
        // It was answered.
        let data = Value::Null;
        Self { server, key, query: ServerQuery { seq, address, port, address_type, fd, index, data } }
    }
}
