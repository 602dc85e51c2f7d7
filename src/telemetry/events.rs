//! The events worth a line, each with its level and its counter.
//!
//! Whatever a client can cause at will is `debug`, or said once: a flood of requests must not
//! become a flood of lines.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::{Cause, Telemetry, spans};
use crate::config::Problems;
use crate::front::Unwelcome;
use crate::peek::Headless;
use crate::types::{HeadError, Refusal};

/// So many requests for sessions that nobody has announced, and none that somebody has: it is no session id.
const MANY_UNANNOUNCED: u64 = 20;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    Listening {
        address: &'a str,
    },
    WorkerStarted {
        worker: &'a str,
        pid: u32,
    },
    /// Started by somebody else.
    WorkerJoined {
        worker: &'a str,
        pid: u32,
    },
    JoinRefused {
        reason: &'a str,
    },
    /// One that had joined.
    WorkerLeft {
        worker: &'a str,
        reason: &'a str,
    },
    WorkerReady {
        worker: &'a str,
        pid: u32,
    },
    WorkerLost {
        worker: &'a str,
        reason: &'a str,
        /// Another one is started.
        again: bool,
    },
    /// One that was to follow another in its slot did not become ready.
    NoSuccessor {
        worker: &'a str,
        reason: &'a str,
    },
    /// It was asked to drain and has left.
    WorkerRetired {
        worker: &'a str,
        reason: &'a str,
        /// Nobody follows in its slot.
        vacant: bool,
    },
    WorkerUnresponsive {
        worker: &'a str,
        silent: Duration,
    },
    /// A setting is another one, or is to be when sidetrack starts anew.
    SettingChanged {
        key: &'a str,
        old: &'a str,
        new: &'a str,
        now: bool,
    },
    Reloaded {
        changes: usize,
    },
    ReloadRefused {
        problems: &'a Problems,
        /// It was only to be tried.
        dry_run: bool,
    },
    /// What a lost worker left behind.
    Orphans {
        worker: &'a str,
        sockets: usize,
        sessions: usize,
    },
    /// One slot of several is given up.
    SlotGivenUp {
        reason: &'a str,
    },
    /// A worker's `listen()` that cannot be shared.
    UnsupportedListen {
        worker: &'a str,
        kind: &'a str,
    },
    /// Descriptors or memory are used up.
    Exhausted {
        error: &'a io::Error,
    },
    /// A connection ended before its request was complete.
    Headless {
        peer: Option<SocketAddr>,
        why: Headless,
    },
    /// A request was held for a session that nobody has announced.
    Unannounced {
        held: Duration,
    },
    /// A connection was closed before anybody looked for a request on it.
    Unwelcome {
        peer: Option<SocketAddr>,
        why: Unwelcome,
    },
    Refused {
        peer: Option<SocketAddr>,
        refusal: &'a Refusal,
        cause: Cause,
    },
    Rerouted {
        peer: Option<SocketAddr>,
        attempt: u32,
    },
    HandedBack {
        peer: Option<SocketAddr>,
    },
    /// A worker hands back so much that something in front must be mixing sessions.
    ManyHandBacks {
        worker: &'a str,
        handed_back: u64,
        handed_off: u64,
        period: Duration,
    },
    /// Another program has found itself fit, and is about to go on here.
    Upgrading {
        program: &'a Path,
        version: &'a str,
        check: Duration,
        workers: usize,
        sessions: usize,
        /// Not in any worker's hands.
        connections: usize,
    },
    /// It has gone on.
    Upgraded {
        before: &'a str,
        /// Between the last thing that the program before did and the first one of this.
        pause: Duration,
    },
    HandedOff {
        peer: Option<SocketAddr>,
        worker: u32,
        session: bool,
        generation: u64,
    },
}

impl Event<'_> {
    /// How a duration is told of something that is over.
    fn millis(duration: Duration) -> String {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    }
}

/// A TLS client on a plain port is worth one warning, not one for each connection.
static TLS_SEEN: AtomicBool = AtomicBool::new(false);

/// So are a proxy that sends no PROXY header, and a client that goes past the proxy.
static PREAMBLE_REFUSED: AtomicBool = AtomicBool::new(false);

