//! Builds everything from a [`Config`], owns the tasks, and ends the run.

mod control;
mod limits;
pub mod privileges;
mod ready;
mod status;
mod summary;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::control::{Control, Parts};
use crate::access_log::AccessLog;
use crate::admin::{self, Admin, Authority, Token};
use crate::config::{self, Config, Problems, Source};
use crate::drain::{Drain, Phase};
use crate::front::Front;
use crate::listener::{self, Bound, Gate, Servers};
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::pool::{self, Common, Draft, Pool, Pools, Ways};
use crate::systemd::{Notify, Passed, Watchdog};
use crate::telemetry::{Event, Telemetry};
#[cfg(feature = "otlp")]
use crate::traces::Traces;
use crate::types::ServerId;
use crate::watching::{self, Code};
use crate::worker::{Fatal, JoinSettings, JoinSocket, node, supervisor};

/// Servers whose first worker has just become ready and that are not accepted for yet. Far above
/// what a program has.
const MOST_SERVERS: usize = 1024;

/// Orders of the admin interface that wait for their turn; more wait where they come from.
const MOST_ORDERS: usize = 16;

/// Time for connections on their way to reach a worker when the run ends.
const SETTLE: Duration = Duration::from_secs(2);

/// Between SIGTERM and SIGKILL for a worker that outstays the drain.
const GRACE: Duration = Duration::from_secs(2);

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
}

impl App {
    /// Loads the policies; starts nothing.
    ///
    /// # Errors
    /// When a policy cannot be used.
    pub fn new(config: Config) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut drafts = Vec::new();
        for (name, own) in config.each() {
            match Draft::load(name, own) {
                Ok(draft) => drafts.push(draft),
                Err(problem) => problems.append("", problem),
            }
        }
        problems.into_result(Self { drafts, config })
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
        let Self { config, drafts } = self;
        let telemetry = Arc::<Telemetry>::default();
        let trouble = |what: &str, error: io::Error| Problems::one(what, error.to_string());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| trouble("signals", error))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| trouble("signals", error))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| trouble("signals", error))?;
        limits::report(&config);
        let notify = Notify::new();
        let mut watchdog = Watchdog::new();

        let opened = adopt(passed.listeners(), config.peek.timeout)?;
        let servers = Servers::new(&config.listens(), opened, config.opening, config.peek.timeout)
            .map_err(bind_problems)?;
        let shim = config.each().any(|(_, config)| config.shim);
        let shim = shim.then(node::Shim::write).transpose().map_err(|error| trouble("shim", error))?;
        let servers = Arc::new(servers);
        let (fatal, mut fatals) = mpsc::channel(MOST_SERVERS);
        let (opened, mut openings) = mpsc::channel(MOST_SERVERS);
        let common = Common {
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
            shim: shim.map(Arc::new),
            fatal,
            opened: opened.clone(),
            ways: Arc::new(Ways::new(&config)),
        };
        let mut joining = Vec::new();
        let mut join =
            |settings: JoinSettings| JoinSocket::bind(&settings, passed.named("join-socket", &settings.path));
        for (name, config) in config.each() {
            let socket = config.join().map(&mut join).transpose();
            joining.push(socket.map_err(|error| trouble(&pool::place(&name, "join-socket"), error))?);
        }
        let (admin, page) = bind_admin(&config, &mut passed).await?;
        passed.used_up()?;
        let built = drafts.into_iter().zip(config.each());
        let built = built.map(|(draft, (_, config))| draft.build(config, &common).map(Arc::new));
        let built = built.collect::<Result<_, _>>()?;
        let pools = Arc::new(Pools::new(built, Arc::clone(&common.ways), Arc::clone(&servers)));

        let access_log = config.access_log().map(|settings| {
            AccessLog::start(&settings, &pools)
                .map_err(|error| Problems::one("access-log", format!("{}: {error}", settings.path.display())))
        });
        let access_log = access_log.transpose()?;

        #[cfg(feature = "otlp")]
        let traces = {
            let problem = |error: String| Problems::one("otlp-endpoint", error);
            let start =
                |settings| Traces::start(settings, &pools).map_err(|error| problem(error.to_string()));
            config.traces().map_err(problem)?.map(start).transpose()?
        };

        let permits = Arc::new(Semaphore::new(config.max_pending));
        let (drain, phases) = Drain::new();
        let pipeline = Arc::new(Pipeline {
            front: Live::new(Front::new(config.front.clone(), config.peek)),
            pools: Arc::clone(&pools),
            permits: Arc::clone(&permits),
            phases: phases.clone(),
            telemetry: Arc::clone(&telemetry),
        });
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
            for slot in pool.scale(config.workers, config.retire_timeout) {
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
        let live = Live::new(config.clone());
        tasks.spawn(admin.serve(Authority {
            pools: Arc::clone(&pools),
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
            permits: Arc::clone(&permits),
            config: live.clone(),
            started: SystemTime::now(),
            orders,
        }));
        let figures = status::Figures {
            pools: Arc::clone(&pools),
            servers: Arc::clone(&servers),
            telemetry: Arc::clone(&telemetry),
        };
        let all_join = config.each().all(|(_, config)| config.workers == 0);
        tasks.spawn(status::keep(notify, all_join, figures));
        let what: Vec<_> = config.each().map(|(_, config)| summary::What::of(config)).collect();
        tasks.spawn(summary::print(what, page, config.log_format, Arc::clone(&pools), Arc::clone(&servers)));

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
            Parts {
                config: config.clone(),
                pools: Arc::clone(&pools),
                servers: Arc::clone(&servers),
                pipeline: Arc::clone(&pipeline),
                slots: fresh,
                fed: opened,
            },
        );
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
                    access_log.iter().for_each(AccessLog::reopen);
                    notify.ready();
                }
                () = watchdog.due() => notify.alive(),
                _ = interrupt.recv() => break Ok(Outcome::Drained),
                _ = terminate.recv() => break Ok(Outcome::Drained),
            }
        };
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
        access_log.into_iter().for_each(AccessLog::close);
        #[cfg(feature = "otlp")]
        traces.into_iter().for_each(Traces::close);
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

