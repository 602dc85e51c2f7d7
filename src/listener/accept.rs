//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use sidetrack_worker::wire::Luggage;
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::Bound;
use super::servers::Idle;
use crate::drain::{Phase, Phases};
use crate::sys::reactor::watch;
use crate::telemetry::{Event, Telemetry};
use crate::types::{Accepted, Opening, ServerId};

/// How long a loop rests when the process or the machine is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What every accept loop shares.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Connections that may be between accept and acknowledgement. Taken before accept, so that
    /// overload waits in the kernel's backlog and not in our memory.
    pub permits: Arc<Semaphore>,
    pub telemetry: Arc<Telemetry>,
    pub phases: Phases,
}

/// Accepts until the run closes its listeners, or this one is not wanted any more; then takes those who have
/// come before, and closes the listener. No error of accept ends it.
///
/// `admit` must not wait: it starts the connection's life and returns.
///
/// # Errors
/// When the listener cannot be watched at all.
pub async fn accept(idle: Idle, server: ServerId, gate: Gate, admit: impl Fn(Accepted)) -> io::Result<()> {
    let Idle { bound, unwanted } = idle;
    let mut phases = gate.phases.clone();
    let admit = |accepted| {
        gate.telemetry.counters.accepted.one();
        admit(accepted);
    };
    tokio::select! {
        biased;
        () = phases.reached(Phase::Closing) => {}
        // Nothing is ever sent: the other end is dropped.
        _ = unwanted => {}
        broken = run(&bound, server, &gate, &admit) => return broken,
    }
    // The kernel has told these that they are connected: closing now would reset them.
    while let Ok(permit) = Arc::clone(&gate.permits).try_acquire_owned()
        && let Ok((socket, peer)) = bound.accept()
    {
        admit(accepted(bound.opening, server, socket, peer, permit));
    }
    Ok(())
}

fn accepted(
    opening: Opening,
    server: ServerId,
    socket: OwnedFd,
    peer: Option<SocketAddr>,
    permit: OwnedSemaphorePermit,
) -> Accepted {
    Accepted { socket, peer, opening, server, luggage: Luggage::default(), permit, share: None }
}

async fn run(bound: &Bound, server: ServerId, gate: &Gate, admit: impl Fn(Accepted)) -> io::Result<()> {
    let watched = watch(bound.as_fd(), Interest::READABLE)?;
    let mut exhausted = false;
    let mut fresh = false; // somebody has come since others were let run
    loop {
        // Never closed, so this cannot fail.
        let Ok(permit) = Arc::clone(&gate.permits).acquire_owned().await else { return Ok(()) };
        match bound.accept() {
            Ok((socket, peer)) => {
                exhausted = false;
                fresh = true;
                admit(accepted(bound.opening, server, socket, peer, permit));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An idle listener keeps no permit from a busy one.
                drop(permit);
                if std::mem::take(&mut fresh) {
                    let_others_run().await;
                } else {
                    watched.readable().await?.clear_ready();
                }
            }
            Err(error) => stumble(&error, &mut exhausted, gate).await,
        }
    }
}

/// Lets this thread's other tasks do their work for those who have come, and then everybody else who wants
/// this core. Whoever comes meanwhile is taken together with others: to wake up costs more than to hand one
/// over, and that processor time is the workers'. On a core that nobody else wants it takes no time.
async fn let_others_run() {
    tokio::task::yield_now().await;
    std::thread::yield_now();
}

/// An accept error concerns one connection, or the whole machine for a while. It never ends the
/// loop, and the log hears only of the first in a row.
async fn stumble(error: &io::Error, exhausted: &mut bool, gate: &Gate) {
    const OUT: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    gate.telemetry.counters.accept_errors.one();
    if OUT.iter().any(|errno| error.raw_os_error() == Some(*errno as i32)) {
        if !*exhausted {
            gate.telemetry.emit(Event::Exhausted { error });
        }
        *exhausted = true;
        sleep(EXHAUSTED_PAUSE).await;
    }
}
