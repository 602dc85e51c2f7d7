//! A host without sockets: workers, sessions and their loads, moved by hand, and a chain of policies
//! that believes it is serving.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ground;
use crate::policy::{
    Chain, Clock, Event, LinkName, LoadError, PolicyLink, Replacement, SessionOwner, Settings, lock,
};
use crate::types::{Decision, Refusal, Request, WorkerId, WorkerInfo};

/// See the module's documentation. Loads are counted in open sessions.
pub(super) struct World {
    chain: Chain,
    clock: Clock,
    table: Arc<Table>,
    roster: crate::types::Roster,
    loads: Vec<u32>,
    next_id: u32,
    next_session: u64,
}

/// Which worker has a session.
#[derive(Default)]
struct Table(Mutex<HashMap<String, WorkerId>>);

impl SessionOwner for Table {
    fn owner(&self, sid: &str) -> Option<WorkerId> {
        lock(&self.0).get(sid).copied()
    }
}

/// What became of a connection.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) outcome: Outcome,
    /// What a policy did wrong on the way, which traffic would not notice.
    pub(super) wrong: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Worker {
        id: WorkerId,
        by_policy: bool,
    },
    Refused(Refusal),
    /// There is no worker.
    Nobody,
}

impl World {
    /// # Errors
    /// When a policy does not load.
    pub(super) fn new(
        policies: &[PolicyLink],
        workers: Vec<WorkerInfo>,
        settings: &Settings,
    ) -> Result<Self, LoadError> {
        let table = Arc::new(Table::default());
        let owner: Arc<dyn SessionOwner> = Arc::clone(&table) as _;
        let clock = Clock::scripted();
        // A swap is not on trial here: trials take their time from the machine's clock.
        let settings = Settings { clock: clock.clone(), trial: Duration::ZERO, ..settings.clone() };
        let chain = Chain::build(policies, &settings, &owner)?;
        let next_id = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        let loads = vec![0; workers.len()];
        Ok(Self { chain, clock, table, roster: ground::roster(workers), loads, next_id, next_session: 0 })
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn workers(&self) -> &[WorkerInfo] {
        &self.roster.workers
    }

    pub(super) fn loads(&self) -> &[u32] {
        &self.loads
    }

    pub(super) fn name(&self, id: WorkerId) -> &str {
        self.roster.position(id).map_or("a worker that is gone", |at| &self.roster.workers[at].name)
    }

    pub(super) fn id(&self, name: &str) -> Option<WorkerId> {
        self.workers().iter().find(|worker| worker.name == name).map(|worker| worker.id)
    }

    /// Who has a session.
    pub(super) fn owner(&self, sid: &str) -> Option<WorkerId> {
        self.table.owner(sid)
    }

    /// Sets the clock that policies read.
    pub(super) fn set_time(&self, since_start: Duration) {
        self.clock.set(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Routes a request as sidetrack would: the owner of its session when there is one, else whoever
    /// the policies choose.
    pub(super) fn route(&mut self, request: &mut Request) -> Placed {
        let mut wrong = None;
        if let Some(sid) = request.session.clone() {
            let owner = self.table.owner(&sid);
            let answer = self.chain.find(&sid, &self.roster, &self.loads, request);
            wrong = complaint(&answer);
            match answer.decision {
                Decision::Worker(id) => {
                    if let Some(owner) = owner.filter(|owner| *owner != id) {
                        let (lives, found) = (self.name(owner), self.name(id));
                        wrong = Some(format!("session {sid} lives on {lives}, and `find` answered {found}"));
                    }
                    return Placed { outcome: Outcome::Worker { id, by_policy: true }, wrong };
                }
                Decision::Refuse(refusal) => return Placed { outcome: Outcome::Refused(refusal), wrong },
                Decision::Defer => {}
            }
            if let Some(id) = owner {
                return Placed { outcome: Outcome::Worker { id, by_policy: false }, wrong };
            }
        }
        let answer = self.chain.balance(&self.roster, &self.loads, request);
        let wrong = wrong.or_else(|| complaint(&answer));
        let outcome = match answer.decision {
            Decision::Worker(id) => Outcome::Worker { id, by_policy: answer.link != LinkName::Last },
            Decision::Refuse(refusal) => Outcome::Refused(refusal),
            Decision::Defer => Outcome::Nobody,
        };
        Placed { outcome, wrong }
    }

    /// A worker has a new session, whose id begins with its name as tagged ids do.
    pub(super) fn open(&mut self, worker: WorkerId) -> String {
        let sid = format!("{}.{}", self.name(worker), self.next_session);
        self.next_session += 1;
        lock(&self.table.0).insert(sid.clone(), worker);
        self.add(worker, 1);
        self.chain.notice(Event::SessionOpened { sid: &sid, worker });
        sid
    }

    /// A session ends. False when it ended before, with its worker.
    pub(super) fn close(&mut self, sid: &str) -> bool {
        let Some(worker) = lock(&self.table.0).remove(sid) else { return false };
        self.add(worker, -1);
        self.chain.notice(Event::SessionClosed { sid, worker });
        true
    }

    fn add(&mut self, worker: WorkerId, change: i32) {
        if let Some(load) = self.roster.position(worker).and_then(|at| self.loads.get_mut(at)) {
            *load = load.saturating_add_signed(change);
        }
    }

    /// A worker dies, with its sessions. Returns how many those were, or None when there is no such
    /// worker.
    pub(super) fn kill(&mut self, name: &str) -> Option<usize> {
        let id = self.id(name)?;
        let lost: Vec<String> = lock(&self.table.0)
            .iter()
            .filter(|(_, owner)| **owner == id)
            .map(|(sid, _)| sid.clone())
            .collect();
        self.chain.notice(Event::WorkerFailed { worker: id });
        for sid in &lost {
            self.close(sid);
        }
        self.change(|workers| workers.retain(|worker| worker.id != id));
        Some(lost.len())
    }

    /// A worker comes, with an id that nobody had before.
    pub(super) fn start(&mut self, worker: WorkerInfo) {
        let id = WorkerId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.change(|workers| workers.push(WorkerInfo { id, ..worker }));
    }

    /// Changes something about a worker. False when there is no such worker.
    pub(super) fn alter(&mut self, name: &str, alter: impl FnOnce(&mut WorkerInfo)) -> bool {
        let Some(id) = self.id(name) else { return false };
        self.change(|workers| {
            if let Some(worker) = workers.iter_mut().find(|worker| worker.id == id) {
                alter(worker);
            }
        });
        true
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<WorkerInfo>)) {
        let mut workers = self.roster.workers.to_vec();
        let loads: HashMap<WorkerId, u32> =
            workers.iter().map(|worker| worker.id).zip(self.loads.iter().copied()).collect();
        change(&mut workers);
        self.loads = workers.iter().map(|worker| loads.get(&worker.id).copied().unwrap_or(0)).collect();
        self.roster = ground::roster(workers);
    }

    /// Puts another version of the first policy in its place, with its state.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) fn swap(&self, link: PolicyLink) -> Result<(), String> {
        let replacement = Replacement { link, discard_state: false, forgive: false };
        self.chain.replace(None, &replacement).map(drop).map_err(|error| error.to_string())
    }
}

/// What a link did wrong, when explanations are kept.
fn complaint(answer: &crate::policy::Answer) -> Option<String> {
    let step = answer.steps.iter().find(|step| step.decision.is_none())?;
    let why = step.explanation.as_deref().unwrap_or("it is out of service after its faults");
    Some(format!("{}: {why}", step.link))
}
