//! Starting a worker process with the channel in its hands.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sidetrack_worker::{Keepalive, wire};

use super::node::Shim;
use crate::session::SessionKey;
use crate::sys;
use crate::sys::account::Account;
use crate::sys::child::Child;
use crate::types::WorkerId;
use crate::upgrade;

/// What runs in every slot.
#[derive(Debug, Clone)]
pub struct Program {
    /// The command and its arguments; never empty.
    pub command: Vec<String>,
    /// Whom it runs as, when it is not who we are.
    pub account: Option<Account>,
    /// Where it runs, when it is not where we are.
    pub folder: Option<PathBuf>,
    /// What it finds in its environment besides what is in ours.
    pub environment: Vec<(String, String)>,
    /// Preloaded into Node workers, unless the user does not want it.
    pub shim: Option<Arc<Shim>>,
    /// What a worker must know to tell its own requests from others'.
    pub session_key: SessionKey,
    pub keepalive: Keepalive,
    /// How long sessions are remembered that nobody ends.
    pub session_idle: Duration,
    /// New session ids begin with the slot's name.
    pub tagged_sids: bool,
    /// Which requests are for this pool, when there are several.
    pub matches: Option<String>,
}

/// What a worker knows of its place when it starts.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub slot: &'a str,
    /// `NODE_UNIQUE_ID`.
    pub id: u32,
    pub session_key: &'a str,
    pub keepalive: &'a str,
    /// In seconds.
    pub session_idle: Option<u64>,
    /// What new session ids begin with.
    pub sid_tag: Option<&'a str>,
    /// Which requests are for its pool.
    pub matches: Option<&'a str>,
}

/// Starts the program in a slot and returns it with our end of its channel.
///
/// The worker gets a process group of its own, so that a Ctrl-C in the terminal reaches sidetrack
/// alone, which then drains. Its output goes where ours goes: a pipe through us would break, and
/// kill the worker, when we end.
///
/// # Errors
/// When the process cannot be started.
pub fn start(program: &Program, slot: &str, id: WorkerId) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // The child finds its end under the same number. Nothing else is started while the flag is
    // off: this runs on the one thread that starts processes, and does not wait in between.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;

    let (name, arguments) = program.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (session_key, keepalive) = (program.session_key.to_string(), program.keepalive.to_string());
    let place = Place {
        slot,
        id: unique(id),
        session_key: &session_key,
        keepalive: &keepalive,
        session_idle: Some(program.session_idle.as_secs()),
        sid_tag: program.tagged_sids.then_some(slot),
        matches: program.matches.as_deref(),
    };
    let mut command = std::process::Command::new(name);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    for variable in sys::systemd::PRIVATE {
        command.env_remove(variable);
    }
    upgrade::forget(&mut command);
    if let Some(folder) = &program.folder {
        command.current_dir(folder);
    }
    if let Some(account) = &program.account {
        account.put_on(&mut command);
    }
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    place.tell(&mut command, theirs.as_raw_fd(), program.shim.as_deref());
    Ok((Child::of(command.spawn()?.id()), ours))
}

/// A worker's number as Node wants it: above 0.
pub fn unique(id: WorkerId) -> u32 {
    id.0.saturating_add(1)
}

impl Place<'_> {
    /// Tells a program in its environment where it is.
    pub fn tell(&self, program: &mut std::process::Command, channel: RawFd, shim: Option<&Shim>) {
        program
            .env(wire::CHANNEL_FD, channel.to_string())
            .env("NODE_CHANNEL_SERIALIZATION_MODE", "json")
            // Makes `cluster.isWorker` true.
            .env("NODE_UNIQUE_ID", self.id.to_string())
            .env(wire::SLOT, self.slot)
            .env(wire::SESSION_KEY, self.session_key)
            .env(wire::KEEPALIVE, self.keepalive);
        if let Some(seconds) = self.session_idle {
            program.env(wire::SESSION_IDLE, seconds.to_string());
        }
        if let Some(tag) = self.sid_tag {
            program.env(wire::SID_TAG, tag);
        }
        if let Some(matches) = self.matches {
            program.env(wire::MATCHES, matches);
        }
        if let Some(shim) = shim {
            let set = program.get_envs().find(|(name, _)| *name == "NODE_OPTIONS");
            let users =
                set.map_or_else(|| std::env::var_os("NODE_OPTIONS"), |(_, text)| text.map(Into::into));
            let users = users.filter(|text| !text.is_empty());
            program.env("NODE_OPTIONS", shim.node_options(users.as_deref()));
        }
    }
}

/// Sends a signal to a worker and everything it has started.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended in the meantime, which is what we want.
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}
