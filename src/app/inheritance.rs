//! What the program before has left to this one, taken over stage by stage.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use crate::admin::{Admin, Doors, Token};
use crate::config::{Config, Problems};
use crate::listener::Servers;
use crate::pipeline::Pipeline;
use crate::pool::Pool;
use crate::sys::{exec, unix};
use crate::telemetry::{Event, Telemetry};
use crate::types::Shares;
use crate::upgrade::{Carried, Incoming, Waiting, state};
use crate::worker::{JoinSettings, JoinSocket};

/// See the module's documentation.
#[derive(Debug)]
pub struct Inheritance {
    incoming: Incoming,
    /// The version of the program before.
    version: String,
    pub started: SystemTime,
    stopped: Duration,
    admin: state::Admin,
    /// Where the shim lies.
    pub shim: Vec<PathBuf>,
    servers: Option<state::Servers>,
    connections: Vec<state::Connection>,
    pools: Vec<state::Pool>,
}

impl Inheritance {
    /// Begins with the figures, which everything that follows adds to.
    pub fn new(
        carried: Carried,
        permits: &Arc<Semaphore>,
        shares: Option<Arc<Shares>>,
        telemetry: &Telemetry,
    ) -> Self {
        let Carried { version, descriptors, run, .. } = carried;
        telemetry.counters.resume(&run.counters);
        telemetry.refusals.resume(&run.refusals);
        Self {
            incoming: Incoming::new(&descriptors, Arc::clone(permits), shares),
            version,
            started: run.started,
            stopped: run.stopped,
            admin: run.admin,
            shim: run.shim,
            servers: Some(run.servers),
            connections: run.connections,
            pools: run.pools,
        }
    }

    pub fn servers(&mut self, config: &Config) -> Result<Servers, Problems> {
        match self.servers.take() {
            Some(servers) => {
                Servers::resume(servers, &mut self.incoming, config.opening, config.peek.timeout)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
        .map_err(|error| trouble("listen", &error))
    }

    pub fn join(&mut self, pool: &str, settings: &JoinSettings) -> Result<Option<JoinSocket>, Problems> {
        let pool = self.pools.iter_mut().find(|before| before.name == pool);
        let door = open(pool.and_then(|pool| pool.join.take()), &mut self.incoming);
        let socket = door.and_then(|door| door.map(|door| JoinSocket::resume(settings, door)).transpose());
        socket.map_err(|error| trouble("join-socket", &error))
    }

    pub fn admin(&mut self, token: Option<Token>) -> Result<Admin, Problems> {
        let state::Admin { socket, tcp } = &mut self.admin;
        let socket = open(socket.take(), &mut self.incoming);
        let tcp = tcp.take().map(|listener| self.incoming.take(listener)).transpose();
        let doors = socket.and_then(|socket| Ok(Doors { socket, tcp: tcp? }));
        doors.and_then(|doors| Admin::resume(doors, token)).map_err(|error| trouble("admin", &error))
    }

    /// Workers and sessions. The pool's policies have gone on already.
    pub fn pool(&mut self, pool: &Pool) -> Result<(), Problems> {
        let Some(place) = self.pools.iter().position(|before| *before.name == *pool.name) else {
            return Ok(());
        };
        let state::Pool { sessions, fleet, .. } = self.pools.swap_remove(place);
        pool.sessions.resume(sessions);
        pool.fleet.resume(fleet, &mut self.incoming).map_err(|error| trouble("workers", &error))
    }

    /// Connections in the middle of their lives; and that is all.
    pub fn finish(mut self, pipeline: &Arc<Pipeline>, telemetry: &Telemetry) -> Result<(), Problems> {
        let mut aside = Vec::new();
        for connection in self.connections {
            let waiting = Waiting::resume(connection, &mut self.incoming);
            aside.push(waiting.map_err(|error| trouble("connections", &error))?);
        }
        let unclaimed = self.incoming.close_rest();
        if unclaimed > 0 {
            tracing::warn!(unclaimed, "descriptors of the program before that nobody needs are closed");
        }
        let pause = exec::monotonic().saturating_sub(self.stopped);
        telemetry.emit(Event::Upgraded { before: &self.version, pause });
        pipeline.go_on(aside);
        Ok(())
    }
}

/// Whether the settings name what was opened by those of the program before.
pub fn fits(config: &Config, carried: &Carried) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let (before, now) = (&carried.run.fixed, config.fixed());
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for key in keys {
        // A whole pool may have come or gone.
        let told = |value: Option<&String>| {
            value.map_or_else(|| "absent".to_owned(), |value| format!("\"{value}\""))
        };
        if before.get(key) != now.get(key) {
            let (before, now) = (told(before.get(key)), told(now.get(key)));
            let text = format!(
                "it is {before} in the run and {now} in the settings; an upgrade does not change it: reload it before (sidetrack ctl reload), or restart"
            );
            problems.add(key, text);
        }
    }
    problems.into_result(())
}

fn open(door: Option<state::Door>, incoming: &mut Incoming) -> io::Result<Option<unix::Door>> {
    let open = |state::Door { path, ours, socket }| {
        incoming.take(socket).map(|socket| unix::Door { path, ours, socket })
    };
    door.map(open).transpose()
}

fn trouble(what: &str, error: &io::Error) -> Problems {
    Problems::one(what, format!("cannot go on with what the program before has left: {error}"))
}
