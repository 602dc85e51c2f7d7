//! All workers, and the roster that routing sees.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};

use super::adapter::{Adapters, Audience};
use super::scale::{Slots, by_number};
use super::supervisor::Fatal;
use super::turnover::Succession;
use super::worker::{Offer, Standing, Worker};
use super::{Facts, Origin, Settings, dialogue};
use crate::handoff::Routed;
use crate::listener::Servers;
use crate::live::Live;
use crate::observe::{Observation, Observers};
use crate::policy::{self, Chain};
use crate::session::SessionTable;
use crate::telemetry::{Event, Telemetry};
use crate::types::{Roster, ServerId, WorkerId, WorkerInfo};

/// All worker processes of this run.
#[derive(Debug)]
pub struct Fleet {
    pub(super) settings: Live<Settings>,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) servers: Arc<Servers>,
    /// Told of sessions and failures, in case it wants to know.
    pub(super) policy: Arc<Chain>,
    pub(super) telemetry: Arc<Telemetry>,
    observers: Arc<Observers>,
    pub(super) reports: Reports,
    pub(super) members: Mutex<Members>,
    /// The roster's version; whoever waits for a worker watches it.
    version: watch::Sender<u64>,
    returned: Mutex<VecDeque<Returned>>,
    returned_any: Notify,
}

/// Where the doings of a pool's workers are told that concern the whole run.
#[derive(Debug, Clone)]
pub struct Reports {
    pub pool: Arc<str>,
    /// With the pool's name.
    pub fatal: mpsc::Sender<(Arc<str>, Fatal)>,
    /// Servers that have got their first worker and want to be accepted for.
    pub opened: mpsc::Sender<ServerId>,
}

#[derive(Debug)]
pub(super) struct Members {
    /// In the order of their ids, the youngest last.
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) roster: Roster,
    /// The workers of the roster, in its order.
    pub(super) ready: Vec<Arc<Worker>>,
    pub(super) next_id: u32,
    pub(super) adapters: Adapters,
    pub(super) opened: Vec<ServerId>,
    /// Workers that get nothing new, and when they leave at the latest.
    pub(super) draining: HashMap<WorkerId, Option<Instant>>,
    /// Slots that nobody follows in when their worker has left.
    pub(super) vacant: HashSet<String>,
    /// Slots whose worker is to be followed by another one.
    pub(super) succession: HashMap<String, Succession>,
    /// … those where the other one has been started, and when the one before leaves then at the latest.
    pub(super) succeeding: HashMap<String, Option<Instant>>,
    /// Processes started here whose channel is gone: worker and process id, slot.
    pub(super) parting: Vec<(WorkerId, u32, String)>,
    pub(super) slots: Slots,
    /// Until when workers that joined a sidetrack before this one are waited for.
    gathering: Option<Instant>,
}

/// A connection that is to be routed, not for the first time.
#[derive(Debug)]
pub enum Returned {
    /// A worker did not get it after all.
    Undelivered {
        routed: Box<Routed>,
        why: Why,
        /// The worker that did not get it.
        from: WorkerId,
    },
    HandedBack(HandedBack),
}

/// A connection whose next request belongs to another worker.
#[derive(Debug)]
pub struct HandedBack {
    pub socket: OwnedFd,
    /// The server the client called.
    pub server: ServerId,
    /// What the worker has read from that request on.
    pub data: Box<[u8]>,
    /// The client, if a proxy has announced it.
    pub peer: Option<SocketAddr>,
}

/// Why a connection came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The worker ended before it had the connection.
    Died,
    /// The worker could not or would not take it.
    Declined,
    /// It waited too long for its turn.
    Overdue,
}

/// A worker has no place for a connection, or is no more.
#[derive(Debug)]
pub struct Undelivered(pub Box<Routed>);

impl Fleet {
    /// No workers yet. The run hears of each server once, when it has its first worker.
    #[must_use]
    pub fn new(
        settings: Settings,
        sessions: Arc<SessionTable>,
        servers: Arc<Servers>,
        policy: Arc<Chain>,
        telemetry: Arc<Telemetry>,
        observers: Arc<Observers>,
        reports: Reports,
    ) -> Self {
        let roster = Roster { version: 0, workers: Arc::new([]) };
        let members = Members {
            workers: Vec::new(),
            roster,
            ready: Vec::new(),
            next_id: 0,
            adapters: Adapters::default(),
            opened: Vec::new(),
            draining: HashMap::new(),
            vacant: HashSet::new(),
            succession: HashMap::new(),
            succeeding: HashMap::new(),
            parting: Vec::new(),
            slots: Slots::default(),
            gathering: None,
        };
        Self {
            settings: Live::new(settings),
            sessions,
            servers,
            policy,
            telemetry,
            observers,
            reports,
            members: Mutex::new(members),
            version: watch::Sender::new(0),
            returned: Mutex::default(),
            returned_any: Notify::new(),
        }
    }

