//! Workers that were not started here: whoever may connect to the join socket can be one. Their
//! processes belong to others (systemd, a container), so nothing here starts or ends them.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, chown};
use sidetrack_worker::Keepalive;
use sidetrack_worker::wire::{JoinReply, JoinRequest, LONGEST_JOIN};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Origin;
use super::attend::{Departure, attend};
use super::dialogue::Ended;
use super::fleet::Fleet;
use super::process::unique;
use super::worker::Worker;
use crate::drain::{Phase, Phases};
use crate::live::Live;
use crate::policy;
use crate::session::SessionKey;
use crate::sys::unix::{self, Door, SocketFile};
use crate::telemetry::Event;

/// How long a joining worker may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a start workers that outlived the sidetrack before may take to join this one and
/// tell of their sessions. They look for it all the time, and a busy machine is slow.
const GATHERING: Duration = Duration::from_secs(3);

/// Workers that may have joined at the same time.
const MOST_GUESTS: usize = 1024;

/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest slot name.
const LONGEST_SLOT: usize = 64;

/// Who may join, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinSettings {
    pub path: PathBuf,
    /// Members of this group may join, besides the user sidetrack runs as and root.
    pub group: Option<String>,
}

/// The socket at which workers join. Its file goes with the value.
#[derive(Debug)]
pub struct JoinSocket {
    listener: UnixListener,
    /// Ours to remove, unless systemd has opened the socket.
    file: Option<SocketFile>,
    group: Option<Gid>,
}

/// What joining workers are told.
#[derive(Debug, Clone)]
pub struct Terms {
    pub session_key: SessionKey,
    pub keepalive: Keepalive,
    /// How long sessions are remembered that nobody ends.
    pub session_idle: Duration,
    /// New session ids begin with the slot's name.
    pub tagged_sids: bool,
    pub matches: Option<String>,
    /// What all slots of this pool begin with.
    pub prefix: String,
    /// What no slot of this pool begins with.
    pub others: Vec<String>,
}

impl JoinSocket {
    /// Opens the socket for its owner, and the group if there is one; or takes one that was opened, with
    /// the mode it has.
    ///
    /// # Errors
    /// When the path or the group cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(settings: &JoinSettings, opened: Option<StdListener>) -> io::Result<Self> {
        let group = Self::group(settings)?;
        if let Some(listener) = opened {
            return Ok(Self { listener: UnixListener::from_std(listener)?, file: None, group });
        }
        let (listener, file) = unix::bind(&settings.path)?;
        // Between the two calls others may connect; whoever does is looked at all the same.
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            chown(file.path(), None, Some(group))?;
        }
        Ok(Self { listener: UnixListener::from_std(listener)?, file: Some(file), group })
    }

    fn group(settings: &JoinSettings) -> io::Result<Option<Gid>> {
        settings.group.as_deref().map(known_group).transpose()
    }

    /// The socket as the program before has opened it.
    ///
    /// # Errors
    /// When the group cannot be used, or the socket not be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn resume(settings: &JoinSettings, door: Door) -> io::Result<Self> {
        let (listener, file) = door.open();
        Ok(Self { listener: UnixListener::from_std(listener)?, file, group: Self::group(settings)? })
    }

    /// A descriptor of it to go along to the next program.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn door(&self) -> io::Result<Door> {
        Door::of(&self.listener, self.file.is_some())
    }

    /// Takes workers in until the run drains, then waits for the last of them to leave.
    pub async fn serve(self, fleet: Arc<Fleet>, terms: Live<Terms>, mut phases: Phases) {
        let mut guests = JoinSet::new();
        // Taken in by the program before.
        for worker in fleet.workers().into_iter().filter(|worker| worker.origin == Origin::Joined) {
            let (fleet, phases) = (Arc::clone(&fleet), phases.clone());
            guests.spawn(async move { stay(&fleet, &worker, phases).await });
        }
        if guests.is_empty() {
            fleet.gather(Instant::now() + GATHERING);
        }
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if guests.len() < MOST_GUESTS => match accepted {
                    Ok((stream, _)) => {
                        let guest = Guest { fleet: Arc::clone(&fleet), terms: terms.clone(), group: self.group };
                        guests.spawn(guest.stay(stream, phases.clone()));
                    }
                    Err(_) => sleep(PAUSE).await,
                },
                Some(_) = guests.join_next() => {}
                () = phases.reached(Phase::Draining) => break,
            }
        }
        drop(self);
        while guests.join_next().await.is_some() {}
    }
}

/// One that wants to join.
struct Guest {
    fleet: Arc<Fleet>,
    terms: Live<Terms>,
    group: Option<Gid>,
}

impl Guest {
    async fn stay(self, stream: UnixStream, phases: Phases) {
        let Self { fleet, .. } = &self;
        let worker = match self.welcome(stream).await {
            Ok(worker) => worker,
            Err(reason) => return fleet.telemetry.emit(Event::JoinRefused { reason: &reason }),
        };
        fleet.telemetry.emit(Event::WorkerJoined { worker: &worker.slot, pid: worker.pid });
        stay(fleet, &worker, phases).await;
    }

