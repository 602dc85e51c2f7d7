//! The place of one link's live version: one instance behind a mutex, rebuilt after a fault.
//!
//! Everything that belongs to a version sits in [`Live`], so that another version takes its place by
//! one exchange under the lock, with the generation counted up. The ladder down: a fault costs one
//! answer and the instance; repeated faults, or a failed trial, cost the version, and the last good
//! one returns; when there is none the link is out of service and the next link answers.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::counts::Counts;
use super::fault::{Fault, FaultWindow};
use super::instance::{Instance, Question, Surroundings};
use super::live::{Live, take_over};
use super::state::LinkState;
use super::swap::{Carried, Ending, LinkStatus, REMEMBERED, RETURNABLE, SwapProblem, Swapped, Tenure};
use super::trial::Trial;
use super::version::{Digest, Version};
use super::{Event, PolicyLink, Request, Role, lock};
use crate::observe::Latencies;
use crate::telemetry::spans;
use crate::types::{Decision, Roster};

/// One call in so many is timed, the first of a version too: two looks at the clock take a sixth of the time that
/// a small policy does.
const MEASURED: u64 = 8;

/// A link's versions: the live one and those before.
pub(super) struct Slot {
    /// The link's name.
    name: String,
    around: Surroundings,
    pub(super) live: Mutex<Live>,
    /// What can be told without waiting for the lock, which a call may hold for its whole budget.
    pub(super) glance: Glance,
    /// Numbers the versions of the whole chain.
    generations: Arc<AtomicU64>,
}

pub(super) struct Glance {
    generation: AtomicU64,
    pub(super) in_service: AtomicBool,
    sessions: AtomicBool,
    events: AtomicBool,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The policy's decision; none when it could not be asked or answered nonsense.
    pub(super) decision: Option<Decision>,
    pub(super) generation: u64,
    /// In the policy's words, or the host's when there is no decision.
    pub(super) explanation: Option<String>,
}

/// What is asked about one connection.
pub(super) struct Asked<'a> {
    pub(super) question: Question<'a>,
    pub(super) roster: &'a Roster,
    pub(super) loads: &'a [u32],
    /// Whether anybody wants to know why.
    pub(super) listening: bool,
}

