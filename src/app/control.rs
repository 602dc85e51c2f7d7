//! The run changes while it goes on: another configuration, more or fewer workers.
//!
//! A reload first reads, compares and tries out: policies are loaded and called, new listeners are bound.
//! Whatever is wrong is told at once, and nothing has changed. What follows then happens in one go, between
//! two connections: settings are exchanged whole, workers that are not wanted drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc};

use super::rolling::Rolls;
use crate::admin::{Order, Reloaded, Scaled};
use crate::config::{Change, Config, Diff, Given, Overrides, Problems, Source};
use crate::listener::{Relisten, Servers};
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::pool::{DEFAULT, Pool, Pools, Tried, place};
use crate::telemetry::{Event, Telemetry, trace};
use crate::types::ServerId;
use crate::worker::Rolling;

/// Far above what anybody has cores for.
pub(super) const MOST_WORKERS: usize = 1024;

/// What takes orders about the whole run.
#[derive(Debug, Clone)]
pub(super) struct Control(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    source: Source,
    by_hand: Live<Overrides>,
    parts: Parts,
    rolls: Rolls,
}

/// Everything an order may change.
#[derive(Debug)]
pub(super) struct Parts {
    /// What runs.
    pub(super) config: Live<Config>,
    pub(super) pools: Arc<Pools>,
    pub(super) servers: Arc<Servers>,
    pub(super) pipeline: Arc<Pipeline>,
    /// Slots that are to be kept filled from now on.
    pub(super) slots: mpsc::Sender<(Arc<Pool>, String)>,
    /// Servers that have listeners nobody serves yet.
    pub(super) fed: mpsc::Sender<ServerId>,
}

impl Control {
    /// Goes on with what was changed `by_hand` before.
    pub(super) fn new(
        source: Source,
        by_hand: Live<Overrides>,
        rolling: Live<Option<Rolling>>,
        parts: Parts,
    ) -> Self {
        let rolls = Rolls::new(Arc::clone(&parts.pools), rolling);
        Self(Arc::new(Mutex::new(Inner { source, by_hand, parts, rolls })))
    }

    /// Goes on with a rolling restart that the program before has begun.
    pub(super) fn go_on(&self) {
        let control = self.clone();
        tokio::spawn(async move { control.0.lock().await.rolls.go_on(&control) });
    }

    /// Carries an order out, aside: connections do not wait for it.
    pub(super) fn carry_out(&self, order: Order) {
        let control = self.clone();
        tokio::spawn(async move {
            match order {
                // Whoever asked may have gone; what was asked is done all the same.
                Order::Reload { dry_run, reply } => drop(reply.send(control.reload(dry_run).await)),
                Order::Scale { pool, workers, within, reply } => {
                    drop(reply.send(control.0.lock().await.scale(pool.as_deref(), workers, within)));
                }
                Order::Restart { pool, slots, within, reply } => {
                    drop(reply.send(control.restart(pool.as_deref(), slots.as_deref(), within).await));
                }
                Order::Log { filter, reply } => drop(reply.send(control.0.lock().await.log(filter))),
            }
        });
    }

    /// As an order nobody waits for: the log tells what has come of it.
    pub(super) fn hang_up(&self) {
        let control = self.clone();
        tokio::spawn(async move {
            // What is wrong is logged.
            drop(control.reload(false).await);
        });
    }

    /// Has all workers followed by new ones: their code is another one.
    pub(super) fn code_changed(&self) {
        let control = self.clone();
        tokio::spawn(async move {
            let mut inner = control.0.lock().await;
            tracing::info!("code has changed: new workers follow");
            let all = Arc::clone(&inner.parts.pools);
            control.roll(&mut inner, all.iter().cloned(), None);
        });
    }

    async fn reload(&self, dry_run: bool) -> Result<Reloaded, Problems> {
        let mut inner = self.0.lock().await;
        let before = inner.parts.config.now().clone();
        let reloaded = inner.reload(dry_run).await;
        match &reloaded {
            Ok(Reloaded { diff, .. }) if !dry_run => {
                tell(diff, &inner.parts.pipeline.telemetry);
                if diff.rolls() {
                    let rolls = |pool: &&Arc<Pool>| diff.of(&pool.name).rolls();
                    let all = Arc::clone(&inner.parts.pools);
                    self.roll(&mut inner, all.iter().filter(rolls).cloned(), Some(before));
                }
                // The same files may have other content.
                inner.parts.pools.iter().for_each(|pool| pool.look_again());
            }
            Ok(_) => {}
            Err(problems) => {
                let telemetry = &inner.parts.pipeline.telemetry;
                telemetry.emit(Event::ReloadRefused { problems, dry_run });
            }
        }
        reloaded
    }

    /// Workers cannot be started with the present settings: those before return.
    pub(super) async fn give_up(&self, before: &Config) -> Result<(), Problems> {
        self.0.lock().await.parts.give_up(before)
    }