/// The admin interface, where it is wanted, and the address of its page.
async fn bind_admin(config: &Config, passed: &mut Passed) -> Result<(Admin, Option<String>), Problems> {
    let mut admin = Admin::default();
    let path = match &config.admin {
        config::Admin::Off => None,
        config::Admin::At(path) => Some(path.clone()),
        config::Admin::Default => {
            admin::own().inspect_err(|error| tracing::warn!(%error, "no admin socket")).ok()
        }
    };
    if let Some(path) = path {
        let trouble = |error| Problems::one("admin", format!("{}: {error}", path.display()));
        admin.bind(&path, passed.named("admin", &path)).map_err(trouble)?;
    }
    let Some(address) = config.admin_listen else { return Ok((admin, None)) };
    let token = config.admin_token_file.as_deref().map(Token::keep).transpose();
    let token = token.map_err(|error| Problems::one("admin-token-file", error.to_string()))?;
    let open = token.is_none();
    let trouble = |error| Problems::one("admin-listen", format!("{address}: {error}"));
    let page = format!("http://{}/", admin.listen(address, token).await.map_err(trouble)?);
    tracing::info!(page, "admin interface over TCP");
    if open {
        tracing::info!("every process on this machine may act there; admin-token-file asks for a token");
    }
    Ok((admin, Some(page)))
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
        gate.telemetry.emit(Event::Listening { address: &address });
        let (gate, pipeline) = (gate.clone(), Arc::clone(pipeline));
        listeners.spawn(async move {
            let admit = |accepted| pipeline.admit(accepted);
            if let Err(error) = listener::accept(idle, server, gate, admit).await {
                tracing::error!(%error, address, "the listener is lost");
            }
        });
    }
}