impl Slot {
    /// The first version, numbered.
    pub(super) fn new(
        name: String,
        around: Surroundings,
        version: Arc<Version>,
        instance: Instance,
        generations: Arc<AtomicU64>,
        generation: u64,
    ) -> Self {
        let glance = Glance {
            generation: AtomicU64::new(generation),
            in_service: AtomicBool::new(true),
            sessions: AtomicBool::new(version.sessions.is_some()),
            events: AtomicBool::new(version.events.is_some()),
        };
        let live = Live {
            generation,
            version,
            since: SystemTime::now(),
            instance: Some(instance),
            saved: None,
            since_save: 0,
            roster: None,
            faults: FaultWindow::default(),
            trial: None,
            complained: false,
            counts: Counts::default(),
            counted_before: Counts::default(),
            latencies: Latencies::default(),
            past: VecDeque::new(),
            quarantined: HashSet::new(),
        };
        Self { name, around, live: Mutex::new(live), glance, generations }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn around(&self) -> &Surroundings {
        &self.around
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

    /// What runs here, as somebody would write it.
    pub(super) fn link(&self) -> PolicyLink {
        lock(&self.live).version.link.clone()
    }

    pub(super) fn status(&self) -> LinkStatus {
        let live = lock(&self.live);
        let Live { version, trial, .. } = &*live;
        LinkStatus {
            name: self.name.clone(),
            policy: version.link.source.to_string(),
            script: version.link.source.is_script(),
            options: version.link.options.clone(),
            generation: live.generation,
            digest: Some(version.digest),
            interfaces: version.interfaces().collect(),
            in_service: self.in_service(),
            since: live.since,
            trial: trial
                .as_ref()
                .map(|(until, _)| until.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero()),
            counts: live.counts,
            versions: live
                .past
                .iter()
                .rev()
                .map(|tenure| tenure.figures.clone())
                .take(RETURNABLE)
                .chain([live.figures()])
                .collect(),
            stored: lock(&self.around.store).size(),
            history: live.past.iter().rev().map(Tenure::told).collect(),
        }
    }

    /// A version was not taken.
    pub(super) fn refused(&self) {
        lock(&self.live).counts.swaps_refused += 1;
    }

    /// Whether this very version was taken out of service before.
    pub(super) fn was_quarantined(&self, digest: Digest) -> bool {
        lock(&self.live).quarantined.contains(&digest)
    }

    /// Of the live version's file.
    pub(super) fn digest(&self) -> Digest {
        lock(&self.live).version.digest
    }

    /// Asks the policy, and deals with whatever it does.
    pub(super) fn ask(&self, asked: &Asked<'_>, request: &mut Request) -> Reply {
        if !self.in_service() {
            return Reply { generation: self.generation(), ..Reply::default() };
        }
        let span = spans::policy(&self.name, asked.question.name());
        let reply = span.in_scope(|| self.ask_live(asked, request));
        spans::answered(&span, reply.generation, reply.decision.as_ref());
        reply
    }

    fn ask_live(&self, asked: &Asked<'_>, request: &mut Request) -> Reply {
        let mut live = lock(&self.live);
        let live = &mut *live;
        let measured = (live.counts.calls - live.counted_before.calls).is_multiple_of(MEASURED);
        live.counts.calls += 1;
        let mut reply = Reply { generation: live.generation, ..Reply::default() };
        let began = measured.then(Instant::now);
        let answer = live.ask(&self.around, asked, request);
        if let Some(began) = began {
            live.latencies.note(began.elapsed());
        }
        match answer {
            Ok((decision, explanation)) => {
                reply.explanation = explanation;
                match live.check(&decision, self.around.role) {
                    Ok(()) => reply.decision = Some(decision),
                    Err(why) if asked.listening => {
                        reply.explanation = Some(match reply.explanation {
                            Some(said) => format!("{why}; it said: {said}"),
                            None => why,
                        });
                    }
                    Err(_) => {}
                }
                if let Some(failure) = live.note_trial(asked.loads, self.around.limits.decision_fuel) {
                    self.fall_back(live, Ending::RolledBack(format!("its trial failed: {failure}")));
                } else if let Err(fault) = live.save_if_due(&self.around) {
                    self.fault(live, &fault);
                }
            }
            Err(fault) => {
                self.fault(live, &fault);
                reply.explanation = asked.listening.then(|| format!("the policy failed: {fault}"));
            }
        }
        reply
    }

    /// Tells the policy of an event, when it listens to events and is there to hear it.
    pub(super) fn notice(&self, event: Event<'_>) {
        if !self.glance.events.load(Ordering::Relaxed) || !self.in_service() {
            return;
        }
        let mut live = lock(&self.live);
        let Some(instance) = &mut live.instance else { return };
        if let Err(fault) = instance.notice(event) {
            self.fault(&mut live, &fault);
        }
    }

    /// Puts another version in the live one's place, with its state. Calls that run now finish on the
    /// old one; the lock is held for microseconds.
    pub(super) fn exchange(
        &self,
        version: Arc<Version>,
        mut instance: Instance,
        discard_state: bool,
        trial: Duration,
    ) -> Result<Swapped, SwapProblem> {
        let mut live = lock(&self.live);
        let live = &mut *live;
        let state = live.state_to_pass_on();
        let carried = match &state {
            None => Carried::Nothing,
            Some(_) if discard_state => Carried::Discarded,
            Some(_) if version.state.is_none() => Carried::Dropped,
            Some(_) => Carried::Taken,
        };
        let form = if carried == Carried::Taken { live.form() } else { None };
        let passed_on = state.clone().filter(|_| carried == Carried::Taken);
        take_over(&mut instance, live.roster.as_ref(), passed_on.as_deref(), form)?;
        live.quarantined.remove(&version.digest);
        self.install(live, version, Some(instance), passed_on, state, Ending::Replaced);
        live.trial = (!trial.is_zero()).then(|| (Instant::now() + trial, Trial::default()));
        live.counts.swaps += 1;
        Ok(self.swapped(live, carried))
    }

    /// Puts the version before back, as somebody asked. It goes on with the present state if it takes it,
    /// else with the one that it was left with.
    pub(super) fn roll_back(&self) -> Option<Swapped> {
        let mut live = lock(&self.live);
        let live = &mut *live;
        let (version, own, _) = live.last_good()?;
        let form = live.form();
        let present = live.state_to_pass_on();
        let goes_on = |state: Option<Vec<u8>>, form: Option<String>| {
            let state = state.filter(|_| version.state.is_some())?;
            let mut instance = Instance::start(&version, &self.around, self.around.limits.setup_fuel).ok()?;
            take_over(&mut instance, live.roster.as_ref(), Some(&state), form).ok()?;
            Some((instance, state))
        };
        let (carried, gone_on) = match goes_on(present.clone(), form) {
            Some(taken) => (Carried::Taken, Some(taken)),
            None => match goes_on(own, None) {
                Some(taken) => (Carried::Own, Some(taken)),
                // The next call makes an instance.
                None => (if present.is_some() { Carried::Dropped } else { Carried::Nothing }, None),
            },
        };
        let (instance, state) = gone_on.unzip();
        let ending = Ending::RolledBack("as asked".to_owned());
        self.install(live, version, instance, state, present, ending);
        Some(self.swapped(live, carried))
    }

    fn swapped(&self, live: &Live, state: Carried) -> Swapped {
        Swapped {
            link: self.name.clone(),
            policy: live.version.link.source.to_string(),
            digest: live.version.digest,
            generation: live.generation,
            state,
        }
    }

    /// Makes `version` the live one and remembers how the one before ended. `left` is what that one
    /// would go on with.
    fn install(
        &self,
        live: &mut Live,
        version: Arc<Version>,
        instance: Option<Instance>,
        saved: Option<Vec<u8>>,
        left: Option<Vec<u8>>,
        ending: Ending,
    ) {
        let now = SystemTime::now();
        let figures = live.figures();
        let old = std::mem::replace(&mut live.version, version);
        live.past.push_back(Tenure {
            generation: live.generation,
            source: old.link.source.to_string(),
            digest: old.digest,
            // One that has failed is not wanted back.
            version: (ending == Ending::Replaced).then_some(old),
            state: left,
            since: live.since,
            until: now,
            ending,
            figures,
        });
        if live.past.len() > REMEMBERED {
            live.past.pop_front();
        }
        let returnable = live.past.iter_mut().rev().filter(|tenure| tenure.version.is_some());
        for tenure in returnable.skip(RETURNABLE) {
            (tenure.version, tenure.state) = (None, None);
        }
        live.generation = next(&self.generations);
        live.since = now;
        live.instance = instance;
        live.saved = saved;
        live.since_save = 0;
        live.faults = FaultWindow::default();
        live.trial = None;
        live.complained = false;
        live.counted_before = live.counts;
        live.latencies = Latencies::default();
        self.glance.generation.store(live.generation, Ordering::Relaxed);
        self.glance.sessions.store(live.version.sessions.is_some(), Ordering::Relaxed);
        self.glance.events.store(live.version.events.is_some(), Ordering::Relaxed);
        self.glance.in_service.store(true, Ordering::Relaxed);
    }

    /// The live version has shown that it is not fit: the last good one returns, if there is one.
    fn fall_back(&self, live: &mut Live, ending: Ending) {
        let (link, policy, generation) = (&*self.name, &*Arc::clone(&live.version.name), live.generation);
        if let Ending::Quarantined(_) = ending {
            live.counts.quarantines += 1;
            live.quarantined.insert(live.version.digest);
        }
        let reason = ending.reason().unwrap_or_default().to_owned();
        let good = match self.around.role {
            Role::Deciding => live.last_good(),
            // Whoever compares wants the version it is told of, or none.
            Role::Shadow => None,
        };
        match good {
            Some((version, state, was)) => {
                self.install(live, version, None, state, None, ending);
                live.counts.rollbacks += 1;
                tracing::error!(
                    link,
                    policy,
                    generation,
                    reason,
                    returned = was,
                    as_generation = live.generation,
                    "policy version taken out of service: the last good one returns"
                );
            }
            None if matches!(ending, Ending::Quarantined(_)) => {
                self.glance.in_service.store(false, Ordering::Relaxed);
                live.instance = None;
                // What has become of a shadow is its keeper's to say.
                if self.around.role == Role::Deciding {
                    tracing::error!(
                        link,
                        policy,
                        generation,
                        reason,
                        "policy out of service: the next link decides until it is replaced"
                    );
                }
            }
            None => tracing::warn!(
                link,
                policy,
                generation,
                reason,
                "there is no version before that could return"
            ),
        }
    }

    /// What another version would go on with.
    pub(super) fn state(&self) -> LinkState {
        let mut live = lock(&self.live);
        let (form, state) = (live.form(), live.state_to_pass_on());
        LinkState {
            name: self.name.clone(),
            policy: live.version.link.source.to_string(),
            options: live.version.link.options.clone(),
            generation: live.generation,
            digest: Some(format!("{:#}", live.version.digest)),
            form,
            state,
        }
    }

    /// Goes on with a state from elsewhere: of the same version, or of a form that this one reads. The
    /// next call restores it.
    pub(super) fn adopt(&self, from: &LinkState) -> bool {
        let mut live = lock(&self.live);
        let live = &mut *live;
        let same = from.digest.as_deref() == Some(&*format!("{:#}", live.version.digest));
        let mut reads = || {
            let (Some(instance), Some(form)) = (&mut live.instance, &from.form) else { return false };
            live.version.schema.is_some() && instance.reads(form).unwrap_or(false)
        };
        if live.version.state.is_none() || from.state.is_none() || !(same || reads()) {
            return false;
        }
        live.saved.clone_from(&from.state);
        live.instance = None;
        true
    }

    /// Makes the next call start a new instance with the present state.
    pub(super) fn renew(&self) -> Result<(), Fault> {
        let mut live = lock(&self.live);
        let saved = live.instance.as_mut().map(Instance::save).transpose()?;
        live.saved = saved.flatten();
        live.instance = None;
        Ok(())
    }

    /// Drops the instance, counts, and gives the version up when it was once too often.
    fn fault(&self, live: &mut Live, fault: &Fault) {
        live.instance = None;
        live.counts.faults.add(&fault.kind);
        let limits = self.around.limits;
        let (link, policy, generation) = (&*self.name, &*live.version.name, live.generation);
        match self.around.role {
            Role::Deciding => {
                tracing::warn!(link, policy, generation, %fault, "policy fault: the next link answers");
            }
            Role::Shadow => tracing::debug!(link, policy, generation, %fault, "shadow policy fault"),
        }
        if live.faults.note(Instant::now(), limits.faults, limits.fault_window) && self.in_service() {
            let (faults, window) = (limits.faults, limits.fault_window);
            let reason = format!("{faults} faults within {window:?}, the last: {fault}");
            self.fall_back(live, Ending::Quarantined(reason));
        }
    }
}

/// The next generation of a chain.
pub(super) fn next(generations: &AtomicU64) -> u64 {
    generations.fetch_add(1, Ordering::Relaxed) + 1
}
