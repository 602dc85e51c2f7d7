//! Starting a worker process with the channel in its hands.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sidetrack_worker::wire;
use tokio::process::{Child, Command};

use super::KeepAlive;
use super::node::Shim;
use crate::session::SessionKey;
use crate::types::WorkerId;

/// What runs in every slot.
#[derive(Debug, Clone)]
pub struct Program {
    /// The command and its arguments; never empty.
    pub command: Vec<String>,
    /// Preloaded into Node workers, unless the user does not want it.
    pub shim: Option<Arc<Shim>>,
    /// What a worker must know to tell its own requests from others'.
    pub session_key: SessionKey,
    pub keepalive: KeepAlive,
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
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env(wire::CHANNEL_FD, theirs.as_raw_fd().to_string())
        .env("NODE_CHANNEL_SERIALIZATION_MODE", "json")
        // Makes `cluster.isWorker` true. Node wants it above 0.
        .env("NODE_UNIQUE_ID", (u64::from(id.0) + 1).to_string())
        .env(wire::SLOT, slot)
        .env(wire::SESSION_KEY, program.session_key.to_string())
        .env(wire::KEEPALIVE, program.keepalive.to_string())
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(shim) = &program.shim {
        let users = std::env::var_os("NODE_OPTIONS");
        command
            .env("NODE_OPTIONS", shim.node_options(users.as_deref().filter(|text| *text != OsStr::new(""))));
    }
    let child = command.spawn()?;
    Ok((child, ours))
}

/// Sends a signal to a worker and everything it has started.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended in the meantime, which is what we want.
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}