impl Telemetry {
    /// Logs and counts.
    #[allow(clippy::needless_pass_by_value, reason = "an event is made to be emitted")]
    pub fn emit(&self, event: Event<'_>) {
        let counters = &self.counters;
        match event {
            Event::Listening { address } => info!(address, "listening"),
            Event::WorkerStarted { worker, pid } => {
                counters.workers_started.one();
                info!(worker, pid, "worker started");
            }
            Event::WorkerJoined { worker, pid } => {
                counters.workers_joined.one();
                info!(worker, pid, "worker joined");
            }
            Event::JoinRefused { reason } => warn!(reason, "somebody could not join"),
            Event::WorkerLeft { worker, reason } => info!(worker, reason, "worker left"),
            Event::WorkerReady { worker, pid } => {
                counters.workers_ready.one();
                info!(worker, pid, "worker ready");
            }
            Event::NoSuccessor { worker, reason } => {
                error!(worker, reason, "the new worker did not become ready: the one before stays");
            }
            Event::WorkerRetired { worker, reason, vacant } => {
                info!(worker, reason, vacant, "worker drained")
            }
            Event::WorkerLost { worker, reason, again } => {
                counters.workers_lost.one();
                warn!(worker, reason, "worker ended{}", if again { "; it is started again" } else { "" });
            }
            Event::WorkerUnresponsive { worker, silent } => {
                counters.workers_unresponsive.one();
                warn!(
                    worker,
                    ?silent,
                    "worker acknowledges nothing; no new connections go to it until it does"
                );
            }
            Event::SettingChanged { key, old, new, now: true } => info!(key, old, new, "setting changed"),
            Event::SettingChanged { key, old, new, now: false } => {
                warn!(key, old, new, "setting not changed: it takes a restart");
            }
            Event::Reloaded { changes } => {
                counters.reloads.one();
                info!(changes, "configuration loaded again");
            }
            Event::ReloadRefused { problems, dry_run: true } => {
                info!(%problems, "a configuration was tried and is not fit");
            }
            Event::ReloadRefused { problems, dry_run: false } => {
                counters.reloads_refused.one();
                error!(%problems, "configuration not loaded: everything stays as it is");
            }
            Event::Orphans { worker, sockets, sessions } => {
                info!(worker, sockets, sessions, "sessions forgotten, connections routed again");
            }
            Event::SlotGivenUp { reason } => error!(reason, "slot given up"),
            Event::UnsupportedListen { worker, kind } => {
                warn!(
                    worker,
                    kind, "the program asks for a socket that workers cannot share; it gets an error"
                );
            }
            Event::Exhausted { error } => {
                warn!(%error, "cannot accept for now; connections wait in the kernel (see `ulimit -n`)");
            }
            Event::Headless { peer, why } => headless(self, peer, why),
            Event::Unannounced { held } => {
                counters.unannounced.one();
                if counters.unannounced.get() == MANY_UNANNOUNCED && counters.sessions_opened.get() == 0 {
                    warn!(
                        ?held,
                        "requests name sessions, and no worker has announced one yet: each such request waits; is it \
                         session-key that names them? Said once; `unannounced` counts"
                    );
                }
            }
            Event::Unwelcome { peer, why } => unwelcome(self, peer, why),
            Event::Refused { peer, refusal, cause } => {
                counters.refused.one();
                self.refusals.one(cause, refusal.status);
                if let Some(span) = spans::current() {
                    span.record("outcome", cause.name()).record("status", refusal.status);
                }
                debug!(?peer, status = refusal.status, reason = refusal.reason, "refused");
            }
            Event::Rerouted { peer, attempt } => {
                counters.rerouted.one();
                debug!(?peer, attempt, "routed again");
            }
            Event::HandedBack { peer } => debug!(?peer, "handed back"),
            Event::ManyHandBacks { worker, handed_back, handed_off, period } => {
                warn!(
                    worker,
                    handed_back,
                    handed_off,
                    ?period,
                    "most connections come back for another session or pool: a proxy in front seems to share its \
                     connections among clients. Each move costs about as much as a new connection; let the proxy \
                     open one per client or close them after each request, or run with --keepalive close"
                );
            }
            Event::Upgrading { program, version, check, workers, sessions, connections } => {
                let (program, check) = (program.display(), Event::millis(check));
                info!(%program, version, check, workers, sessions, connections, "upgrading");
            }
            Event::Upgraded { before, pause } => {
                counters.upgrades.one();
                let (version, pause) = (env!("CARGO_PKG_VERSION"), Event::millis(pause));
                info!(before, version, pause, upgrades = counters.upgrades.get(), "upgraded");
            }
            Event::HandedOff { peer, worker, session, generation } => {
                if let Some(span) = spans::current() {
                    span.record("session", session).record("worker", worker);
                    span.record("generation", generation).record("outcome", "handed-off");
                }
                debug!(?peer, worker, session, generation, "handed off");
            }
        }
    }
}

fn headless(telemetry: &Telemetry, peer: Option<SocketAddr>, why: Headless) {
    match why {
        Headless::Silent => telemetry.counters.silent.one(),
        Headless::Gone => telemetry.counters.gone.one(),
        Headless::Invalid(HeadError::Tls) if !TLS_SEEN.swap(true, Ordering::Relaxed) => {
            warn!(
                ?peer,
                "a client speaks TLS to a plain listener; was the address given as https:// or wss://?"
            );
        }
        _ => {}
    }
    debug!(?peer, %why, "no request");
}

fn unwelcome(telemetry: &Telemetry, peer: Option<SocketAddr>, why: Unwelcome) {
    let counters = &telemetry.counters;
    match why {
        Unwelcome::Silent => counters.silent.one(),
        Unwelcome::Gone => counters.gone.one(),
        Unwelcome::Crowd => counters.crowded_out.one(),
        Unwelcome::TooSlow | Unwelcome::Stranger | Unwelcome::Preamble(_) => {
            counters.preambles_refused.one();
            if !PREAMBLE_REFUSED.swap(true, Ordering::Relaxed) {
                warn!(
                    ?peer,
                    %why,
                    "closed a connection to a listener with proxy-protocol; does the proxy in front send the \
                     header (`send-proxy-v2` in HAProxy, `proxy_protocol on` in nginx), and does everybody \
                     come through it? Said once; `preambles_refused` counts"
                );
            }
        }
    }
    debug!(?peer, %why, "closed");
}