    /// The workers that may be chosen now and what each carries, in the same order.
    #[must_use]
    pub fn roster(&self) -> (Roster, Vec<u32>) {
        let members = self.lock();
        let loads = members.ready.iter().map(|worker| worker.total_load()).collect();
        (members.roster.clone(), loads)
    }

    /// Changes whenever the roster does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// True when the worker can take connections for a server.
    #[must_use]
    pub fn serves(&self, id: WorkerId, server: ServerId) -> bool {
        self.find(id).is_some_and(|worker| worker.lock().profile.serves(server))
    }

    /// Slot and process of every worker that may be chosen.
    #[must_use]
    pub fn ready(&self) -> Vec<(String, u32)> {
        let members = self.lock();
        let mut list: Vec<_> = members.ready.iter().map(|worker| (worker.slot.clone(), worker.pid)).collect();
        list.sort_by(|(a, _), (b, _)| by_number(a, b));
        list
    }

    /// Hands a connection to a worker, or puts it in the worker's line.
    ///
    /// # Errors
    /// Gives it back when the worker is gone, has no server for it, or has no place in line.
    pub fn hand_off(&self, id: WorkerId, routed: Box<Routed>) -> Result<(), Undelivered> {
        let Some(worker) = self.find(id) else { return Err(Undelivered(routed)) };
        match worker.offer(routed, Instant::now()) {
            Offer::Sent => self.handed_off(&worker, 1),
            Offer::Queued => self.telemetry.counters.queued.one(),
            Offer::Declined(routed) => return Err(Undelivered(routed)),
        }
        Ok(())
    }

    /// Writes what waits for a worker, as far as it goes.
    pub(super) fn flush(&self, worker: &Worker, now: Instant) -> io::Result<()> {
        let sent = worker.flush(now)?;
        self.handed_off(worker, sent);
        Ok(())
    }

    fn handed_off(&self, worker: &Worker, count: u64) {
        worker.handed_off.add(count);
        self.telemetry.counters.handed_off.add(count);
    }

    /// Every worker, whatever its standing.
    pub(super) fn workers(&self) -> Vec<Arc<Worker>> {
        self.lock().workers.clone()
    }

    /// Reads everything that workers have said so far. Called before an unknown session is
    /// believed to be unknown.
    pub fn read_all(&self) {
        for worker in self.workers() {
            // A channel that ends here is noticed by whoever attends the worker.
            let _ = dialogue::listen(self, &worker);
        }
    }

    /// Tells policies, and whoever watches, what happened.
    pub(super) fn notice(&self, event: policy::Event<'_>) {
        self.policy.notice(event);
        if self.observers.watched() {
            self.observers.tell(Observation::event(event));
        }
    }

    /// The next connections that came back. Cancel safe.
    pub async fn returned(&self) -> Vec<Returned> {
        loop {
            let heard = self.returned_any.notified();
            let list = self.take_returned();
            if !list.is_empty() {
                return list;
            }
            heard.await;
        }
    }

    /// Those that have come back by now.
    pub fn take_returned(&self) -> Vec<Returned> {
        self.returned_list().drain(..).collect()
    }

    pub(super) fn give_back(&self, list: Vec<Box<Routed>>, why: Why, from: WorkerId) {
        if !list.is_empty() {
            let returned = |routed| Returned::Undelivered { routed, why, from };
            self.returned_list().extend(list.into_iter().map(returned));
            self.returned_any.notify_one();
        }
    }

    pub(super) fn hand_back(&self, back: HandedBack) {
        self.telemetry.counters.handed_back.one();
        self.returned_list().push_back(Returned::HandedBack(back));
        self.returned_any.notify_one();
    }

    /// Adds a process that has just been started.
    pub(super) fn add(
        &self,
        id: WorkerId,
        slot: &str,
        pid: u32,
        socket: UnixStream,
        origin: Origin,
    ) -> Arc<Worker> {
        let worker = Arc::new(Worker::new(id, slot.to_owned(), pid, socket, origin, &self.settings.now()));
        let mut members = self.lock();
        let place = members.workers.partition_point(|other| other.id < id);
        members.workers.insert(place, Arc::clone(&worker));
        worker
    }

    /// A worker id that was never used.
    pub(super) fn next_id(&self) -> WorkerId {
        let mut members = self.lock();
        let id = WorkerId(members.next_id);
        members.next_id += 1;
        id
    }

    /// Takes a worker out: its sessions are forgotten and what it has not got is routed again.
    pub(super) fn remove(&self, worker: &Worker) {
        {
            let mut members = self.lock();
            members.workers.retain(|other| other.id != worker.id);
            members.adapters.forget(worker.id);
            members.draining.remove(&worker.id);
        }
        let lost = worker.take_back();
        self.refresh();
        let forgotten = self.sessions.forget(worker.id);
        self.telemetry.counters.sessions_forgotten.add(forgotten as u64);
        if !lost.is_empty() || forgotten > 0 {
            self.telemetry.emit(Event::Orphans {
                worker: &worker.slot,
                sockets: lost.len(),
                sessions: forgotten,
            });
        }
        self.give_back(lost, Why::Died, worker.id);
    }