/// Whether a grave event ends the run, and how. While other workers serve, the run goes on.
fn judge(
    (pool, fatal): &(Arc<str>, Fatal),
    telemetry: &Telemetry,
    pools: &Pools,
) -> Option<Result<Outcome, Problems>> {
    let served = telemetry.counters.workers_ready.get() > 0;
    let problem = |key: &str, text: String| Problems::one(pool::place(pool, key), text);
    let problem = match fatal {
        Fatal::Wrapper { name } => {
            let command = pools.named(Some(pool)).ok().map(|pool| pool.program.now().command.clone());
            let command = command.as_ref().and_then(|command| command.first());
            let name = command.filter(|word| word.contains(name.as_str())).unwrap_or(name);
            problem("command", node::advice(name, std::path::Path::new(".")))
        }
        Fatal::NoAddress { .. } => problem("listen", fatal.to_string()),
        Fatal::Bind(_) if !served => problem("listen", fatal.to_string()),
        Fatal::Start { .. } if !served => problem("command", fatal.to_string()),
        Fatal::Bind(error) => {
            tracing::error!(%error, "a worker asks for an address that cannot be had");
            return None;
        }
        Fatal::Start { .. } | Fatal::GivenUp { .. } => {
            telemetry.emit(Event::SlotGivenUp { reason: &fatal.to_string() });
            // The slot's task ends with its report; the run ends with its last slot.
            return None;
        }
    };
    Some(Err(problem))
}

/// Ends the run in order, once its listeners are closed: connections on their way, workers. True
/// when something had to be cut off.
async fn stop(
    drain: &Drain,
    config: &Config,
    permits: &Arc<Semaphore>,
    slots: &mut JoinSet<()>,
    again: impl Future<Output = ()>,
) -> bool {
    tracing::info!(limit = ?config.drain_timeout, "draining; a second signal stops at once");
    let all = u32::try_from(config.max_pending).unwrap_or(u32::MAX);
    let orderly = async {
        // Every permit back means that every connection is in a worker's hands or gone.
        drop(timeout(SETTLE.min(config.drain_timeout), permits.acquire_many(all)).await);
        drain.enter(Phase::Draining);
        timeout(config.drain_timeout, finished(slots)).await.is_ok()
    };
    let drained = tokio::select! {
        drained = orderly => drained,
        () = again => {
            drain.enter(Phase::Cutting);
            false
        }
    };
    if drained {
        return false;
    }
    tracing::warn!(left = slots.len(), "workers are still there; they are ended");
    drain.enter(Phase::Ending);
    if timeout(GRACE, finished(slots)).await.is_err() {
        drain.enter(Phase::Cutting);
        finished(slots).await;
    }
    true
}

/// Waits for the end of every task.
async fn finished(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The figures of the whole run, in one line.
fn report(telemetry: &Telemetry) {
    let figures: serde_json::Map<_, _> =
        telemetry.counters.snapshot().map(|(name, count)| (name.to_owned(), count.into())).collect();
    tracing::info!(figures = %serde_json::Value::from(figures), "ended");
}

/// Sockets that were opened for us.
fn adopt(descriptors: Vec<OwnedFd>, defer: Duration) -> Result<Vec<Bound>, Problems> {
    let mut problems = Problems::default();
    let adopted = descriptors.into_iter().filter_map(|descriptor| {
        let problem = |error: io::Error| problems.add("listen", format!("a passed socket: {error}"));
        Bound::adopt(descriptor, defer).map_err(problem).ok()
    });
    let adopted = adopted.collect();
    problems.into_result(adopted)
}

fn bind_problems(errors: Vec<listener::BindError>) -> Problems {
    let mut problems = Problems::default();
    for error in errors {
        problems.add("listen", error.to_string());
    }
    problems
}
