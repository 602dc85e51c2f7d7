//! A version in service: its instance, what it is asked and what is known of its behaviour.
//!
//! Everything here happens under the lock of its [`Slot`](super::slot::Slot), which decides what follows.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::counts::{Counts, VersionFigures};
use super::fault::{Fault, FaultWindow};
use super::instance::{Instance, StartError, Surroundings};
use super::slot::Asked;
use super::swap::{SwapProblem, Tenure};
use super::trial::Trial;
use super::version::{Digest, Version};
use super::{FaultKind, Request, Role, load};
use crate::observe::Latencies;
use crate::types::{Decision, Roster};

/// A version in service, its instance and what is known about its behaviour.
pub(super) struct Live {
    pub(super) generation: u64,
    pub(super) version: Arc<Version>,
    pub(super) since: SystemTime,
    /// None after a fault, until the next call.
    pub(super) instance: Option<Instance>,
    /// What `save` returned last.
    pub(super) saved: Option<Vec<u8>>,
    pub(super) since_save: u32,
    /// The roster of the last call.
    pub(super) roster: Option<Roster>,
    pub(super) faults: FaultWindow,
    pub(super) trial: Option<(Instant, Trial)>,
    pub(super) complained: bool,
    pub(super) counts: Counts,
    /// The counts when this version began.
    pub(super) counted_before: Counts,
    /// How long its calls took, as far as they were timed.
    pub(super) latencies: Latencies,
    /// Versions before, the latest last.
    pub(super) past: VecDeque<Tenure>,
    pub(super) quarantined: HashSet<Digest>,
}

impl Live {
    pub(super) fn ask(
        &mut self,
        around: &Surroundings,
        asked: &Asked<'_>,
        request: &mut Request,
    ) -> Result<(Decision, Option<String>), Fault> {
        let roster = asked.roster;
        if self.roster.as_ref().is_none_or(|known| known.version != roster.version) {
            self.roster = Some(roster.clone());
        }
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                let rebuilt = rebuild(&self.version, around, roster, &mut self.saved, &mut self.counts)?;
                none.insert(rebuilt)
            }
        };
        instance.follow(roster)?;
        instance.listen(asked.listening);
        let decision = instance.ask(asked.question, asked.loads, request)?;
        let explanation = if asked.listening { instance.explanation() } else { None };
        Ok((decision, explanation))
    }

    /// What the live version has done.
    pub(super) fn figures(&self) -> VersionFigures {
        VersionFigures {
            generation: self.generation,
            counts: self.counts.since(&self.counted_before),
            latencies: self.latencies.clone(),
        }
    }

    /// Counts and reports an answer nobody can act upon.
    pub(super) fn check(&mut self, decision: &Decision, role: Role) -> Result<(), String> {
        let Some(instance) = &self.instance else { return Ok(()) };
        let found = match load::check(decision, |id| instance.knows(id)) {
            Ok(()) => return Ok(()),
            Err(found) => found,
        };
        self.counts.bad_answers += 1;
        let (policy, generation) = (&*self.version.name, self.generation);
        // A policy that is wrong once is wrong on every connection; what a shadow says hurts nobody.
        if std::mem::replace(&mut self.complained, true) || role == Role::Shadow {
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

    /// Why the trial has failed, if it has.
    pub(super) fn note_trial(&mut self, loads: &[u32], budget: u64) -> Option<super::trial::Failure> {
        let (until, trial) = self.trial.as_mut()?;
        if Instant::now() >= *until {
            self.trial = None;
            tracing::info!(
                policy = &*self.version.name,
                generation = self.generation,
                "policy has passed its trial"
            );
            return None;
        }
        trial.note(self.instance.as_ref()?.fuel_spent(), budget, loads)
    }

    /// The state another version is to go on with; the last known one when the policy cannot be asked.
    pub(super) fn state_to_pass_on(&mut self) -> Option<Vec<u8>> {
        match self.instance.as_mut().map(Instance::save) {
            Some(Ok(state)) => state,
            Some(Err(fault)) => {
                // The next call starts a new instance, as after any fault.
                self.instance = None;
                self.counts.faults.add(&fault.kind);
                self.saved.clone()
            }
            None => self.saved.clone(),
        }
    }

    /// The form of the live version's state, when it tells.
    pub(super) fn form(&mut self) -> Option<String> {
        self.instance
            .as_mut()
            .and_then(|instance| instance.form().ok().flatten())
            .filter(|form| !form.is_empty())
    }

    /// The latest version before that ended well and is another one, with its state and generation.
    pub(super) fn last_good(&self) -> Option<(Arc<Version>, Option<Vec<u8>>, u64)> {
        self.past.iter().rev().find_map(|tenure| {
            let version = tenure.version.as_ref()?;
            let fit = !self.quarantined.contains(&tenure.digest) && !Arc::ptr_eq(version, &self.version);
            fit.then(|| (Arc::clone(version), tenure.state.clone(), tenure.generation))
        })
    }

    pub(super) fn save_if_due(&mut self, around: &Surroundings) -> Result<(), Fault> {
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

/// Gives a fresh instance the roster, and the state of a version before, whose form is known or not.
pub(super) fn take_over(
    instance: &mut Instance,
    roster: Option<&Roster>,
    state: Option<&[u8]>,
    form: Option<String>,
) -> Result<(), SwapProblem> {
    if let Some(form) = form
        && !instance.reads(&form)?
    {
        return Err(SwapProblem::Form { form });
    }
    if let Some(roster) = roster {
        instance.follow(roster)?;
    }
    if let Some(state) = state {
        instance.restore(state)?.map_err(SwapProblem::State)?;
    }
    Ok(())
}