    /// Makes the roster anew after a worker's standing has changed.
    pub(super) fn refresh(&self) {
        let version = {
            let mut members = self.lock();
            let (ready, workers) = self.eligible(&members);
            members.ready = ready;
            members.roster = Roster { version: members.roster.version + 1, workers };
            members.roster.version
        };
        self.version.send_replace(version);
    }

    /// The same, where it would be another one.
    pub(super) fn refresh_if_changed(&self) {
        let members = self.lock();
        let changed = self.eligible(&members).1 != members.roster.workers;
        drop(members);
        if changed {
            self.refresh();
        }
    }

    /// The workers that may be chosen, and what is told of them.
    fn eligible(&self, members: &Members) -> (Vec<Arc<Worker>>, Arc<[WorkerInfo]>) {
        let settings = self.settings.now();
        let info = |worker: &Arc<Worker>| {
            let Facts { weight, labels } = settings.facts.get(&worker.slot).cloned().unwrap_or_default();
            let (id, name) = (worker.id, worker.slot.clone());
            let draining = members.draining.contains_key(&id);
            WorkerInfo { id, name, weight, draining, labels }
        };
        let ready = |worker: &&Arc<Worker>| worker.lock().profile.standing == Standing::Ready;
        let ready: Vec<_> = members.workers.iter().filter(ready).cloned().collect();
        let workers = ready.iter().map(info).collect();
        (ready, workers)
    }

    /// A worker's channel is gone, and its process is waited for.
    pub(super) fn parts(&self, worker: &Worker) {
        self.lock().parting.push((worker.id, worker.pid, worker.slot.clone()));
        self.remove(worker);
    }

    /// A worker's process is gone.
    pub(super) fn parted(&self, worker: WorkerId) {
        self.lock().parting.retain(|(id, ..)| *id != worker);
    }

    /// Whether some worker can take connections for a server.
    #[must_use]
    pub fn is_open(&self, server: ServerId) -> bool {
        self.lock().opened.contains(&server)
    }

    /// Workers that outlived the sidetrack before may be on their way, with all their sessions.
    pub(super) fn gather(&self, until: Instant) {
        self.lock().gathering = Some(until);
    }

    /// For how long still.
    #[must_use]
    pub fn gathering(&self) -> Duration {
        let until = self.lock().gathering;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// A worker can take connections for a server from now on.
    pub(super) fn open(&self, server: ServerId) {
        let mut members = self.lock();
        if !members.opened.contains(&server) {
            members.opened.push(server);
            // Bounded far above any number of servers a program has.
            let _ = self.reports.opened.try_send(server);
        }
    }

    /// Passes an adapter's message on.
    pub(super) fn relay(&self, from: WorkerId, uid: Option<&str>, requester: Option<&str>, line: &[u8]) {
        let targets: Vec<_> = {
            let mut members = self.lock();
            let audience = members.adapters.route(from, uid, requester);
            let concerned = |worker: &&Arc<Worker>| match audience {
                Audience::Others => worker.id != from,
                Audience::One(id) => worker.id == id,
            };
            members.workers.iter().filter(concerned).cloned().collect()
        };
        let message = [line, b"\n"].concat();
        for target in targets {
            let said = target.say(&message);
            let counters = &self.telemetry.counters;
            if said { counters.relayed.one() } else { counters.relay_dropped.one() }
        }
    }

    /// A slot cannot be filled any more.
    pub(super) fn report(&self, fatal: Fatal) {
        // Full means that the run is ending already.
        let _ = self.reports.fatal.try_send((Arc::clone(&self.reports.pool), fatal));
    }

    /// A worker shows that its program cannot be used. When nobody has ever served, one started here is
    /// as all others will be; later it is a bad change of the program, and others go on.
    pub(super) fn unfit(&self, worker: &Worker, fatal: Fatal) {
        let served = self.telemetry.counters.workers_ready.get() > 0;
        match worker.origin {
            Origin::Started if !served => self.report(fatal),
            Origin::Started | Origin::Joined => worker.lock().profile.unfit = Some(fatal.to_string()),
        }
    }

    /// Treats workers in another way from now on.
    pub fn treat(&self, settings: Settings) {
        for worker in self.workers() {
            worker.lock().window.resize(settings.window, settings.queue);
            worker.nudge.notify_one();
        }
        self.settings.set(settings);
        self.refresh();
    }

    /// True while a worker has this slot.
    pub(super) fn has_slot(&self, slot: &str) -> bool {
        self.lock().workers.iter().any(|worker| worker.slot == slot)
    }

    pub(super) fn find(&self, id: WorkerId) -> Option<Arc<Worker>> {
        let members = self.lock();
        let place = members.workers.binary_search_by_key(&id, |worker| worker.id).ok()?;
        Some(Arc::clone(&members.workers[place]))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returned_list(&self) -> MutexGuard<'_, VecDeque<Returned>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
