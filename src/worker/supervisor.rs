//! Keeping one slot filled: start, attend, replace, and give up loudly.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::Origin;
use super::attend::{Departure, attend};
use super::backoff::Backoff;
use super::dialogue::{self, Ended};
use super::fleet::Fleet;
use super::process::{self, Program};
use super::worker::Worker;
use crate::drain::{Phase, Phases};
use crate::listener::BindError;
use crate::policy;
use crate::telemetry::Event;

/// How long a worker that has closed its channel, or was told to end, may take to be gone.
const PARTING: Duration = Duration::from_secs(2);

/// How often a draining worker is looked at: its last session may end unheard, in a count.
const LOOK: Duration = Duration::from_millis(100);

/// What makes the whole run pointless.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Bind(BindError),
    #[error(
        "worker {slot} takes connections as messages and names no port itself; say where to listen: --listen :3000"
    )]
    NoAddress { slot: String },
    #[error("{name} keeps the worker channel to itself")]
    Wrapper { name: String },
    #[error("cannot start the worker command {command:?}: {source}")]
    Start { command: String, source: io::Error },
    #[error("slot {slot} is given up: its worker keeps ending ({last})")]
    GivenUp { slot: String, last: String },
}

/// How a worker's life ended.
#[derive(Debug)]
struct End {
    /// Between its first word that it is ready and its end.
    ready_for: Option<Duration>,
    reason: String,
    /// It had nothing left to do, or not the time to do it, and was asked to go.
    retired: bool,
}

/// Keeps a slot filled until the run drains or the slot is given up.
pub async fn keep(fleet: Arc<Fleet>, program: Program, slot: String, mut phases: Phases) {
    let mut backoff = Backoff::new(fleet.settings.restarts.clone());
    while phases.now() < Phase::Draining {
        let end = match run(&fleet, &program, &slot, &mut phases).await {
            Ok(end) => end,
            Err(source) => {
                fleet.report(Fatal::Start { command: program.command.join(" "), source });
                return;
            }
        };
        if phases.now() >= Phase::Draining {
            return;
        }
        if end.retired {
            fleet.telemetry.emit(Event::WorkerRetired { worker: &slot, reason: &end.reason });
            tokio::select! {
                () = undrained(&fleet, &slot) => continue,
                () = phases.reached(Phase::Draining) => return,
            }
        }
        fleet.telemetry.emit(Event::WorkerLost { worker: &slot, reason: &end.reason });
        let proven = end.ready_for.is_some() || fleet.telemetry.counters.workers_ready.get() > 0;
        let Some(wait) = backoff.ended(end.ready_for, proven, fastrand::f64()) else {
            fleet.report(Fatal::GivenUp { slot, last: end.reason });
            return;
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = phases.reached(Phase::Draining) => return,
        }
    }
}

/// One worker's life.
async fn run(fleet: &Fleet, program: &Program, slot: &str, phases: &mut Phases) -> io::Result<End> {
    let id = fleet.next_id();
    let (mut child, socket) = process::start(program, slot, id)?;
    let worker = fleet.add(id, slot, child.id().unwrap_or_default(), socket, Origin::Started);
    fleet.telemetry.emit(Event::WorkerStarted { worker: slot, pid: worker.pid });

    let mut draining = phases.clone();
    let mut retired = false;
    let reason = tokio::select! {
        departure = attend(fleet, &worker) => depart(fleet, &worker, &mut child, &departure).await,
        () = draining.reached(Phase::Draining) => drain(fleet, &worker, &mut child, phases).await,
        () = emptied(fleet, &worker) => {
            retired = true;
            part(fleet, &worker, &mut child, sleep(PARTING), sleep(PARTING * 2)).await
        }
    };
    let ready_since = worker.lock().profile.ready_since;
    fleet.remove(&worker);
    // What it started and left behind, such as the server of an `npm start`, would go on listening.
    process::signal(worker.pid, Signal::SIGTERM);
    if phases.now() < Phase::Draining {
        fleet.notice(policy::Event::WorkerFailed { worker: id });
    }
    Ok(End { ready_for: ready_since.map(|since| since.elapsed()), reason, retired })
}

/// The channel is gone, or the worker must be: no connection can reach it any more. What it has
/// not got is routed again at once; then the process gets a moment to end by itself.
async fn depart(fleet: &Fleet, worker: &Worker, child: &mut Child, departure: &Departure) -> String {
    match departure {
        Departure::Channel(Ended::Closed | Ended::Broken(_)) => {
            fleet.remove(worker);
            match timeout(PARTING, child.wait()).await {
                Ok(status) => describe(status),
                Err(_) => {
                    end(worker, child).await;
                    departure.to_string()
                }
            }
        }
        // The descriptors in its channel cannot be recalled from a worker that still runs: it
        // must end before they may go to another one.
        Departure::Channel(_)
        | Departure::NeverReady(_)
        | Departure::Unresponsive(_)
        | Departure::Unfit(_) => {
            process::signal(worker.pid, Signal::SIGKILL);
            drop(child.wait().await);
            // Whatever it has acknowledged after all is nobody else's.
            drop(dialogue::listen(fleet, worker));
            fleet.remove(worker);
            departure.to_string()
        }
    }
}

/// Waits until a draining worker has nothing left to do, or its deadline has come.
async fn emptied(fleet: &Fleet, worker: &Worker) {
    loop {
        match fleet.draining(&worker.slot) {
            Some(_) if worker.total_load() == 0 => return,
            Some(Some(deadline)) if Instant::now() >= deadline => return,
            Some(_) => sleep(LOOK).await,
            None => changed(fleet).await,
        }
    }
}

/// Waits until a slot takes part again.
async fn undrained(fleet: &Fleet, slot: &str) {
    while fleet.draining(slot).is_some() {
        changed(fleet).await;
    }
}

/// The roster has changed, or a moment has passed in which it might have unseen.
async fn changed(fleet: &Fleet) {
    drop(timeout(LOOK * 10, fleet.watch().changed()).await);
}

/// The run ends: the worker finishes what it has, then leaves.
async fn drain(fleet: &Fleet, worker: &Worker, child: &mut Child, phases: &mut Phases) -> String {
    let mut cutting = phases.clone();
    part(fleet, worker, child, phases.reached(Phase::Ending), cutting.reached(Phase::Cutting)).await
}

/// A worker finishes what it has and leaves; when it has not by then, it is told to end, and at last ended.
async fn part(
    fleet: &Fleet,
    worker: &Worker,
    child: &mut Child,
    told: impl Future<Output = ()>,
    ended: impl Future<Output = ()>,
) -> String {
    // What was sent before gets there before: one channel, in order.
    worker.ask_to_leave();
    fleet.refresh();
    let leaving = async {
        let attended = attend(fleet, worker);
        tokio::pin!(attended);
        tokio::select! {
            _ = &mut attended => child.wait().await,
            status = child.wait() => status,
        }
    };
    let left = tokio::select! {
        status = leaving => Some(status),
        () = told => None,
    };
    if let Some(status) = left {
        return describe(status);
    }
    process::signal(worker.pid, Signal::SIGTERM);
    tokio::select! {
        status = child.wait() => describe(status),
        () = ended => {
            process::signal(worker.pid, Signal::SIGKILL);
            describe(child.wait().await)
        }
    }
}

/// Ends a worker that does not end by itself.
async fn end(worker: &Worker, child: &mut Child) {
    process::signal(worker.pid, Signal::SIGTERM);
    if timeout(PARTING, child.wait()).await.is_err() {
        process::signal(worker.pid, Signal::SIGKILL);
        drop(child.wait().await);
    }
}

fn describe(status: io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
