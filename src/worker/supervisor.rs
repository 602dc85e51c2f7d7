//! Keeping one slot filled: start, attend, replace, and give up loudly.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use super::Origin;
use super::attend::{Departure, attend};
use super::backoff::Backoff;
use super::begun::{Begun, Found};
use super::dialogue::{self, Ended};
use super::fleet::Fleet;
use super::process::{self, Program};
use super::turnover::Succession;
use super::worker::Worker;
use crate::drain::{Phase, Phases};
use crate::listener::BindError;
use crate::live::Live;
use crate::policy;
use crate::sys::child::Child;
use crate::telemetry::Event;
use crate::types::WorkerId;

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

/// A worker's life, from its start or from where the program before has left it.
type Life<'a> = Pin<Box<dyn Future<Output = io::Result<End>> + Send + 'a>>;

/// Keeps a slot filled until the run drains, the slot is closed, or it is given up.
pub async fn keep(fleet: Arc<Fleet>, program: Live<Program>, slot: String, mut phases: Phases) {
    let mut backoff = Backoff::default();
    let seen = phases.clone();
    let ready = || fleet.youngest(&slot).filter(|(_, ready)| *ready).map(drop);
    let fresh = || -> Life<'_> { Box::pin(run(&fleet, &program, &slot, seen.clone())) };
    let found = |found: Found| -> Life<'_> { Box::pin(go_on(&fleet, &slot, found, seen.clone())) };
    let Begun { mut present, mut successor, before } = Begun::find(&fleet, &slot);
    // Workers that have been followed, and finish what they have.
    let mut before: FuturesUnordered<_> = before.into_iter().map(found).collect();
    let empty = present.is_none() && fleet.is_vacant(&slot);
    let kept = !empty || vacant(&fleet, &slot, &mut phases).await.is_continue();
    // An order that came when nobody was there.
    let mut wanted = None;
    while kept && phases.now() < Phase::Draining {
        if present.is_none() {
            // Whoever wants another worker gets one.
            wanted = fleet.succession(&slot).or(wanted);
        }
        let mut id = present.as_ref().and_then(Found::id);
        let mut present = present.take().map_or_else(fresh, found);
        let end = loop {
            tokio::select! {
                end = &mut present => break end,
                Some(end) = before.next() => left(&fleet, &slot, end),
                () = until(&fleet, ready), if wanted.is_some() => {
                    wanted.take().into_iter().for_each(|order| order.tell(Ok(())));
                }
                order = until(&fleet, || fleet.succession(&slot)) => {
                    fleet.succeeding(&slot, &order);
                    let old = id.take().or_else(|| fleet.youngest(&slot).map(|(id, _)| id));
                    let next = successor.take().map_or_else(fresh, found);
                    if let Some(old) = succeed(&fleet, &slot, (&mut present, old), next, order).await {
                        before.push(old);
                    }
                    fleet.succeeded(&slot);
                }
            }
        };
        if let Some(order) = wanted.take() {
            order.tell(Err(end.as_ref().map_or_else(ToString::to_string, |end| end.reason.clone())));
        }
        let end = match end {
            Ok(end) => end,
            Err(source) => {
                fleet.report(Fatal::Start { command: program.now().command.join(" "), source });
                break;
            }
        };
        if phases.now() >= Phase::Draining {
            break;
        }
        // One that dies while its slot is being drained has left, too.
        if end.retired || fleet.is_vacant(&slot) {
            fleet.telemetry.emit(Event::WorkerRetired { worker: &slot, reason: &end.reason, vacant: true });
            match vacant(&fleet, &slot, &mut phases).await {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(()) => break,
            }
        }
        let proven = end.ready_for.is_some() || fleet.telemetry.counters.workers_ready.get() > 0;
        let wait = backoff.ended(&fleet.settings.now().restarts, end.ready_for, proven, fastrand::f64());
        let again = wait.is_some();
        fleet.telemetry.emit(Event::WorkerLost { worker: &slot, reason: &end.reason, again });
        let Some(wait) = wait else {
            fleet.report(Fatal::GivenUp { slot: slot.clone(), last: end.reason });
            break;
        };
        tokio::select! {
            () = sleep(wait) => {}
            // Somebody has mended it, or thinks so.
            order = until(&fleet, || fleet.succession(&slot)) => wanted = Some(order),
            () = closed(&fleet, &slot) => break,
            () = phases.reached(Phase::Draining) => break,
        }
    }
    // Not a moment later: whoever opens the slot again must find that nobody keeps it.
    fleet.left(&slot);
    while before.next().await.is_some() {}
}

/// Waits until the slot is to go.
async fn closed(fleet: &Fleet, slot: &str) {
    until(fleet, || fleet.is_closing(slot).then_some(())).await;
}

/// Waits until somebody is to follow in a slot, or nobody any more.
async fn vacant(fleet: &Fleet, slot: &str, phases: &mut Phases) -> ControlFlow<()> {
    tokio::select! {
        () = closed(fleet, slot) => ControlFlow::Break(()),
        () = until(fleet, || (!fleet.is_vacant(slot)).then_some(())) => ControlFlow::Continue(()),
        () = phases.reached(Phase::Draining) => ControlFlow::Break(()),
    }
}

/// A worker that was followed is gone.
fn left(fleet: &Fleet, slot: &str, end: io::Result<End>) {
    let reason = end.map_or_else(|error| error.to_string(), |end| end.reason);
    fleet.telemetry.emit(Event::WorkerRetired { worker: slot, reason: &reason, vacant: false });
}

