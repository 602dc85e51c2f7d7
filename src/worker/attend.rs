//! Attending to one worker: reading, writing, probing, and watching the clock.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval};

use super::dialogue::{self, Ended};
use super::fleet::{Fleet, Why};
use super::mixing::{Mixing, PERIOD, Traffic};
use super::probe::Probe;
use super::worker::{Standing, Worker};
use crate::sys::reactor::watch;
use crate::telemetry::Event;

/// How often waiting connections and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Without a hint from the shim, how long a program gets before it is probed.
const PROBE_UNASKED_AFTER: Duration = Duration::from_secs(3);

/// Why a worker is no longer attended to.
#[derive(Debug, thiserror::Error)]
pub enum Departure {
    #[error(transparent)]
    Channel(#[from] Ended),
    #[error("it was not ready after {0:?}: it neither listens on a port nor takes connections as messages")]
    NeverReady(Duration),
    #[error("it has acknowledged nothing for {0:?}")]
    Unresponsive(Duration),
    #[error("{0}")]
    Unfit(String),
}

type Probing = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Serves a worker's channel until it ends or the worker must be replaced.
pub async fn attend(fleet: &Fleet, worker: &Worker) -> Departure {
    let started = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probing: Option<Probing> = None;
    let mut mixing = Mixing::new(started);
    let mut ear = Ear::new(worker);
    loop {
        tokio::select! {
            biased;
            stirred = ear.stir() => {
                let heard = stirred.map_err(Ended::Broken).and_then(|()| dialogue::listen(fleet, worker));
                if let Err(ended) = heard {
                    return ended.into();
                }
            }
            () = worker.nudge.notified() => {
                if let Err(error) = fleet.flush(worker, Instant::now()) {
                    return last_words(fleet, worker, error);
                }
            }
            answered = answer(&mut probing) => {
                probing = None;
                if answered {
                    dialogue::ready_for_messages(fleet, worker);
                }
            }
            _ = tick.tick() => {
                let now = Instant::now();
                if let Some(departure) = check(fleet, worker, started, now) {
                    return departure;
                }
                if let Some(traffic) = mixing.noticed(now, worker.traffic()) {
                    let Traffic { handed_off, handed_back } = traffic;
                    let worker = &worker.slot;
                    fleet.telemetry.emit(Event::ManyHandBacks { worker, handed_back, handed_off, period: PERIOD });
                }
                worker.retry();
                if worker.wants_room()
                    && let Err(error) = fleet.flush(worker, now)
                {
                    return last_words(fleet, worker, error);
                }
                if probing.is_none() && wants_probe(worker, now.saturating_duration_since(started)) {
                    probing = probe(worker, now);
                }
            }
        }
    }
}

/// Nothing can be said to the worker any more. What it said before is heard first: acknowledgements,
/// and connections that it has handed back.
fn last_words(fleet: &Fleet, worker: &Worker, error: io::Error) -> Departure {
    dialogue::listen(fleet, worker).err().unwrap_or(Ended::Broken(error)).into()
}

/// What the runtime watches a worker's channel for.
struct Ear<'a> {
    worker: &'a Worker,
    watched: Option<(Interest, AsyncFd<BorrowedFd<'a>>)>,
}

impl<'a> Ear<'a> {
    const fn new(worker: &'a Worker) -> Self {
        Self { worker, watched: None }
    }

    /// Waits until the channel is worth a look: something has come, or there is room for what waits. Cancel
    /// safe.
    ///
    /// Whoever looks takes all that is there, so an edge is enough. One for room comes whenever the worker
    /// reads, and so is watched for only while something waits.
    async fn stir(&mut self) -> io::Result<()> {
        let interest = match self.worker.wants_room() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        if self.watched.as_ref().is_none_or(|(watched, _)| *watched != interest) {
            // The old one first: a descriptor is watched once.
            self.watched = None;
            self.watched = Some((interest, watch(self.worker.socket.as_fd(), interest)?));
        }
        if let Some((_, watched)) = &self.watched {
            watched.ready(interest).await?.clear_ready();
        }
        Ok(())
    }
}

/// The answer to the probe under way; never, when there is none.
async fn answer(probing: &mut Option<Probing>) -> bool {
    match probing {
        Some(probing) => probing.await,
        None => std::future::pending().await,
    }
}

/// Looks at everything that has a deadline.
fn check(fleet: &Fleet, worker: &Worker, started: Instant, now: Instant) -> Option<Departure> {
    let settings = fleet.settings.now();
    fleet.give_back(worker.overdue(now, settings.queue_wait), Why::Overdue, worker.id);

    let silent = worker.silent_for(now);
    let (standing, tried, unfit) = {
        let profile = &mut worker.lock().profile;
        (profile.standing, profile.ready_since.is_some(), profile.unfit.take())
    };
    if let Some(reason) = unfit {
        return Some(Departure::Unfit(reason));
    }
    match standing {
        Standing::Starting if !tried && now.saturating_duration_since(started) > settings.start_timeout => {
            return Some(Departure::NeverReady(settings.start_timeout));
        }
        Standing::Ready if silent > settings.unresponsive_after => {
            worker.lock().profile.standing = Standing::Unresponsive;
            fleet.telemetry.emit(Event::WorkerUnresponsive { worker: &worker.slot, silent });
            fleet.refresh();
        }
        Standing::Ready | Standing::Unresponsive if silent > settings.replace_after => {
            return Some(Departure::Unresponsive(settings.replace_after));
        }
        _ => {}
    }
    None
}

/// Probes make sense for a worker that says nothing by itself: one whose program listens for
/// messages, or, without the shim's hint, any that has started and does not listen on a port.
fn wants_probe(worker: &Worker, age: Duration) -> bool {
    let state = worker.lock();
    let profile = &state.profile;
    let hinted = profile.listens || (profile.online && !profile.reports) || age > PROBE_UNASKED_AFTER;
    profile.standing == Standing::Starting
        && profile.ready_since.is_none()
        && profile.servers.is_empty()
        && profile.pending.is_empty()
        && hinted
}

fn probe(worker: &Worker, now: Instant) -> Option<Probing> {
    // Out of descriptors: the next tick tries again.
    let (probe, end) = Probe::new().ok()?;
    worker.send_probe(end, now);
    Some(Box::pin(probe.answered()))
}