    /// Has the workers in all slots of some pools followed by new ones.
    fn roll(&self, inner: &mut Inner, pools: impl Iterator<Item = Arc<Pool>>, before: Option<Config>) {
        let within = Some(inner.parts.config.now().retire_timeout);
        let turns = pools.flat_map(|pool| inner.parts.turns_of(&pool, within)).collect();
        inner.rolls.begin(self, turns, before);
    }

    async fn restart(
        &self,
        pool: Option<&str>,
        slots: Option<&[String]>,
        within: Option<Duration>,
    ) -> Result<Rolling, Problems> {
        let mut inner = self.0.lock().await;
        let turns = match slots {
            None => inner.parts.all_turns(pool, within)?,
            Some(slots) => inner.parts.some_turns(pool, slots, within)?,
        };
        tracing::info!(slots = turns.len(), "new workers follow, one after another");
        Ok(inner.rolls.begin(self, turns, None))
    }
}

impl Inner {
    async fn reload(&mut self, dry_run: bool) -> Result<Reloaded, Problems> {
        let new = self.source.load()?;
        let old = self.parts.config.now().clone();
        let before = self.by_hand.whole();
        let diff = Diff::between(&old, &new, &before);
        let kept = new.with(&old, |key| key.change == Change::Restart);
        let mut merged = Config::new(&kept).map_err(|problems| postponed(problems, &diff))?;
        let (mut by_hand, changed) =
            (Overrides::clone(&before), Diff::between(&old, &new, &Overrides::new()));
        by_hand.retain(|place, _| !changed.lines.iter().any(|line| line.path() == *place));
        for pool in self.parts.pools.iter() {
            for name in ["workers", "log"] {
                by_hand
                    .get(&place(&pool.name, name))
                    .into_iter()
                    .for_each(|given| merged.put(&pool.name, name, given));
            }
        }

        let tried = self.parts.attempt(&diff, &merged).await?;
        if !dry_run {
            self.parts.apply(&diff, merged, tried)?;
            self.by_hand.set(by_hand);
        }
        let file = self.source.file.as_ref().map(|path| path.display().to_string());
        Ok(Reloaded { diff, file, dry_run })
    }

    fn scale(
        &mut self,
        pool: Option<&str>,
        workers: usize,
        within: Option<Duration>,
    ) -> Result<Scaled, Problems> {
        let parts = &self.parts;
        let problem = |text: String| Problems::one("workers", text);
        if workers > MOST_WORKERS {
            return Err(problem(format!(
                "expected a whole number from 0 to {MOST_WORKERS}, found {workers}"
            )));
        }
        let pool = parts.pools.named(pool).map_err(|error| Problems::one("pool", error))?;
        let mut config = parts.config.now().clone();
        let own = config.of(&pool.name);
        if workers == 0 && own.join_socket.is_none() {
            return Err(problem(
                "with 0 no worker would be left, and none can join: there is no join-socket".to_owned(),
            ));
        }
        if workers > 0 && own.command.is_empty() {
            return Err(problem("there is no command to start workers with".to_owned()));
        }
        pool.fleet.may_scale(workers).map_err(|error| problem(error.to_string()))?;
        let (before, given) = (own.workers, Given::Text(workers.to_string()));
        config.put(&pool.name, "workers", &given);
        parts.resize(pool, workers, within.unwrap_or(config.retire_timeout));
        parts.config.set(config);
        self.note(place(&pool.name, "workers"), given);
        tracing::info!(before, now = workers, "number of workers changed by hand");
        Ok(Scaled { before, now: workers })
    }

    /// Something was changed by hand.
    fn note(&self, place: String, given: Given) {
        let mut by_hand = Overrides::clone(&self.by_hand.now());
        by_hand.insert(place, given);
        self.by_hand.set(by_hand);
    }

    fn log(&mut self, filter: Option<String>) -> Result<String, Problems> {
        if let Some(filter) = filter {
            trace::change(&filter).map_err(|error| Problems::one("log", error))?;
            let given = Given::Text(filter);
            let mut config = self.parts.config.now().clone();
            config.put(DEFAULT, "log", &given);
            self.parts.config.set(config);
            self.note("log".to_owned(), given);
        }
        Ok(self.parts.config.now().log.clone())
    }
}

impl Parts {
    /// Tries out all that can be: every problem at once.
    async fn attempt(&self, diff: &Diff, new: &Config) -> Result<Vec<Tried>, Problems> {
        let (mut problems, mut all) = (Problems::default(), Vec::new());
        // Bound for a moment only: whoever connects meanwhile would be disappointed.
        if let Err(listen) = self.relisten(diff, new) {
            problems.append("", listen);
        }
        for pool in self.pools.iter() {
            match pool.attempt(&diff.of(&pool.name), new.of(&pool.name)).await {
                Ok(tried) => all.push(tried),
                Err(others) => problems.append("", others),
            }
        }
        problems.into_result(all)
    }

