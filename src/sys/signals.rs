//! The signals that mean something to a run, and when they may arrive.
//!
//! A signal that is held waits in the kernel, through an exec too. Only the main thread ever takes one:
//! whatever another thread had taken would be lost with it at an exec.

use nix::sys::signal::{SigSet, Signal};

/// What a run acts upon.
const MEANT: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR2];

/// Has them wait, as far as this thread and those it starts are concerned. That it cannot be had is no
/// matter: then they are acted upon at once.
pub fn hold() {
    let _ = meant().thread_block();
}

/// Lets them arrive at this thread, those that wait first.
pub fn release() {
    let _ = meant().thread_unblock();
}

fn meant() -> SigSet {
    MEANT.into_iter().collect()
}
