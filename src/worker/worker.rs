//! One worker process, as seen from here.

use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sidetrack_worker::wire::{ServerQuery, encode};
use tokio::sync::Notify;

use super::channel::{Channel, Sending};
use super::mixing::Traffic;
use super::{Origin, Settings};
use crate::handoff::{Follows, Queued, Routed, Window};
use crate::listener::BindError;
use crate::telemetry::Counter;
use crate::types::{ServerId, WorkerId};

/// A message up to this length arrives in one read, which ends behind it: the kernel joins no two
/// messages that carry descriptors. The rest of a longer one comes in further reads, and the last of them
/// brings the next message's descriptor as well, which Node then takes for that of the long one.
const LONGEST_WHOLE: usize = 16 * 1024;

/// A worker process and everything under way to it.
#[derive(Debug)]
pub struct Worker {
    pub id: WorkerId,
    /// `w0`, `w1`, …
    pub slot: String,
    pub pid: u32,
    pub origin: Origin,
    pub socket: UnixStream,
    pub load: Load,
    /// Connections sent to it, and those it has handed back.
    pub handed_off: Counter,
    pub handed_back: Counter,
    /// Told when something waits to be written.
    pub nudge: Notify,
    state: Mutex<State>,
    /// Hand-offs under way, as of when the lock was last released: every connection's routing wants to know
    /// it of every worker, and takes no lock for it.
    under_way: AtomicU32,
}

/// A worker's state, locked.
#[derive(Debug)]
pub struct Locked<'a> {
    state: MutexGuard<'a, State>,
    under_way: &'a AtomicU32,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let under_way = self.state.window.waiting() + self.state.window.pending();
        self.under_way.store(u32::try_from(under_way).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// What a worker carries.
#[derive(Debug, Default)]
pub struct Load {
    sessions: AtomicI64,
    sockets: AtomicI64,
}

/// Everything that changes under the lock.
#[derive(Debug)]
pub struct State {
    pub channel: Channel,
    pub window: Window<Parcel>,
    pub profile: Profile,
    /// The last descriptor met a limit that no socket tells the end of.
    crowded: bool,
    pub sequence: u64,
    /// It was asked to leave.
    pub asked: bool,
    message: Vec<u8>,
}

/// What is known of a worker from what it has said.
#[derive(Debug, Default)]
pub struct Profile {
    pub standing: Standing,
    /// The worker's listening servers and the keys by which it knows them.
    pub servers: HashMap<ServerId, String>,
    /// Every key it was ever given, also of servers that have closed: their connections live on.
    pub keys: HashMap<String, ServerId>,
    /// Servers that were told where they listen and have not said that they do.
    pub pending: Vec<Pending>,
    /// The server of connections that come as messages, if they may.
    pub messages: Option<ServerId>,
    /// The program has begun to listen for messages, so probing makes sense.
    pub listens: bool,
    /// The process has finished starting up.
    pub online: bool,
    /// The shim is loaded, or an SDK speaks: closed sockets are reported.
    pub reports: bool,
    /// It has said by itself that it takes messages, and is no Node program: an SDK speaks.
    pub never_listens: bool,
    /// It takes connections with luggage.
    pub replays: bool,
    pub ready_since: Option<Instant>,
    /// Lines that made no sense.
    pub faults: u32,
    /// Why it cannot be used, if it cannot.
    pub unfit: Option<String>,
    /// The last address that it has asked for in vain.
    pub refused: Option<BindError>,
}

/// A server between the answer to its `listen()` and its word that it listens.
#[derive(Debug)]
pub struct Pending {
    pub server: ServerId,
    pub key: String,
    pub query: ServerQuery<'static>,
}

/// Whether a worker may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Standing {
    /// Not ready yet, or no longer: its servers are closed.
    #[default]
    Starting,
    Ready,
    /// It acknowledges nothing. Its own sessions still go to it.
    Unresponsive,
    /// It finishes what it has.
    Leaving,
}

/// What is sent with a descriptor.
#[derive(Debug)]
pub enum Parcel {
    Client(Box<Routed>),
    /// One end of a socket pair on which we wait for an answer.
    Probe(OwnedFd),
}

/// What became of a connection offered to a worker.
#[derive(Debug)]
pub enum Offer {
    Sent,
    Queued,
    /// The worker has no place, or no server for it.
    Declined(Box<Routed>),
}

impl Load {
    #[must_use]
    pub fn sessions(&self) -> u32 {
        counted(&self.sessions)
    }