    /// Makes it so. Does not wait, so that nobody sees the half of it.
    fn apply(&self, diff: &Diff, new: Config, tried: Vec<Tried>) -> Result<(), Problems> {
        // What can go wrong comes first: an address may have been taken by somebody else meanwhile.
        let relisten = self.relisten(diff, &new)?;
        for (pool, tried) in self.pools.iter().zip(tried) {
            pool.exchange(&diff.of(&pool.name), new.of(&pool.name), tried)?;
        }

        if let Some(relisten) = relisten {
            let served = |server: &ServerId| self.pools.iter().any(|pool| pool.fleet.is_open(*server));
            for server in self.servers.relisten(relisten).into_iter().filter(served) {
                // Bounded far above any number of servers a program has.
                let _ = self.fed.try_send(server);
            }
        }
        if diff.changes(&["log"])
            && let Err(error) = trace::change(&new.log)
        {
            tracing::error!(error, "the log stays as it is");
        }
        let front = self.pipeline.front.now().with(new.front.clone(), new.peek);
        self.pipeline.front.set(front);
        resize_permits(&self.pipeline.permits, self.config.now().max_pending, new.max_pending);
        for pool in self.pools.iter().filter(|pool| diff.of(&pool.name).changes(&["workers"])) {
            self.resize(pool, new.of(&pool.name).workers, new.retire_timeout);
        }
        self.config.set(new);
        Ok(())
    }

    /// Listeners that are new are bound; none when nothing about them changes.
    fn relisten(&self, diff: &Diff, new: &Config) -> Result<Option<Relisten>, Problems> {
        if !diff.changes(&["listen"]) {
            return Ok(None);
        }
        self.servers.prepare(&new.listens(), new.peek.timeout).map(Some).map_err(|errors| {
            let mut problems = Problems::default();
            errors.into_iter().for_each(|error| problems.add("listen", error.to_string()));
            problems
        })
    }

    pub(super) fn resize(&self, pool: &Arc<Pool>, workers: usize, within: Duration) {
        for slot in pool.scale(workers, within) {
            // It has room for as many as there may be.
            let _ = self.slots.try_send((Arc::clone(pool), slot));
        }
    }

    /// Workers cannot be started with the present settings: those before return, as if the configuration
    /// had never said otherwise.
    fn give_up(&self, before: &Config) -> Result<(), Problems> {
        let now = self.config.now().clone();
        let mut config = Config::new(&now.with(before, |key| key.change == Change::Rolling))?;
        config.log.clone_from(&now.log);
        for pool in self.pools.iter() {
            let workers = Given::Text(now.of(&pool.name).workers.to_string());
            config.put(&pool.name, "workers", &workers);
            pool.restart_as(config.of(&pool.name))?;
        }
        self.config.set(config);
        Ok(())
    }
}

/// Fewer permits are taken away as they come back.
fn resize_permits(permits: &Arc<Semaphore>, before: usize, now: usize) {
    permits.add_permits(now.saturating_sub(before));
    let surplus = before.saturating_sub(now);
    let taken = permits.forget_permits(surplus);
    if let Ok(left @ 1..) = u32::try_from(surplus - taken) {
        let permits = Arc::clone(permits);
        tokio::spawn(async move {
            // Never closed, so this cannot fail.
            if let Ok(taken) = permits.acquire_many_owned(left).await {
                taken.forget();
            }
        });
    }
}

/// A configuration that is right only with what takes a restart says so.
fn postponed(mut problems: Problems, diff: &Diff) -> Problems {
    let postponed = diff.postponed();
    if !postponed.is_empty() {
        problems.add(postponed.join(", "), "this takes a restart, and the rest is not fit without it");
    }
    problems
}

fn tell(diff: &Diff, telemetry: &Telemetry) {
    let text =
        |given: &Option<Given>| given.as_ref().map_or_else(|| "not set".to_owned(), ToString::to_string);
    for line in &diff.lines {
        let (old, new, now) = (text(&line.old), text(&line.new), line.change != Change::Restart);
        telemetry.emit(Event::SettingChanged { key: &line.path(), old: &old, new: &new, now });
    }
    telemetry.emit(Event::Reloaded { changes: diff.lines.len() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_that_are_out_are_taken_away_as_they_come_back() {
        let permits = Arc::new(Semaphore::new(3));
        let out = Arc::clone(&permits).acquire_many_owned(2).await.unwrap();
        resize_permits(&permits, 3, 1);
        tokio::task::yield_now().await;
        assert_eq!(permits.available_permits(), 0);
        drop(out);
        tokio::task::yield_now().await;
        assert_eq!(permits.available_permits(), 1);
        resize_permits(&permits, 1, 4);
        assert_eq!(permits.available_permits(), 4);
    }
}
