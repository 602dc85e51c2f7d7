//! A run while it lasts: its tasks, and what it attends to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::control::{Control, MOST_WORKERS, Parts};
use super::ending::{finished, judge, report, stop};
use super::opened::Opened;
use super::signals::{Asked, Signals};
use super::testament::Testament;
use super::watchers::Watchers;
use super::{Outcome, ready, status, summary};
use crate::admin::{Authority, Order};
use crate::config::{Config, Problems, Source};
use crate::drain::{Drain, Phase};
use crate::listener::{self, Gate};
use crate::pool::Pool;
use crate::systemd::{Notify, Watchdog};
use crate::telemetry::Event;
use crate::types::ServerId;
use crate::upgrade::{self, Orders};
use crate::watching::{self, Code};
use crate::worker::{Fatal, supervisor};

/// Orders of the admin interface that wait for their turn; more wait where they come from.
const MOST_ORDERS: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Running {
    testament: Testament,
    control: Control,
    upgrades: Orders,
    watchers: Watchers,
    notify: Notify,
    watchdog: Watchdog,
    drain: Drain,
    /// Watches the workers' code, where that is wanted.
    code: Option<Code>,
    ready_file: Option<PathBuf>,
    inbox: Inbox,
    /// Each accepts at one address.
    listeners: JoinSet<()>,
    /// Each keeps a slot filled, or lets workers join. With the last one the run is over.
    slots: JoinSet<()>,
    /// What goes on beside them until the run has ended.
    _tasks: JoinSet<()>,
}

/// What is reported to it, and what it is asked for.
#[derive(Debug)]
struct Inbox {
    /// Servers that have listeners nobody serves yet.
    servers: mpsc::Receiver<ServerId>,
    /// Slots that are to be kept filled from now on.
    slots: mpsc::Receiver<(Arc<Pool>, String)>,
    fatals: mpsc::Receiver<(Arc<str>, Fatal)>,
    code: mpsc::Receiver<()>,
    orders: mpsc::Receiver<Order>,
    upgrades: mpsc::Receiver<upgrade::Order>,
}

impl Running {
    /// Starts the workers and everything that goes on beside them.
    ///
    /// # Errors
    /// When code that is to be watched cannot be, or what the program before has left is damaged.
    pub(super) fn start(opened: Opened, source: Source, own: PathBuf) -> Result<Self, Problems> {
        let Opened { config, testament, drain, joining, admin, page, watchers, before, fed, waiting, fatals } =
            opened;
        let Testament { pipeline, telemetry, .. } = &testament;
        let pools = || Arc::clone(&testament.pools);
        let servers = || Arc::clone(&testament.servers);
        let notify = Notify::new();
        let watchdog = Watchdog::new();

        let (mut slots, mut tasks) = (JoinSet::new(), JoinSet::new());
        for ((pool, joining), (_, config)) in testament.pools.iter().zip(joining).zip(config.each()) {
            let closing = pool.fleet.closing();
            for slot in pool.scale(config.workers, config.retire_timeout).into_iter().chain(closing) {
                keep(&mut slots, &testament, pool, slot);
            }
            if let Some(socket) = joining {
                // As good as a slot: the run does not end while somebody may join.
                let phases = pipeline.phases.clone();
                slots.spawn(socket.serve(Arc::clone(&pool.fleet), pool.terms.clone(), phases));
            }
            tasks.spawn(Arc::clone(pipeline).take_back(Arc::clone(pool)));
        }
        let (order, orders) = mpsc::channel(MOST_ORDERS);
        let (desk, upgrades) = mpsc::channel(1);
        tasks.spawn(admin.serve(Authority {
            pools: pools(),
            servers: servers(),
            telemetry: Arc::clone(telemetry),
            permits: Arc::clone(&pipeline.permits),
            config: testament.config.clone(),
            rolling: testament.rolling.clone(),
            started: testament.started,
            upgraded: before.as_ref().map(|_| SystemTime::now()),
            orders: order,
            upgrades: desk,
        }));
        tasks.spawn(ready::keep(config.ready_file.clone(), pools(), servers()));
        let figures =
            status::Figures { pools: pools(), servers: servers(), telemetry: Arc::clone(telemetry) };
        let all_join = config.each().all(|(_, config)| config.workers == 0);
        tasks.spawn(status::keep(notify, all_join, figures, pipeline.phases.clone()));
        match before {
            Some(before) => before.finish(pipeline, telemetry)?,
            None => {
                let what = config.each().map(|(_, config)| summary::What::of(config)).collect();
                tasks.spawn(summary::print(what, page, config.log_format, pools(), servers()));
            }
        }

        let (changed, code_changes) = mpsc::channel(1);
        let code = watch(&config, changed).transpose()?;
        let (fresh, fresh_slots) = mpsc::channel(MOST_WORKERS);
        let parts = Parts {
            config: testament.config.clone(),
            pools: pools(),
            servers: servers(),
            pipeline: Arc::clone(pipeline),
            slots: fresh,
            fed,
        };
        let control = Control::new(source, testament.by_hand.clone(), testament.rolling.clone(), parts);
        control.go_on();
        Ok(Self {
            testament,
            control,
            upgrades: Orders::new(own),
            watchers,
            notify,
            watchdog,
            drain,
            code,
            ready_file: config.ready_file,
            inbox: Inbox {
                servers: waiting,
                slots: fresh_slots,
                fatals,
                code: code_changes,
                orders,
                upgrades,
            },
            listeners: JoinSet::new(),
            slots,
            _tasks: tasks,
        })
    }

