//! The place of the live policy version: one instance behind a mutex, rebuilt after a fault, taken
//! out of service after too many.
//!
//! Everything that belongs to a version sits in [`Live`], so that another version takes its place by
//! one exchange under the lock, with the generation counted up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::counts::Counts;
use super::fault::{Fault, FaultWindow};
use super::instance::{Instance, Question, StartError, Surroundings};
use super::version::{Digest, Version};
use super::{Event, FaultKind, Request, load, lock};
use crate::types::{Decision, Roster};

/// The live version.
pub(super) struct Slot {
    live: Mutex<Live>,
    /// What can be told without waiting for the lock, which a call may hold for its whole budget.
    glance: Glance,
}

struct Glance {
    generation: AtomicU64,
    in_service: AtomicBool,
    sessions: AtomicBool,
    events: AtomicBool,
}

/// A version in service, its instance and what is known about its behaviour.
struct Live {
    generation: u64,
    version: Arc<Version>,
    /// None after a fault, until the next call.
    instance: Option<Instance>,
    /// What `save` returned last.
    saved: Option<Vec<u8>>,
    since_save: u32,
    faults: FaultWindow,
    complained: bool,
    counts: Counts,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The policy's decision; none when it could not be asked or answered nonsense.
    pub(super) decision: Option<Decision>,
    pub(super) generation: u64,
    pub(super) explanation: Option<String>,
}

impl Slot {
    /// The first version, generation 1.
    pub(super) fn new(version: Arc<Version>, instance: Instance) -> Self {
        let glance = Glance {
            generation: AtomicU64::new(1),
            in_service: AtomicBool::new(true),
            sessions: AtomicBool::new(version.sessions.is_some()),
            events: AtomicBool::new(version.events.is_some()),
        };
        let live = Live {
            generation: 1,
            version,
            instance: Some(instance),
            saved: None,
            since_save: 0,
            faults: FaultWindow::default(),
            complained: false,
            counts: Counts::default(),
        };
        Self { live: Mutex::new(live), glance }
    }

    pub(super) fn has_sessions(&self) -> bool {
        self.glance.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn in_service(&self) -> bool {
        self.glance.in_service.load(Ordering::Relaxed)
    }

    pub(super) fn generation(&self) -> u64 {
        self.glance.generation.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.live).counts
    }

    /// Name, digest and optional interfaces of the live version.
    pub(super) fn describe(&self) -> (String, Digest, Vec<&'static str>) {
        let version = Arc::clone(&lock(&self.live).version);
        (version.name.to_string(), version.digest, version.interfaces().collect())
    }

    /// Asks the policy, and deals with whatever it does.
    pub(super) fn ask(
        &self,
        around: &Surroundings,
        question: Question<'_>,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
        listening: bool,
    ) -> Reply {
        if !self.in_service() {
            return Reply { generation: self.generation(), ..Reply::default() };
        }
        let mut live = lock(&self.live);
        let live = &mut *live;
        live.counts.calls += 1;
        let mut reply = Reply { generation: live.generation, ..Reply::default() };
        match live.ask(around, question, roster, loads, request, listening) {
            Ok((decision, explanation)) => {
                reply.explanation = explanation;
                match live.check(&decision) {
                    Ok(()) => reply.decision = Some(decision),
                    Err(why) if listening => reply.explanation = Some(why),
                    Err(_) => {}
                }
                if let Err(fault) = live.save_if_due(around) {
                    self.fault(live, around, &fault);
                }
            }
            Err(fault) => {
                self.fault(live, around, &fault);
                reply.explanation = listening.then(|| format!("the policy failed: {fault}"));
            }
        }
        reply
    }

    /// Tells the policy of an event, when it listens to events and is there to hear it.
    pub(super) fn notice(&self, around: &Surroundings, event: Event<'_>) {
        if !self.glance.events.load(Ordering::Relaxed) || !self.in_service() {
            return;
        }
        let mut live = lock(&self.live);
        let Some(instance) = &mut live.instance else { return };
        if let Err(fault) = instance.notice(event) {
            self.fault(&mut live, around, &fault);
        }
    }