    /// Makes a worker of whoever has connected.
    async fn welcome(&self, mut stream: UnixStream) -> Result<Arc<Worker>, String> {
        let credentials = getsockopt(&stream.as_fd(), sockopt::PeerCredentials).map_err(text)?;
        let request = match timeout(PATIENCE, request(&mut stream)).await {
            Ok(request) => request.map_err(text),
            Err(_) => Err(format!("it has not said who it is within {PATIENCE:?}")),
        };
        let slot = request.and_then(|request| {
            self.admit(&credentials)?;
            Ok((self.slot(request.slot)?, request.pid))
        });
        let (slot, announced) = match slot {
            Ok(accepted) => accepted,
            Err(reason) => {
                let reply = line(&JoinReply::Refused { reason: reason.clone() });
                // It may have gone already.
                drop(timeout(PATIENCE, stream.write_all(&reply)).await);
                return Err(reason);
            }
        };
        let id = self.fleet.next_id();
        let terms = self.terms.now();
        let reply = line(&JoinReply::Joined {
            slot: slot.clone(),
            id: unique(id),
            session_key: terms.session_key.to_string(),
            keepalive: terms.keepalive.to_string(),
            session_idle: Some(terms.session_idle.as_secs()),
            sid_tag: terms.tagged_sids.then(|| slot.clone()),
            matches: terms.matches.clone(),
        });
        // 0: its process cannot be seen from here.
        let pid = u32::try_from(credentials.pid()).ok().filter(|pid| *pid > 0).unwrap_or(announced);
        let stream = stream.into_std().map_err(text)?;
        let worker = self.fleet.add(id, &slot, pid, stream, Origin::Joined);
        worker.say(&reply);
        Ok(worker)
    }

    fn admit(&self, peer: &UnixCredentials) -> Result<(), String> {
        let (uid, gid) = (Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()));
        // Of other groups it may be a member of, the kernel tells nothing; the file's mode has let it in.
        let known = uid == Uid::effective() || uid.is_root() || self.group.is_some();
        if known { Ok(()) } else { Err(format!("user {uid}, group {gid} may not join; see --join-group")) }
    }

    /// The slot it asks for, or the first free one.
    fn slot(&self, wanted: Option<String>) -> Result<String, String> {
        let Terms { prefix, others, .. } = &*self.terms.now();
        // Of workers that are started here.
        let slots = self.fleet.slots();
        let started = |slot: &str| (0..slots).any(|number| slot == format!("{prefix}w{number}"));
        let free = |slot: &str| !started(slot) && !self.fleet.has_slot(slot);
        let Some(wanted) = wanted else {
            let mut names = (slots..).map(|number| format!("{prefix}w{number}"));
            return names.find(|name| free(name)).ok_or_else(|| "no slot is free".to_owned());
        };
        let sound = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
        if wanted.is_empty() || wanted.len() > LONGEST_SLOT || !wanted.chars().all(sound) {
            return Err(format!("the slot {wanted:?} is not a name of letters, digits and -_.@"));
        }
        if let Some(other) = others.iter().find(|other| wanted.starts_with(*other)) {
            return Err(format!(
                "slots that begin with {other} are another pool's, which has its own join-socket"
            ));
        }
        // It may know it by the whole name, from when it joined before.
        let wanted = if wanted.starts_with(prefix) { wanted } else { format!("{prefix}{wanted}") };
        if free(&wanted) { Ok(wanted) } else { Err(format!("the slot {wanted} is taken")) }
    }
}

/// A guest's time here.
async fn stay(fleet: &Fleet, worker: &Worker, phases: Phases) {
    let mut draining = phases.clone();
    let reason = tokio::select! {
        departure = attend(fleet, worker) => {
            let reason = departure.to_string();
            part(worker, &departure);
            reason
        }
        () = draining.reached(Phase::Draining) => leave(fleet, worker, phases.clone()).await,
    };
    fleet.remove(worker);
    if phases.now() < Phase::Draining {
        fleet.notice(policy::Event::WorkerFailed { worker: worker.id });
    }
    fleet.telemetry.emit(Event::WorkerLeft { worker: &worker.slot, reason: &reason });
}

/// The run ends: the worker finishes what it has, then leaves.
async fn leave(fleet: &Fleet, worker: &Worker, mut phases: Phases) -> String {
    worker.ask_to_leave();
    fleet.refresh();
    tokio::select! {
        departure = attend(fleet, worker) => {
            part(worker, &departure);
            departure.to_string()
        }
        () = phases.reached(Phase::Ending) => "it was asked to leave and has not".to_owned(),
    }
}

/// A worker that has ended has read nothing of what it had not acknowledged. From one that goes on
/// in its own way nothing can be recalled: it may serve those connections yet, so nobody else may.
fn part(worker: &Worker, departure: &Departure) {
    if !matches!(departure, Departure::Channel(Ended::Closed | Ended::Broken(_))) {
        // Failing means that it is closed already.
        let _ = worker.socket.shutdown(std::net::Shutdown::Both);
        drop(worker.take_back());
    }
}

/// Reads one line and not a byte more: what follows belongs to the channel.
async fn request(stream: &mut UnixStream) -> io::Result<JoinRequest> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if line.len() < LONGEST_JOIN => line.push(byte),
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its request to join does not end"));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(error.kind(), "it has left without saying who it is"));
            }
            Err(error) => return Err(error),
        }
    }
    serde_json::from_slice(&line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("no request to join: {error}")))
}

fn line(reply: &JoinReply) -> Vec<u8> {
    // Texts and a number: this cannot fail.
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}

fn known_group(name: &str) -> io::Result<Gid> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no group \"{name}\""));
    Group::from_name(name)?.map(|group| group.gid).ok_or_else(unknown)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
