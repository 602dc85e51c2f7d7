//! What this program leaves to the next one.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::watchers::Watchers;
use crate::admin::Doors;
use crate::config::{Config, Given, Overrides};
use crate::listener::Servers;
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::policy::PolicyLink;
use crate::pool::{Pool, Pools};
use crate::sys::{exec, signals, unix};
use crate::telemetry::{Event, Telemetry};
use crate::upgrade::{Carried, Fit, Outgoing, Waiting, state};
use crate::worker::{Rolling, node};

/// Everything a run consists of.
#[derive(Debug)]
pub struct Testament {
    /// What runs.
    pub config: Live<Config>,
    /// Settings that were changed by hand.
    pub by_hand: Live<Overrides>,
    pub rolling: Live<Option<Rolling>>,
    /// Where sockets are that were opened for the first program, by setting.
    pub passed: BTreeMap<String, PathBuf>,
    pub started: SystemTime,
    pub pools: Arc<Pools>,
    pub servers: Arc<Servers>,
    pub pipeline: Arc<Pipeline>,
    pub telemetry: Arc<Telemetry>,
    pub admin: Doors,
    /// By pool.
    pub join: Vec<Option<unix::Door>>,
    pub shim: Option<Arc<node::Shim>>,
}

impl Testament {
    /// This run as it is now.
    pub fn describe(&self, aside: &[Waiting]) -> Carried {
        let mut out = Outgoing::default();
        let Telemetry { counters, refusals, .. } = &*self.telemetry;
        let door = |door: &Option<unix::Door>, out: &mut Outgoing| {
            let door = door.as_ref()?;
            Some(state::Door { path: door.path.clone(), ours: door.ours, socket: out.add(&door.socket) })
        };
        let config = self.config.whole();
        let by_hand = self.by_hand.whole();
        let by_hand = by_hand.iter().filter_map(|(path, given)| match given {
            Given::Text(text) => Some((path.clone(), text.clone())),
            _ => None,
        });
        let configs = config.each().map(|(_, config)| config);
        let pools = self.pools.iter().zip(&self.join).zip(configs);
        let run = state::Run {
            fixed: config.fixed(),
            by_hand: by_hand.collect(),
            passed: self.passed.clone(),
            started: self.started,
            stopped: exec::monotonic(),
            counters: counters.snapshot().map(|(name, count)| (name.to_owned(), count)).collect(),
            refusals: refusals
                .counts()
                .map(|(cause, status, count)| (cause.name().into(), status, count))
                .collect(),
            admin: state::Admin {
                socket: door(&self.admin.socket, &mut out),
                tcp: self.admin.tcp.as_ref().map(|listener| out.add(listener)),
            },
            shim: self.shims(),
            servers: self.servers.carry(&mut out),
            connections: aside.iter().map(|waiting| waiting.carry(&mut out)).collect(),
            pools: pools
                .map(|((pool, join), config)| state::Pool {
                    join: door(join, &mut out),
                    ..describe(pool, config.shadow.as_ref(), &mut out)
                })
                .collect(),
            rolling: self.rolling.now().clone(),
        };
        Carried::new(run, out.numbers())
    }

    /// Where the shim lies, for whoever has it. A reload may have written another one.
    fn shims(&self) -> Vec<PathBuf> {
        let programs = self.pools.iter().filter_map(|pool| pool.program.now().shim.clone());
        let shims = self.shim.iter().cloned().chain(programs);
        let mut folders = Vec::new();
        for folder in shims.flat_map(|shim| shim.carry()) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }

    /// Leaves this process to another program. Returns only when that fails, or when `ending` says that
    /// the run is to end; then everything goes on as before.
    pub async fn leave_to(&self, fit: Fit, watchers: &mut Watchers, ending: impl FnOnce() -> bool) {
        // What comes from here on is for the next program.
        signals::hold();
        watchers.end_traces().await;
        let aside = self.pipeline.put_aside().await;
        let why = if ending() {
            "the run is ending".to_owned()
        } else {
            // Nothing is awaited any more, so nothing changes.
            let carried = self.describe(&aside);
            let pools = &carried.run.pools;
            let sessions = |pool: &state::Pool| pool.sessions.owners.len() + pool.sessions.fleeting.len();
            self.telemetry.emit(Event::Upgrading {
                program: &fit.program,
                version: &fit.version,
                check: fit.took,
                workers: pools.iter().map(|pool| pool.fleet.workers.len()).sum(),
                sessions: pools.iter().map(sessions).sum(),
                connections: carried.run.connections.len(),
            });
            watchers.close();
            let error: io::Error = carried.leave_to(&fit.program);
            format!("{} cannot be executed: {error}", fit.program.display())
        };
        watchers.restart(&self.config.whole(), &self.pools);
        self.pipeline.pause.end();
        self.pipeline.go_on(aside);
        signals::release();
        fit.refuse(why);
    }
}

/// A pool as it is now, without its door. `shadow` is the one that the settings name.
fn describe(pool: &Pool, shadow: Option<&PolicyLink>, out: &mut Outgoing) -> state::Pool {
    state::Pool {
        name: pool.name.to_string(),
        join: None,
        sessions: pool.sessions.carry(),
        chain: state::Chain { seen: pool.watch.carry(), ..pool.policy.carry() },
        shadow: state::Shadow {
            policy: pool.shadows.policy().as_ref().map(state::Policy::of),
            configured: shadow.map(state::Policy::of),
        },
        fleet: pool.fleet.carry(out),
    }
}