    /// Makes the next call start a new instance with the present state.
    pub(super) fn renew(&self) -> Result<(), Fault> {
        let mut live = lock(&self.live);
        let saved = live.instance.as_mut().map(Instance::save).transpose()?;
        live.saved = saved.flatten();
        live.instance = None;
        Ok(())
    }

    /// Makes the next call start a new instance that remembers nothing.
    pub(super) fn reset(&self) {
        let mut live = lock(&self.live);
        live.saved = None;
        live.instance = None;
    }

    /// Drops the instance, counts, and takes the version out of service when it was once too often.
    fn fault(&self, live: &mut Live, around: &Surroundings, fault: &Fault) {
        live.instance = None;
        live.counts.faults.add(&fault.kind);
        let (policy, generation) = (&*live.version.name, live.generation);
        tracing::warn!(policy, generation, %fault, "policy fault: the native link answers");
        if live.faults.note(Instant::now(), around.limits.faults, around.limits.fault_window)
            && self.in_service()
        {
            self.glance.in_service.store(false, Ordering::Relaxed);
            live.counts.quarantines += 1;
            tracing::error!(
                policy,
                generation,
                faults = around.limits.faults,
                within = ?around.limits.fault_window,
                "policy out of service after repeated faults: the native link decides until it is replaced"
            );
        }
    }
}

impl Live {
    fn ask(
        &mut self,
        around: &Surroundings,
        question: Question<'_>,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
        listening: bool,
    ) -> Result<(Decision, Option<String>), Fault> {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                let rebuilt = rebuild(&self.version, around, roster, &mut self.saved, &mut self.counts)?;
                none.insert(rebuilt)
            }
        };
        instance.follow(roster)?;
        instance.listen(listening);
        let decision = instance.ask(question, loads, request)?;
        let explanation = if listening { instance.explanation() } else { None };
        Ok((decision, explanation))
    }

    /// Counts and reports an answer nobody can act upon.
    fn check(&mut self, decision: &Decision) -> Result<(), String> {
        let Some(instance) = &self.instance else { return Ok(()) };
        let found = match load::check(decision, |id| instance.knows(id)) {
            Ok(()) => return Ok(()),
            Err(found) => found,
        };
        self.counts.bad_answers += 1;
        let (policy, generation) = (&*self.version.name, self.generation);
        // A policy that is wrong once is wrong on every connection.
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(policy, generation, found, "policy gave a bad answer");
        } else {
            tracing::warn!(
                policy,
                generation,
                found,
                "policy gave a bad answer, which counts as defer; further ones are logged at debug level"
            );
        }
        Err(format!("the policy answered {found}"))
    }

    fn save_if_due(&mut self, around: &Surroundings) -> Result<(), Fault> {
        self.since_save += 1;
        if self.since_save < around.limits.save_every {
            return Ok(());
        }
        self.since_save = 0;
        if let Some(saved) = self.instance.as_mut().map(Instance::save).transpose()?.flatten() {
            self.saved = Some(saved);
        }
        Ok(())
    }
}

/// A new instance in place of one that trapped, made while a connection waits: on the budget of a
/// decision plus what `configure` is known to need. State that it cannot take is forgotten.
fn rebuild(
    version: &Version,
    around: &Surroundings,
    roster: &Roster,
    saved: &mut Option<Vec<u8>>,
    counts: &mut Counts,
) -> Result<Instance, Fault> {
    counts.rebuilds += 1;
    let fuel = version.configure_fuel.saturating_mul(2).saturating_add(around.limits.decision_fuel);
    let mut instance = Instance::start(version, around, fuel).map_err(|error| match error {
        StartError::Fault(fault) => fault,
        // It started from the same bytes with the same options before, so it is not fit to serve now.
        StartError::Types(said) | StartError::Refused(said) => {
            Fault { call: "configure", kind: FaultKind::Trap(said) }
        }
    })?;
    instance.follow(roster)?;
    if let Some(state) = saved.take() {
        // Taken out first: a state that makes `restore` trap is not tried twice.
        match instance.restore(&state)? {
            Ok(()) => *saved = Some(state),
            Err(said) => {
                counts.states_lost += 1;
                let policy = &*version.name;
                tracing::warn!(policy, said, "policy did not take its own state back and begins without");
            }
        }
    }
    Ok(instance)
}