    /// Connections in the worker's hands as far as it reports their end.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        counted(&self.sockets)
    }

    /// Sessions open, and connections in the worker's hands as far as it reports their end.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.sessions().saturating_add(self.sockets())
    }

    /// Sessions and sockets, below zero where an end was heard of before its beginning.
    #[must_use]
    pub fn exact(&self) -> (i64, i64) {
        (self.sessions.load(Ordering::Relaxed), self.sockets.load(Ordering::Relaxed))
    }

    /// Goes on from these.
    pub fn set(&self, sessions: i64, sockets: i64) {
        self.sessions.store(sessions, Ordering::Relaxed);
        self.sockets.store(sockets, Ordering::Relaxed);
    }

    pub fn session_opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub fn session_closed(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn socket_given(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// Some may have closed that were never ours: a worker may serve other sockets too.
    pub fn sockets_closed(&self, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let less = |now: i64| Some(now.saturating_sub(count).max(0));
        let _ = self.sockets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// A count may be below zero for a moment: an end can be heard of before the beginning.
fn counted(count: &AtomicI64) -> u32 {
    u32::try_from(count.load(Ordering::Relaxed).max(0)).unwrap_or(u32::MAX)
}

impl Worker {
    /// A process that has just been started.
    pub fn new(
        id: WorkerId,
        slot: String,
        pid: u32,
        socket: UnixStream,
        origin: Origin,
        settings: &Settings,
    ) -> Self {
        let state = State {
            channel: Channel::new(),
            window: Window::new(settings.window, settings.queue),
            profile: Profile::default(),
            crowded: false,
            sequence: 0,
            asked: false,
            message: Vec::new(),
        };
        Self {
            id,
            slot,
            pid,
            origin,
            socket,
            load: Load::default(),
            handed_off: Counter::default(),
            handed_back: Counter::default(),
            nudge: Notify::new(),
            state: Mutex::new(state),
            under_way: AtomicU32::new(0),
        }
    }

    pub fn lock(&self) -> Locked<'_> {
        // Nothing panics under the lock; were it so, the state would still be whole.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, under_way: &self.under_way }
    }

    /// What this worker carries now, hand-offs under way included.
    #[must_use]
    pub fn total_load(&self) -> u32 {
        self.load.total().saturating_add(self.under_way.load(Ordering::Relaxed))
    }

    /// How much went to it and how much came back.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic { handed_off: self.handed_off.get(), handed_back: self.handed_back.get() }
    }

    /// Sends a connection, or puts it in line.
    pub fn offer(&self, routed: Box<Routed>, now: Instant) -> Offer {
        let mut state = self.lock();
        let profile = &state.profile;
        // To one that replays nothing, the last stop is no news: it hands nothing back.
        let carries = routed.accepted.luggage.data.is_empty() || profile.replays;
        if profile.standing == Standing::Leaving || !profile.serves(routed.accepted.server) || !carries {
            return Offer::Declined(routed);
        }
        if state.window.open() && state.window.waiting() == 0 {
            match state.dispatch(&self.socket, Parcel::Client(routed), now) {
                Ok(()) => Offer::Sent,
                Err(Parcel::Client(routed)) => self.put_in_line(&mut state, routed, now),
                // Only a client was given, so only a client comes back.
                Err(Parcel::Probe(_)) => Offer::Sent,
            }
        } else {
            self.put_in_line(&mut state, routed, now)
        }
    }

    fn put_in_line(&self, state: &mut State, routed: Box<Routed>, now: Instant) -> Offer {
        match state.window.queue(Parcel::Client(routed), now) {
            Queued::Yes => {
                self.nudge.notify_one();
                Offer::Queued
            }
            Queued::Full(Parcel::Client(routed)) => Offer::Declined(routed),
            Queued::Full(Parcel::Probe(_)) => Offer::Queued,
        }
    }

    /// Sends one end of a socket pair in the way a connection would go.
    pub fn send_probe(&self, end: OwnedFd, now: Instant) {
        let mut state = self.lock();
        // With a full window or channel the probe goes unanswered, and another one follows.
        if state.window.open() {
            drop(state.dispatch(&self.socket, Parcel::Probe(end), now));
        }
    }

    /// Says something that carries no descriptor. False when the worker reads nothing.
    pub fn say(&self, message: &[u8]) -> bool {
        let said = self.lock().channel.say(message);
        self.nudge.notify_one();
        said
    }

    /// Asks the worker to finish what it has and leave.
    pub fn ask_to_leave(&self) {
        let mut state = self.lock();
        state.profile.standing = Standing::Leaving;
        if std::mem::replace(&mut state.asked, true) {
            return;
        }
        let sequence = state.next_sequence();
        state.channel.say(&encode::disconnect(sequence));
        drop(state);
        self.nudge.notify_one();
    }

    /// Writes what waits: plain messages first, then connections, as far as window and socket
    /// allow. Returns how many connections went.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn flush(&self, now: Instant) -> io::Result<u64> {
        let mut state = self.lock();
        let mut sent = 0;
        state.channel.flush(&self.socket)?;
        while state.channel.idle() {
            let Some((parcel, since)) = state.window.next_waiting() else { break };
            if let Err(parcel) = state.dispatch(&self.socket, parcel, now) {
                state.window.put_back(parcel, since);
                break;
            }
            sent += 1;
        }
        Ok(sent)
    }

    /// True when the socket should be watched for room.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        let state = self.lock();
        !state.channel.idle() || (state.window.open() && state.window.waiting() > 0 && !state.crowded)
    }

    /// A moment has passed: what met a limit may be tried again.
    pub fn retry(&self) {
        self.lock().crowded = false;
    }

    /// How long the oldest connection has been without acknowledgement.
    #[must_use]
    pub fn silent_for(&self, now: Instant) -> Duration {
        self.lock().window.oldest().map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent))
    }

    /// Connections that have waited too long.
    #[must_use]
    pub fn overdue(&self, now: Instant, longest: Duration) -> Vec<Box<Routed>> {
        clients(self.lock().window.overdue(now, longest))
    }

    /// Everything that is not in the worker's hands; called when it never will be.
    #[must_use]
    pub fn take_back(&self) -> Vec<Box<Routed>> {
        let mut state = self.lock();
        state.profile.standing = Standing::Leaving;
        clients(state.window.drain())
    }
}

