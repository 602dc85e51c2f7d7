//! `sidetrack join`: this process asks a running sidetrack to take it in as a worker, then becomes
//! the worker's program, which finds the channel where one that sidetrack starts would.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sidetrack_worker::wire::{self, JoinReply, JoinRequest, LONGEST_JOIN};

use crate::config::Problems;
use crate::worker::{Place, node};

/// How often an absent sidetrack is looked for.
const PAUSE: Duration = Duration::from_millis(200);

/// How long sidetrack may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `sidetrack join` was told.
#[derive(Debug, Clone)]
pub struct Options {
    pub socket: PathBuf,
    pub slot: Option<String>,
    /// The worker's program and its arguments.
    pub command: Vec<String>,
    /// Whether Node workers get the shim.
    pub shim: bool,
    /// How long to wait for a sidetrack that is not there.
    pub wait: Duration,
}

/// Joins and becomes the worker. Returns only when that fails.
#[must_use]
pub fn join(options: &Options) -> Problems {
    match become_worker(options) {
        Ok(never) => match never {},
        Err(problems) => problems,
    }
}

fn become_worker(options: &Options) -> Result<std::convert::Infallible, Problems> {
    let Options { socket, slot, command, shim, wait } = options;
    let trouble = |error: io::Error| Problems::one("join", format!("{}: {error}", socket.display()));
    if let Some(name) = node::wrapper(command) {
        return Err(Problems::one("command", node::advice(name, command, Path::new("."))));
    }
    let (name, arguments) =
        command.split_first().ok_or_else(|| Problems::one("command", "nothing to run"))?;

    let mut channel = connect(socket, *wait)?;
    let request = JoinRequest { slot: slot.clone(), pid: std::process::id() };
    let reply = introduce(&mut channel, &request).map_err(trouble)?;
    let place = match &reply {
        JoinReply::Joined { slot, id, session_key, keepalive, session_idle, sid_tag, matches } => Place {
            slot,
            id: *id,
            session_key,
            keepalive,
            session_idle: *session_idle,
            sid_tag: sid_tag.as_deref(),
            matches: matches.as_deref(),
        },
        JoinReply::Refused { reason } => return Err(Problems::one("join", format!("refused: {reason}"))),
    };
    // The program finds its end under the same number.
    fcntl(&channel, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| trouble(error.into()))?;
    let shim = match shim {
        true => Some(node::Shim::install().map_err(|error| Problems::one("shim", error.to_string()))?),
        false => None,
    };
    let mut program = Command::new(name);
    program.args(arguments).env(wire::JOIN, std::path::absolute(socket).map_err(trouble)?);
    place.tell(&mut program, channel.as_raw_fd(), shim.as_ref());
    let error = program.exec();
    Err(Problems::one("command", format!("cannot start {name}: {error}")))
}

/// Connects, also to a sidetrack that is being started or restarted.
fn connect(socket: &Path, wait: Duration) -> Result<UnixStream, Problems> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let error = match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        let place = socket.display();
        if !absent {
            return Err(Problems::one("socket", format!("cannot connect to {place}: {error}")));
        }
        if start.elapsed() >= wait {
            return Err(Problems::one(
                "socket",
                format!(
                    "no sidetrack at {place} ({error}); start it with: sidetrack run --join-socket {place}"
                ),
            ));
        }
        if !told {
            eprintln!("sidetrack: waiting for sidetrack at {place}");
            told = true;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Says who we are and hears what we are. Reads not a byte more: what follows is for the worker.
fn introduce(channel: &mut UnixStream, request: &JoinRequest) -> io::Result<JoinReply> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    channel.write_all(&line)?;
    channel.set_read_timeout(Some(PATIENCE))?;
    line.clear();
    let mut byte = [0];
    loop {
        channel.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => break,
            _ if line.len() < LONGEST_JOIN => line.extend(byte),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer does not end")),
        }
    }
    channel.set_read_timeout(None)?;
    serde_json::from_slice(&line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("not a sidetrack: {error}")))
}