/// Starts the successor of a slot's present worker. When it is ready it is the present one, and the one
/// before, which is returned, gets nothing new. When it does not become ready, the one before stays.
async fn succeed<L: Future<Output = io::Result<End>> + Unpin>(
    fleet: &Fleet,
    slot: &str,
    (present, old): (&mut L, Option<WorkerId>),
    mut successor: L,
    order: Succession,
) -> Option<L> {
    let ready = || fleet.youngest(slot).filter(|(id, ready)| *ready && Some(*id) > old);
    let (id, _) = tokio::select! {
        youngest = until(fleet, ready) => youngest,
        end = &mut successor => {
            let reason = end.map_or_else(|error| error.to_string(), |end| end.reason);
            fleet.telemetry.emit(Event::NoSuccessor { worker: slot, reason: &reason });
            order.tell(Err(reason));
            return None;
        }
        // Dead before it was followed: the successor is all there is.
        end = &mut *present => {
            match end {
                Ok(End { retired: true, reason, .. }) => {
                    fleet.telemetry.emit(Event::WorkerRetired { worker: slot, reason: &reason, vacant: false });
                }
                end => {
                    let reason = end.map_or_else(|error| error.to_string(), |end| end.reason);
                    fleet.telemetry.emit(Event::WorkerLost { worker: slot, reason: &reason, again: true });
                }
            }
            // Nobody is left that it could do harm to; its own start says how it goes.
            order.tell(Ok(()));
            *present = successor;
            return None;
        }
    };
    // It may have ended this very moment, and then needs no retiring.
    let _ = fleet.retire(slot, id, order.deadline);
    order.tell(Ok(()));
    Some(std::mem::replace(present, successor))
}

/// One worker's life.
async fn run(fleet: &Fleet, program: &Live<Program>, slot: &str, phases: Phases) -> io::Result<End> {
    let id = fleet.next_id();
    let (child, socket) = process::start(&program.now(), slot, id)?;
    let worker = fleet.add(id, slot, child.id(), socket, Origin::Started);
    fleet.telemetry.emit(Event::WorkerStarted { worker: slot, pid: worker.pid });
    Ok(serve(fleet, &worker, child, phases).await)
}

/// The life of a worker that the program before has started.
async fn go_on(fleet: &Fleet, slot: &str, found: Found, phases: Phases) -> io::Result<End> {
    match found {
        Found::Worker(worker) => {
            let child = Child::of(worker.pid);
            Ok(serve(fleet, &worker, child, phases).await)
        }
        Found::Parting(id, pid) => {
            let mut child = Child::of(pid);
            let reason = match timeout(PARTING, child.wait()).await {
                Ok(status) => describe(status),
                Err(_) => {
                    end(&mut child).await;
                    "the worker closed its channel".to_owned()
                }
            };
            tracing::debug!(slot, pid, reason, "a process of the program before has ended");
            fleet.parted(id);
            process::signal(pid, Signal::SIGTERM);
            fleet.notice(policy::Event::WorkerFailed { worker: id });
            Ok(End { ready_for: None, reason, retired: false })
        }
    }
}

async fn serve(fleet: &Fleet, worker: &Worker, mut child: Child, mut phases: Phases) -> End {
    let mut draining = phases.clone();
    // By the program before, and then it has had nothing left to do.
    let mut retired = worker.lock().asked;
    let child = &mut child;
    let reason = if retired {
        part(fleet, worker, child, sleep(PARTING), sleep(PARTING * 2)).await
    } else {
        tokio::select! {
          departure = attend(fleet, worker) => depart(fleet, worker, child, &departure).await,
          () = draining.reached(Phase::Draining) => drain(fleet, worker, child, &mut phases).await,
          () = emptied(fleet, worker) => {
              retired = true;
              part(fleet, worker, child, sleep(PARTING), sleep(PARTING * 2)).await
          }
        }
    };
    let (ready_since, refused) = {
        let profile = &mut worker.lock().profile;
        (profile.ready_since, profile.refused.take())
    };
    if let (None, Some(error)) = (ready_since, refused) {
        fleet.report(Fatal::Bind(error));
    }
    fleet.remove(worker);
    fleet.parted(worker.id);
    // What it started and left behind, such as the server of an `npm start`, would go on listening.
    process::signal(worker.pid, Signal::SIGTERM);
    if phases.now() < Phase::Draining {
        fleet.notice(policy::Event::WorkerFailed { worker: worker.id });
    }
    End { ready_for: ready_since.map(|since| since.elapsed()), reason, retired }
}

/// The channel is gone, or the worker must be: no connection can reach it any more. What it has
/// not got is routed again at once; then the process gets a moment to end by itself.
async fn depart(fleet: &Fleet, worker: &Worker, child: &mut Child, departure: &Departure) -> String {
    match departure {
        Departure::Channel(Ended::Closed | Ended::Broken(_)) => {
            fleet.parts(worker);
            match timeout(PARTING, child.wait()).await {
                Ok(status) => describe(status),
                Err(_) => {
                    end(child).await;
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

/// Waits until a worker is draining and has nothing left to do, or its deadline has come.
async fn emptied(fleet: &Fleet, worker: &Worker) {
    loop {
        let deadline = until(fleet, || fleet.draining(worker.id)).await;
        if worker.total_load() == 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Looks now and at every change of the roster, which every order about a worker is, until there is
/// something. Cancel safe: nothing is awaited between finding and returning.
async fn until<T>(fleet: &Fleet, look: impl Fn() -> Option<T>) -> T {
    let mut changes = fleet.watch();
    loop {
        if let Some(found) = look() {
            return found;
        }
        // The fleet outlives every wait, so this cannot fail.
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
async fn end(child: &mut Child) {
    process::signal(child.id(), Signal::SIGTERM);
    if timeout(PARTING, child.wait()).await.is_err() {
        process::signal(child.id(), Signal::SIGKILL);
        drop(child.wait().await);
    }
}

fn describe(status: io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
