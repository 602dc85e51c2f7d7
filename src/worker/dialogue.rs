//! What a worker says, and what follows from it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use sidetrack_worker::wire::{FromWorker, Oversized, ServerQuery, encode};

use super::channel::Reading;
use super::fleet::{Fleet, HandedBack, Why};
use super::node::{self, Asked};
use super::supervisor::Fatal;
use super::worker::{Parcel, Pending, Profile, Standing, Worker};
use crate::handoff::Routed;
use crate::listener::{Claimed, Listens};
use crate::policy;
use crate::session::{Closed, Opened};
use crate::telemetry::{Event, Telemetry};
use crate::types::ServerId;

/// Lines that make no sense before a worker is replaced.
const MOST_FAULTS: u32 = 100;

/// How much is read from a channel at once.
const READ_SIZE: usize = 64 * 1024;

/// Why a channel can no longer be listened to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the worker closed its channel")]
    Closed,
    #[error("the channel broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the worker sent {0}")]
    Oversized(#[from] Oversized),
    #[error("the worker sent too many lines that make no sense")]
    Rubbish,
}

thread_local! {
    /// One buffer for every read on this thread: reading never waits.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// What a message leads to beyond the worker's own state. Done once its lock is released, since
/// it concerns others.
#[derive(Debug)]
enum Effect {
    Reply(&'static [u8]),
    Query(Box<Question>),
    /// Can take connections for a server.
    Ready(ServerId),
    /// Can take connections as messages.
    ReadyForMessages,
    /// Its standing has changed.
    Refresh,
    /// Its program has closed a server.
    Closed(ServerId),
    Leaving(u64),
    Declined(Box<Routed>),
    HandedBack {
        socket: OwnedFd,
        /// Of the server, which may have become ready in the same breath: looked up in its turn.
        key: Option<String>,
        data: Box<[u8]>,
        peer: Option<SocketAddr>,
    },
    Relay {
        uid: Option<String>,
        requester: Option<String>,
        line: Vec<u8>,
    },
    Wrapper(String),
}

/// A `listen()` waiting for its answer.
#[derive(Debug)]
struct Question {
    key: String,
    asked: Asked,
    query: ServerQuery<'static>,
}

/// Reads everything the worker has said so far and acts on it. Never waits.
///
/// # Errors
/// When nothing more will come.
pub fn listen(fleet: &Fleet, worker: &Worker) -> Result<(), Ended> {
    let mut broken = None;
    loop {
        let mut effects = Vec::new();
        let reading = hear(fleet, worker, &mut effects);
        for effect in effects {
            apply(fleet, worker, effect);
        }
        if broken.is_none() && worker.wants_room() {
            // Acknowledgements have made room for those that wait. Should the worker be gone, what it
            // said before is heard all the same: there may be connections in it.
            broken = fleet.flush(worker, Instant::now()).err();
        }
        match reading? {
            Reading::More => {}
            Reading::Drained => return broken.map_or(Ok(()), |error| Err(error.into())),
            Reading::Closed => return Err(Ended::Closed),
        }
    }
}

/// A worker that takes connections as messages has shown that it is ready.
pub fn ready_for_messages(fleet: &Fleet, worker: &Worker) {
    let listens = if worker.lock().profile.never_listens { Listens::Never } else { Listens::Perhaps };
    match fleet.servers.claim_for_messages(&fleet.reports.pool, listens) {
        Ok(server) => {
            worker.lock().profile.messages = Some(server);
            ready(fleet, worker);
            fleet.open(server);
        }
        Err(_) => fleet.unfit(worker, Fatal::NoAddress { slot: worker.slot.clone() }),
    }
}

fn hear(fleet: &Fleet, worker: &Worker, effects: &mut Vec<Effect>) -> Result<Reading, Ended> {
    let mut state = worker.lock();
    let state = &mut *state;
    let reading = BUFFER.with_borrow_mut(|buffer| state.channel.read(&worker.socket, buffer))?;
    let counters = &fleet.telemetry.counters;
    while let Some(line) = state.channel.line()? {
        match FromWorker::parse(line) {
            Ok(FromWorker::HandleAck) => match state.window.acknowledged() {
                Ok(Some(parcel)) => delivered(&fleet.telemetry, worker, state.profile.reports, parcel),
                Ok(None) => {}
                Err(_) => fault(&fleet.telemetry, &mut state.profile.faults),
            },
            Ok(FromWorker::Accepted { ack, accepted }) => match (state.window.answered(ack), accepted) {
                (Some(parcel), true) => delivered(&fleet.telemetry, worker, state.profile.reports, parcel),
                (Some(Parcel::Client(routed)), false) => effects.push(Effect::Declined(routed)),
                (Some(Parcel::Probe(_)) | None, _) => {}
            },
            Ok(FromWorker::HandleNack) => match state.window.lost() {
                Ok(Parcel::Client(routed)) => effects.push(Effect::Declined(routed)),
                Ok(Parcel::Probe(_)) => {}
                Err(_) => fault(&fleet.telemetry, &mut state.profile.faults),
            },
            Ok(FromWorker::SessionOpened { sid, ends }) => {
                let sessions = &fleet.sessions;
                let opened = if ends {
                    sessions.open(&sid, worker.id)
                } else {
                    sessions.open_fleeting(&sid, worker.id)
                };
                match opened {
                    Opened::New => {
                        counters.sessions_opened.one();
                        // One whose end will not be seen can be no part of the load.
                        if ends {
                            worker.load.session_opened();
                            let event = policy::Event::SessionOpened { sid: &sid, worker: worker.id };
                            fleet.notice(event);
                        }
                    }
                    Opened::Known => {}
                    Opened::Taken | Opened::Full => counters.sessions_refused.one(),
                }
            }
            Ok(FromWorker::SessionClosed { sid }) => {
                let closed = fleet.sessions.close(&sid, worker.id);
                if closed != Closed::NotIts {
                    counters.sessions_closed.one();
                }
                if closed == Closed::Announced {
                    worker.load.session_closed();
                    fleet.notice(policy::Event::SessionClosed { sid: &sid, worker: worker.id });
                }
            }
            Ok(FromWorker::SocketsClosed { count }) => {
                counters.sockets_closed.add(count);
                worker.load.sockets_closed(count);
            }
            Ok(FromWorker::Adapter(message)) => effects.push(Effect::Relay {
                uid: message.uid.map(Into::into),
                requester: message.requester.map(Into::into),
                line: line.to_vec(),
            }),
            Ok(FromWorker::HandBack(back)) => {
                let (data, peer, key) = (back.data(), back.peer(), back.key.map(Cow::into_owned));
                let Some(socket) = state.channel.descriptor() else {
                    effects.push(Effect::Reply(encode::HANDLE_NACK));
                    continue;
                };
                effects.push(Effect::Reply(encode::HANDLE_ACK));
                match data {
                    Some(data) => {
                        let data = data.into_boxed_slice();
                        effects.push(Effect::HandedBack { socket, key, data, peer });
                    }
                    None => fault(&fleet.telemetry, &mut state.profile.faults),
                }
            }
            // A worker that sends a handle waits for the answer before it sends anything else.
            Ok(FromWorker::Handle) => {
                drop(state.channel.descriptor());
                fault(&fleet.telemetry, &mut state.profile.faults);
                effects.push(Effect::Reply(encode::HANDLE_ACK));
            }
            Ok(message) => rare(message, &mut state.profile, effects),
            Err(_) => fault(&fleet.telemetry, &mut state.profile.faults),
        }
        if state.profile.faults > MOST_FAULTS {
            return Err(Ended::Rubbish);
        }
    }
    counters.channel_errors.add(state.channel.close_surplus() as u64);
    if state.profile.standing == Standing::Unresponsive && state.window.oldest().is_none() {
        // It has caught up.
        state.profile.standing = Standing::Ready;
        effects.push(Effect::Refresh);
    }
    Ok(reading)
}

/// Messages that come a few times in a worker's life.
fn rare(message: FromWorker<'_>, profile: &mut Profile, effects: &mut Vec<Effect>) {
    match message {
        FromWorker::Online => profile.online = true,
        FromWorker::Hello { replays, .. } => {
            profile.reports = true;
            profile.replays = replays;
        }
        FromWorker::Listens => profile.listens = true,
        FromWorker::Ready { replays } => {
            // The shim says so too, when it joins again, and greets first.
            profile.never_listens = !profile.reports;
            profile.reports = true;
            profile.replays = replays;
            effects.push(Effect::ReadyForMessages);
        }
        FromWorker::Query(query) => {
            let query = owned(query);
            let (key, asked) = (node::key(&query), node::asked(&query));
            effects.push(Effect::Query(Box::new(Question { key, asked, query })));
        }
        FromWorker::Listening(query) => {
            for place in 0..profile.pending.len() {
                if means(&profile.pending[place].query, &query) {
                    let pending = profile.pending.swap_remove(place);
                    profile.keys.insert(pending.key.clone(), pending.server);
                    profile.servers.insert(pending.server, pending.key);
                    effects.push(Effect::Ready(pending.server));
                    break;
                }
            }
        }
        FromWorker::ServerClosed { key } => {
            let closed = profile.servers.extract_if(|_, known| *known == key);
            effects.extend(closed.map(|(server, _)| Effect::Closed(server)));
            // Closed so soon that it has never said that it listens.
            let closed = profile.pending.extract_if(.., |pending| pending.key == key);
            effects.extend(closed.map(|pending| Effect::Closed(pending.server)));
            if profile.servers.is_empty() && profile.messages.is_none() && profile.standing == Standing::Ready
            {
                profile.standing = Standing::Starting;
                effects.push(Effect::Refresh);
            }
        }
        FromWorker::Leaving { seq } => {
            profile.standing = Standing::Leaving;
            effects.push(Effect::Leaving(seq));
        }
        FromWorker::Wrapper { name } => effects.push(Effect::Wrapper(name.into())),
        _ => {}
    }
}

fn apply(fleet: &Fleet, worker: &Worker, effect: Effect) {
    match effect {
        Effect::Reply(message) => drop(worker.say(message)),
        Effect::Query(question) => answer(fleet, worker, *question),
        Effect::Ready(server) => {
            ready(fleet, worker);
            fleet.open(server);
            // It may be one more of several, for which connections wait.
            fleet.refresh();
        }
        Effect::ReadyForMessages => ready_for_messages(fleet, worker),
        Effect::Refresh => fleet.refresh(),
        Effect::Closed(server) => closed(fleet, worker, server),
        Effect::Leaving(seq) => {
            let sequence = worker.lock().next_sequence();
            worker.say(&encode::acknowledged(seq, sequence));
            fleet.refresh();
        }
        Effect::Declined(routed) => fleet.give_back(vec![routed], Why::Declined, worker.id),
        Effect::HandedBack { socket, key, data, peer } => {
            let server = worker.lock().profile.server_of(key.as_deref());
            match server {
                Some(server) => {
                    worker.handed_back.one();
                    fleet.hand_back(HandedBack { socket, server, data, peer });
                }
                None => fault(&fleet.telemetry, &mut worker.lock().profile.faults),
            }
        }
        Effect::Relay { uid, requester, line } => {
            fleet.relay(worker.id, uid.as_deref(), requester.as_deref(), &line);
        }
        Effect::Wrapper(name) => fleet.unfit(worker, Fatal::Wrapper { name }),
    }
}

/// A program has closed one of its servers. When no other worker has it, nobody listens there any more; but one that
/// is asked to leave closes all of them, and others follow.
fn closed(fleet: &Fleet, worker: &Worker, server: ServerId) {
    let leaves = {
        let state = worker.lock();
        state.asked || state.profile.standing == Standing::Leaving
    };
    let has = |other: &Worker| {
        let profile = &other.lock().profile;
        profile.servers.contains_key(&server)
            || profile.pending.iter().any(|pending| pending.server == server)
            || profile.messages == Some(server)
    };
    if !leaves && !fleet.workers().iter().any(|other| has(other)) {
        fleet.servers.release(&fleet.reports.pool, server);
    }
}

/// Tells a `listen()` where it listens: on a socket of ours, whatever it believes.
fn answer(fleet: &Fleet, worker: &Worker, Question { key, asked, query }: Question) {
    let claimed = match asked {
        Asked::Stream(wanted) => {
            fleet.servers.claim(&fleet.reports.pool, &wanted, &query.data).map_err(|error| {
                let errno = error.source.raw_os_error().unwrap_or(Errno::EIO as i32);
                // The program may know what to do. If it ends with it, that is why.
                worker.lock().profile.refused = Some(error);
                errno
            })
        }
        Asked::Unsupported(errno) => {
            fleet
                .telemetry
                .emit(Event::UnsupportedListen { worker: &worker.slot, kind: &query.address_type });
            Err(errno as i32)
        }
    };
    let sequence = worker.lock().next_sequence();
    let message = match claimed {
        Ok(Claimed { server, address, data }) => {
            let name = node::socket_name(&query, &address);
            let message = encode::query_accepted(query.seq, sequence, &key, &name, &data);
            worker.lock().profile.pending.push(Pending { server, key, query });
            message
        }
        Err(errno) => encode::query_refused(query.seq, sequence, &key, -errno),
    };
    worker.say(&message);
}

fn ready(fleet: &Fleet, worker: &Worker) {
    {
        let mut state = worker.lock();
        if state.profile.standing != Standing::Starting {
            return;
        }
        state.profile.standing = Standing::Ready;
        state.profile.ready_since.get_or_insert_with(Instant::now);
    }
    fleet.telemetry.emit(Event::WorkerReady { worker: &worker.slot, pid: worker.pid });
    fleet.refresh();
}

/// The worker has taken a connection into its hands: our copy goes.
fn delivered(telemetry: &Telemetry, worker: &Worker, reports: bool, parcel: Parcel) {
    if let Parcel::Client(routed) = parcel {
        telemetry.counters.acknowledged.one();
        if reports {
            worker.load.socket_given();
        }
        drop(routed);
    }
}

fn fault(telemetry: &Telemetry, faults: &mut u32) {
    telemetry.counters.channel_errors.one();
    *faults += 1;
}

/// True when a `listening` speaks of the server that a query asked for. It names the true port
/// where the query asked for any.
fn means(query: &ServerQuery<'_>, listening: &ServerQuery<'_>) -> bool {
    query.address == listening.address
        && query.address_type == listening.address_type
        && query.index == listening.index
        && (query.port == 0 || query.port == listening.port)
}

fn owned(query: ServerQuery<'_>) -> ServerQuery<'static> {
    ServerQuery {
        seq: query.seq,
        address: query.address.map(|address| address.into_owned().into()),
        port: query.port,
        address_type: query.address_type.into_owned().into(),
        fd: query.fd,
        index: query.index,
        data: query.data,
    }
}
