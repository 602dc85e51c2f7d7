//! Everything a run needs, opened and built, before anything of it starts.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Semaphore, mpsc};

use super::inheritance::Inheritance;
use super::testament::Testament;
use super::watchers::Watchers;
use super::{App, doors};
use crate::admin::Admin;
use crate::config::{Config, Problems};
use crate::drain::Drain;
use crate::front::Front;
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::pool::{Common, Pools, Ways};
use crate::sys::unix::Door;
use crate::systemd::Passed;
use crate::telemetry::Telemetry;
use crate::types::ServerId;
use crate::worker::{Fatal, JoinSocket, node};

/// Servers whose first worker has just become ready and that are not accepted for yet. Far above
/// what a program has.
const MOST_SERVERS: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) config: Config,
    /// What the run is made of, also for the next program.
    pub(super) testament: Testament,
    pub(super) drain: Drain,
    /// Of each pool.
    pub(super) joining: Vec<Option<JoinSocket>>,
    pub(super) admin: Admin,
    /// Where the admin interface's page is.
    pub(super) page: Option<String>,
    pub(super) watchers: Watchers,
    /// What is still to be taken over.
    pub(super) before: Option<Inheritance>,
    /// Servers that have listeners nobody serves yet: told here, …
    pub(super) fed: mpsc::Sender<ServerId>,
    /// … and heard of there.
    pub(super) waiting: mpsc::Receiver<ServerId>,
    pub(super) fatals: mpsc::Receiver<(Arc<str>, Fatal)>,
}

impl Opened {
    /// # Errors
    /// What is wrong with the configuration on this machine.
    pub(super) async fn new(app: App, mut passed: Passed) -> Result<Self, Problems> {
        let App { config, drafts, carried } = app;
        let telemetry = Arc::<Telemetry>::default();
        let front = Front::new(config.front.clone(), config.peek);
        let permits = Arc::new(Semaphore::new(config.max_pending));
        let by_hand = carried.as_ref().map(|carried| carried.run.by_hand()).unwrap_or_default();
        let rolling = carried.as_ref().and_then(|carried| carried.run.rolling.clone());
        let mut before =
            carried.map(|carried| Inheritance::new(carried, &permits, front.shares(), &telemetry));

        let servers = match &mut before {
            Some(before) => before.servers(&config)?,
            None => doors::servers(&config, &mut passed)?,
        };
        let servers = Arc::new(servers);
        let (fatal, fatals) = mpsc::channel(MOST_SERVERS);
        let (fed, waiting) = mpsc::channel(MOST_SERVERS);
        let common = Common {
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
            shim: shim(&config, before.as_ref()).map_err(|error| trouble("shim", &error))?,
            fatal,
            opened: fed.clone(),
            ways: Arc::new(Ways::new(&config)),
        };
        let joining = doors::joins(&config, &mut passed, &mut before)?;
        let (admin, page) = doors::admin(&config, &mut passed, &mut before).await?;
        passed.used_up()?;

        let built = drafts.into_iter().zip(config.each());
        let built = built.map(|(draft, (_, config))| draft.build(config, &common).map(Arc::new));
        let built = built.collect::<Result<_, _>>()?;
        let pools = Arc::new(Pools::new(built, Arc::clone(&common.ways), Arc::clone(&servers)));
        if let Some(before) = &mut before {
            pools.iter().try_for_each(|pool| before.pool(pool))?;
        }
        let watchers = Watchers::start(&config, &pools)?;
        let (drain, phases) = Drain::new();
        let pipeline = Pipeline {
            front: Live::new(front),
            pools: Arc::clone(&pools),
            permits,
            phases,
            pause: Arc::default(),
            telemetry: Arc::clone(&telemetry),
        };
        let testament = Testament {
            config: Live::new(config.clone()),
            by_hand: Live::new(by_hand),
            rolling: Live::new(rolling),
            passed: passed.places().clone(),
            started: before.as_ref().map_or_else(SystemTime::now, |before| before.started),
            pools,
            servers,
            pipeline: Arc::new(pipeline),
            telemetry,
            admin: admin.doors().map_err(|error| trouble("admin", &error))?,
            join: door(&joining).map_err(|error| trouble("join-socket", &error))?,
            shim: common.shim.clone(),
        };
        Ok(Self { config, testament, drain, joining, admin, page, watchers, before, fed, waiting, fatals })
    }
}

fn trouble(what: &str, error: &io::Error) -> Problems {
    Problems::one(what, error.to_string())
}

/// What Node workers preload, where the program before has left it or somewhere new.
fn shim(config: &Config, before: Option<&Inheritance>) -> io::Result<Option<Arc<node::Shim>>> {
    let wanted = config.each().any(|(_, config)| config.shim);
    let known = before.map_or(&[][..], |before| &before.shim);
    wanted.then(|| node::Shim::resume(known).map(Arc::new)).transpose()
}

/// Descriptors of the join sockets, for the next program.
fn door(joining: &[Option<JoinSocket>]) -> io::Result<Vec<Option<Door>>> {
    joining.iter().map(|socket| socket.as_ref().map(JoinSocket::door).transpose()).collect()
}
