//! Builds everything from a [`Config`], owns the tasks, and ends the run.

mod control;
mod doors;
mod ending;
mod inheritance;
mod limits;
pub mod privileges;
mod ready;
mod rolling;
mod status;
mod summary;
mod testament;
mod watchers;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::control::{Control, Parts};
use self::ending::{finished, judge, report, stop};
use self::inheritance::Inheritance;
use self::testament::Testament;
use self::watchers::Watchers;
use crate::admin::Authority;
use crate::config::{Config, Problems, Source};
use crate::drain::{Drain, Phase};
use crate::front::Front;
use crate::listener::{self, Gate, Servers};
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::pool::{Common, Draft, Pool, Pools, Ways};
use crate::sys;
use crate::sys::unix::Door;
use crate::systemd::{Notify, Passed, Watchdog};
use crate::telemetry::{Event, Telemetry};
use crate::types::ServerId;
use crate::upgrade::{Carried, Order, Orders, state};
use crate::watching::{self, Code};
use crate::worker::{JoinSocket, node, supervisor};

/// Servers whose first worker has just become ready and that are not accepted for yet. Far above
/// what a program has.
const MOST_SERVERS: usize = 1024;

/// Orders of the admin interface that wait for their turn; more wait where they come from.
const MOST_ORDERS: usize = 16;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everybody left by themselves.
    Drained,
    /// Nothing works any more.
    GaveUp,
    /// The configuration, or what it meets on this machine, is at fault.
    Misconfigured,
    /// Workers had to be ended.
    Cut,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::GaveUp => 1,
            Self::Misconfigured => 2,
            Self::Cut => 3,
        }
    }
}

/// Everything a run needs before its first worker starts.
#[derive(Debug)]
pub struct App {
    config: Config,
    drafts: Vec<Draft>,
    /// What the program before has left, if there was one in this process.
    carried: Option<Carried>,
}

impl App {
    /// Loads the policies; starts nothing.
    ///
    /// # Errors
    /// When a policy cannot be used.
    pub fn new(config: Config) -> Result<Self, Problems> {
        Ok(Self { drafts: drafts(&config, &[])?, config, carried: None })
    }

    /// Loads the policies with the states that the program before has left; touches nothing else of it yet.
    ///
    /// # Errors
    /// When a policy cannot be used, or the settings name something that was opened otherwise.
    pub fn resume(config: Config, carried: Carried) -> Result<Self, Problems> {
        inheritance::fits(&config, &carried)?;
        Ok(Self { drafts: drafts(&config, &carried.run.pools)?, config, carried: Some(carried) })
    }

    /// One line on what would run.
    #[must_use]
    pub fn describe(&self) -> String {
        let one = |(draft, (name, config)): (&Draft, (Arc<str>, &Config))| {
            let policy = summary::policy(&draft.policy);
            let pool = if self.drafts.len() > 1 { format!("{name}: ") } else { String::new() };
            match config.workers {
                0 => format!("{pool}workers that join, policy {policy}"),
                workers => format!("{pool}{workers} × {}, policy {policy}", config.command.join(" ")),
            }
        };
        self.drafts.iter().zip(self.config.each()).map(one).collect::<Vec<_>>().join("; ")
    }