    /// Attends to whatever happens, until something ends the run.
    ///
    /// # Errors
    /// What is wrong with the configuration and has shown only now.
    pub(super) async fn attend(&mut self, signals: &mut Signals) -> Result<Outcome, Problems> {
        loop {
            tokio::select! {
                biased;
                Some(server) = self.inbox.servers.recv() => self.accept(server),
                Some((pool, slot)) = self.inbox.slots.recv() => {
                    keep(&mut self.slots, &self.testament, &pool, slot);
                }
                // Before the end of the slot that it is about.
                Some(fatal) = self.inbox.fatals.recv() => {
                    let Testament { telemetry, pools, .. } = &self.testament;
                    if let Some(ended) = judge(&fatal, telemetry, pools) {
                        return ended;
                    }
                }
                Some(_) = self.slots.join_next() => {
                    if self.slots.is_empty() {
                        if self.code.is_none() {
                            return Ok(Outcome::GaveUp);
                        }
                        tracing::warn!("no worker is left; they are started again when their code changes");
                    }
                }
                Some(()) = self.inbox.code.recv() => self.control.code_changed(),
                Some(_) = self.listeners.join_next() => {}
                Some(order) = self.inbox.orders.recv() => self.control.carry_out(order),
                () = self.watchdog.due() => self.notify.alive(),
                asked = signals.next() => match asked {
                    Asked::End => return Ok(Outcome::Drained),
                    Asked::Reload => self.reload(),
                    Asked::Upgrade => self.upgrade(upgrade::Order::default()),
                },
                Some(order) = self.inbox.upgrades.recv() => self.upgrade(order),
                fit = self.upgrades.fit() => {
                    let mut ending = false;
                    let seen = || {
                        ending = signals.is_end();
                        ending
                    };
                    self.testament.leave_to(fit, &mut self.watchers, seen).await;
                    if ending {
                        return Ok(Outcome::Drained);
                    }
                }
            }
        }
    }

    /// Ends in order: nobody comes in any more, and who is in may finish. True when something had to be cut off.
    pub(super) async fn end(self, signals: &mut Signals) -> bool {
        let Self {
            testament,
            upgrades,
            mut watchers,
            notify,
            mut watchdog,
            drain,
            mut listeners,
            mut slots,
            ..
        } = self;
        let (config, pipeline) = (testament.config.whole(), Arc::clone(&testament.pipeline));
        // By any door.
        drop((testament, upgrades, self.inbox.upgrades));
        notify.stopping();
        drain.enter(Phase::Closing);
        let stopped = async {
            finished(&mut listeners).await;
            stop(&drain, &config, &pipeline.permits, &mut slots, signals.end()).await
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
        report(&pipeline.telemetry);
        if let Some(path) = &self.ready_file {
            // Nothing is ready any more. It may never have been written.
            let _ = std::fs::remove_file(path);
        }
        cut
    }

    fn reload(&mut self) {
        self.notify.reloading();
        self.control.hang_up();
        self.watchers.reopen();
        self.notify.ready();
    }

    fn upgrade(&mut self, order: upgrade::Order) {
        self.upgrades.take(order, || self.testament.describe(&[]));
    }

    /// A server has its first worker, or a listener that is new: what listens for it begins to accept.
    fn accept(&mut self, server: ServerId) {
        let Testament { servers, pipeline, .. } = &self.testament;
        let gate = Gate {
            permits: Arc::clone(&pipeline.permits),
            telemetry: Arc::clone(&pipeline.telemetry),
            phases: pipeline.phases.clone(),
        };
        for idle in servers.take_idle(server) {
            let address = idle.bound.address.to_string();
            if !idle.bound.resumed {
                pipeline.telemetry.emit(Event::Listening { address: &address });
            }
            let (gate, pipeline) = (gate.clone(), Arc::clone(pipeline));
            self.listeners.spawn(async move {
                let admit = |accepted| pipeline.admit(accepted);
                if let Err(error) = listener::accept(idle, server, gate, admit).await {
                    tracing::error!(%error, address, "the listener is lost");
                }
            });
        }
    }
}

/// A slot is kept filled from now on.
fn keep(slots: &mut JoinSet<()>, run: &Testament, pool: &Pool, slot: String) {
    let (fleet, program) = (Arc::clone(&pool.fleet), pool.program.clone());
    slots.spawn(supervisor::keep(fleet, program, slot, run.pipeline.phases.clone()));
}

/// Watches the workers' code, if that is wanted.
fn watch(config: &Config, changed: mpsc::Sender<()>) -> Option<Result<Code, Problems>> {
    let paths = config.watch.clone()?;
    let paths = if paths.is_empty() { code_of(config) } else { paths };
    tracing::info!(?paths, "watching code");
    let code = Code::watch(paths, move || {
        // Full means that the one to come sees this change, too.
        let _ = changed.try_send(());
    });
    Some(code.map_err(|error| Problems::one("watch", error)))
}

/// The folders of all commands' code.
fn code_of(config: &Config) -> Vec<PathBuf> {
    let folder = |config: &Config| {
        let own = config.folder.clone().unwrap_or_default();
        own.join(watching::folder_of(&config.command, &own))
    };
    config.each().map(|(_, config)| folder(config)).collect()
}