impl Profile {
    /// True when the worker can take connections for a server.
    #[must_use]
    pub fn serves(&self, server: ServerId) -> bool {
        self.messages.is_some() || self.servers.contains_key(&server)
    }

    /// The server a connection was handed over for, by the key it went with.
    #[must_use]
    pub fn server_of(&self, key: Option<&str>) -> Option<ServerId> {
        match key {
            Some(key) => self.keys.get(key).copied(),
            None => self.messages,
        }
    }
}

impl State {
    /// The number of the next request to the worker.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// One `sendmsg` with exactly one descriptor. Gives the parcel back when the channel is full
    /// or broken; the reader of the channel notices the latter.
    fn dispatch(&mut self, socket: &UnixStream, parcel: Parcel, now: Instant) -> Result<(), Parcel> {
        self.message.clear();
        let (message, number): (&[u8], _) = match &parcel {
            Parcel::Probe(_) => (encode::PROBE, None),
            Parcel::Client(routed) => {
                let luggage = &routed.accepted.luggage;
                match self.profile.servers.get(&routed.accepted.server) {
                    Some(key) => {
                        self.sequence += 1;
                        encode::new_connection(&mut self.message, key, self.sequence, luggage);
                        (&self.message, Some(self.sequence))
                    }
                    None if luggage.is_empty() => (encode::CONNECTION, None),
                    None => {
                        encode::connection(&mut self.message, luggage);
                        (&self.message, None)
                    }
                }
            }
        };
        let descriptor = match &parcel {
            Parcel::Client(routed) => routed.accepted.socket.as_fd(),
            Parcel::Probe(end) => end.as_fd(),
        };
        match self.channel.hand_over(socket, message, descriptor) {
            Ok(Sending::Done) => {
                let long = message.len() > LONGEST_WHOLE;
                let follows = if long { Follows::AfterAcknowledgement } else { Follows::Freely };
                self.window.sent(parcel, number, now, follows);
                Ok(())
            }
            Ok(Sending::Crowded) => {
                self.crowded = true;
                Err(parcel)
            }
            Ok(Sending::Blocked) | Err(_) => Err(parcel),
        }
    }
}

fn clients(parcels: Vec<Parcel>) -> Vec<Box<Routed>> {
    let client = |parcel| match parcel {
        Parcel::Client(routed) => Some(routed),
        Parcel::Probe(_) => None,
    };
    parcels.into_iter().filter_map(client).collect()
}