    /// Serves until a signal ends it or nothing works any more; on sockets that were `passed` where there
    /// are any. `source` is what the configuration was read from, and is read from again.
    ///
    /// # Errors
    /// What is wrong with the configuration on this machine, such as a port that is taken.
    pub async fn run(self, source: Source, mut passed: Passed) -> Result<Outcome, Problems> {
        let Self { config, drafts, carried } = self;
        let telemetry = Arc::<Telemetry>::default();
        let trouble = |what: &str, error: io::Error| Problems::one(what, error.to_string());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| trouble("signals", error))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| trouble("signals", error))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| trouble("signals", error))?;
        let mut exchange = signal(SignalKind::user_defined2()).map_err(|error| trouble("signals", error))?;
        let own = sys::exec::own_file().map_err(|error| trouble("own file", error))?;
        limits::report(&config);
        let notify = Notify::new();
        let mut watchdog = Watchdog::new();

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
        let shim = || node::Shim::resume(before.as_ref().map_or(&[], |before| &before.shim)).map(Arc::new);
        let wanted = config.each().any(|(_, config)| config.shim);
        let shim = wanted.then(shim).transpose().map_err(|error| trouble("shim", error))?;
        let servers = Arc::new(servers);
        let (fatal, mut fatals) = mpsc::channel(MOST_SERVERS);
        let (opened, mut openings) = mpsc::channel(MOST_SERVERS);
        let common = Common {
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
            shim,
            fatal,
            opened: opened.clone(),
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
        let mut watchers = Watchers::start(&config, &pools)?;

        let (drain, phases) = Drain::new();
        let pipeline = Arc::new(Pipeline {
            front: Live::new(front),
            pools: Arc::clone(&pools),
            permits: Arc::clone(&permits),
            phases: phases.clone(),
            pause: Arc::default(),
            telemetry: Arc::clone(&telemetry),
        });
        let (live, by_hand, rolling) = (Live::new(config.clone()), Live::new(by_hand), Live::new(rolling));
        let testament = Testament {
            config: live.clone(),
            by_hand: by_hand.clone(),
            rolling: rolling.clone(),
            passed: passed.places().clone(),
            started: before.as_ref().map_or_else(SystemTime::now, |before| before.started),
            pools: Arc::clone(&pools),
            servers: Arc::clone(&servers),
            pipeline: Arc::clone(&pipeline),
            telemetry: Arc::clone(&telemetry),
            admin: admin.doors().map_err(|error| trouble("admin", error))?,
            join: door(&joining).map_err(|error| trouble("join-socket", error))?,
            shim: common.shim.clone(),
        };
        let mut upgrades = Orders::new(own);
        let (desk, mut exchanges) = mpsc::channel(1);
        let gate =
            Gate { permits: Arc::clone(&permits), telemetry: Arc::clone(&telemetry), phases: phases.clone() };
        let mut listeners = JoinSet::new();

        let mut slots = JoinSet::new();
        let keep = |slots: &mut JoinSet<()>, pool: &Pool, slot| {
            let (fleet, program) = (Arc::clone(&pool.fleet), pool.program.clone());
            slots.spawn(supervisor::keep(fleet, program, slot, phases.clone()));
        };
        let mut tasks = JoinSet::new();
        for ((pool, joining), (_, config)) in pools.iter().zip(joining).zip(config.each()) {
            let closing = pool.fleet.closing();
            for slot in pool.scale(config.workers, config.retire_timeout).into_iter().chain(closing) {
                keep(&mut slots, pool, slot);
            }
            if let Some(socket) = joining {
                // As good as a slot: the run does not end while somebody may join.
                slots.spawn(socket.serve(Arc::clone(&pool.fleet), pool.terms.clone(), phases.clone()));
            }
            tasks.spawn(Arc::clone(&pipeline).take_back(Arc::clone(pool)));
        }
        tasks.spawn(ready::keep(config.ready_file.clone(), Arc::clone(&pools), Arc::clone(&servers)));
        let (orders, mut ordered) = mpsc::channel(MOST_ORDERS);
        let (fresh, mut fresh_slots) = mpsc::channel(control::MOST_WORKERS);
        tasks.spawn(admin.serve(Authority {
            pools: Arc::clone(&pools),
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
            permits: Arc::clone(&permits),
            config: live.clone(),
            rolling: rolling.clone(),
            started: testament.started,
            upgraded: before.as_ref().map(|_| SystemTime::now()),
            orders,
            upgrades: desk,
        }));
        let figures = status::Figures {
            pools: Arc::clone(&pools),
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
        };
        let all_join = config.each().all(|(_, config)| config.workers == 0);
        tasks.spawn(status::keep(notify, all_join, figures));
        let what: Vec<_> = config.each().map(|(_, config)| summary::What::of(config)).collect();
        match before {
            Some(before) => before.finish(&pipeline, &telemetry)?,
            None => {
                let (pools, servers) = (Arc::clone(&pools), Arc::clone(&servers));
                tasks.spawn(summary::print(what, page, config.log_format, pools, servers));
            }
        }

        let (changed, mut changes) = mpsc::channel(1);
        let code = config.watch.clone().map(|paths| {
            let paths = if paths.is_empty() { code_of(&config) } else { paths };
            tracing::info!(?paths, "watching code");
            // Full means that the one to come sees this change, too.
            Code::watch(paths, move || {
                let _ = changed.try_send(());
            })
        });
        let code = code.transpose().map_err(|error| Problems::one("watch", error))?;
        let ready_file = config.ready_file.clone();
        let config = live;
        let control = Control::new(
            source,
            by_hand,
            rolling,
            Parts {
                config: config.clone(),
                pools: Arc::clone(&pools),
                servers: Arc::clone(&servers),
                pipeline: Arc::clone(&pipeline),
                slots: fresh,
                fed: opened,
            },
        );
        control.go_on();
        sys::signals::release();
        let ended = loop {
            tokio::select! {
                biased;
                Some(server) = openings.recv() => open(&servers, server, &gate, &pipeline, &mut listeners),
                Some((pool, slot)) = fresh_slots.recv() => keep(&mut slots, &pool, slot),
                // Before the end of the slot that it is about.
                Some(fatal) = fatals.recv() => {
                    if let Some(ended) = judge(&fatal, &telemetry, &pools) {
                        break ended;
                    }
                }
                Some(_) = slots.join_next() => {
                    if slots.is_empty() {
                        if code.is_none() {
                            break Ok(Outcome::GaveUp);
                        }
                        tracing::warn!("no worker is left; they are started again when their code changes");
                    }
                }
                Some(()) = changes.recv() => control.code_changed(),
                Some(_) = listeners.join_next() => {}
                Some(order) = ordered.recv() => control.carry_out(order),
                _ = hangup.recv() => {
                    notify.reloading();
                    control.hang_up();
                    watchers.reopen();
                    notify.ready();
                }
                () = watchdog.due() => notify.alive(),
                _ = interrupt.recv() => break Ok(Outcome::Drained),
                _ = terminate.recv() => break Ok(Outcome::Drained),
                Some(order) = exchanges.recv() => upgrades.take(order, || testament.describe(&[])),
                _ = exchange.recv() => upgrades.take(Order::default(), || testament.describe(&[])),
                fit = upgrades.fit() => {
                    let mut ending = false;
                    let signals = || {
                        ending = interrupt.recv().now_or_never().is_some() || terminate.recv().now_or_never().is_some();
                        ending
                    };
                    testament.leave_to(fit, &mut watchers, signals).await;
                    if ending {
                        break Ok(Outcome::Drained);
                    }
                }
            }
        };
        // Nobody comes in any more, by any door.
        drop((testament, exchanges, upgrades));
        let again = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        notify.stopping();
        drain.enter(Phase::Closing);
        let config = config.now().clone();
        let stopped = async {
            finished(&mut listeners).await;
            stop(&drain, &config, &permits, &mut slots, again).await
        };
        let watched = async {
            loop {
                watchdog.due().await;
                notify.alive();
            }
        };
        let cut = tokio::select! {
            cut = stopped => cut,
            never = watched => never,
        };
        watchers.close();
        report(&telemetry);
        if let Some(path) = &ready_file {
            // Nothing is ready any more. It may never have been written.
            let _ = std::fs::remove_file(path);
        }
        match ended {
            Ok(Outcome::Drained) if cut => Ok(Outcome::Cut),
            ended => ended,
        }
    }
}

