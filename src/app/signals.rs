//! Signals as a run understands them.

use std::io;

use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that a run listens to.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    exchange: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGINT and SIGTERM: the run is to end; the second time, at once.
    End,
    /// SIGHUP: the configuration is to be read again, and log files to be opened again.
    Reload,
    /// SIGUSR2: another program is to go on.
    Upgrade,
}

impl Signals {
    /// # Errors
    /// When the system lets nobody listen.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            exchange: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.exchange.recv() => Asked::Upgrade,
        }
    }

    /// Waits for one that ends the run. Cancel safe.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Whether such a one has come.
    pub(super) fn is_end(&mut self) -> bool {
        self.end().now_or_never().is_some()
    }
}