/// The folders of all commands' code.
fn code_of(config: &Config) -> Vec<PathBuf> {
    let folder = |config: &Config| {
        let own = config.folder.clone().unwrap_or_default();
        own.join(watching::folder_of(&config.command, &own))
    };
    config.each().map(|(_, config)| folder(config)).collect()
}

/// The pools of the configuration, going on where those of the program before have stopped.
fn drafts(config: &Config, before: &[state::Pool]) -> Result<Vec<Draft>, Problems> {
    let mut problems = Problems::default();
    let mut drafts = Vec::new();
    for (name, own) in config.each() {
        let before = before.iter().find(|pool| *pool.name == *name);
        match Draft::load(name, own, before) {
            Ok(draft) => drafts.push(draft),
            Err(problem) => problems.append("", problem),
        }
    }
    problems.into_result(drafts)
}

/// Descriptors of the join sockets, for the next program.
fn door(joining: &[Option<JoinSocket>]) -> io::Result<Vec<Option<Door>>> {
    joining.iter().map(|socket| socket.as_ref().map(JoinSocket::door).transpose()).collect()
}

/// A server has its first worker: its listeners begin to accept.
fn open(
    servers: &Servers,
    server: ServerId,
    gate: &Gate,
    pipeline: &Arc<Pipeline>,
    listeners: &mut JoinSet<()>,
) {
    for idle in servers.take_idle(server) {
        let address = idle.bound.address.to_string();
        if !idle.bound.resumed {
            gate.telemetry.emit(Event::Listening { address: &address });
        }
        let (gate, pipeline) = (gate.clone(), Arc::clone(pipeline));
        listeners.spawn(async move {
            let admit = |accepted| pipeline.admit(accepted);
            if let Err(error) = listener::accept(idle, server, gate, admit).await {
                tracing::error!(%error, address, "the listener is lost");
            }
        });
    }
}
