//! Policies as the next program is to find them: versions, numbers, states, counts and history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::instance::Surroundings;
use super::links::{self, Link, Links};
use super::live::take_over;
use super::load::{self, Code, LoadError, LoadProblem, Read};
use super::slot::{self, Slot};
use super::swap::{SwapProblem, Tenure};
use super::trial::Trial;
use super::version::{Digest, Version};
use super::{Chain, PolicyLink, PolicySource, SessionOwner, Settings, lock};
use crate::live::Live;
use crate::types::Roster;
use crate::upgrade::state::{self, Bytes, Kind};

/// The chain of the program before, and the workers it knew.
pub(super) struct Before<'a> {
    pub(super) chain: &'a state::Chain,
    pub(super) roster: &'a Roster,
}

impl Before<'_> {
    /// What ran in the place of a link, if the settings have named the same there.
    fn link(&self, place: usize, link: &PolicyLink) -> Option<&state::Link> {
        let before = self.chain.links.get(place)?;
        (before.configured == state::Policy::of(link)).then_some(before)
    }
}

impl Chain {
    /// What the next program must know. What was seen of the files is the watch's to add.
    #[must_use]
    pub fn carry(&self) -> state::Chain {
        let chain = self.links.now();
        let kind = |link: &Link| match link {
            Link::Native { twin, .. } => Kind::Native(lock(twin).carry()),
            Link::Component(slot) => Kind::Component(Box::new(slot.carry())),
        };
        let links = chain.links.iter().zip(&chain.configured).map(|(link, configured)| state::Link {
            name: link.name().to_owned(),
            configured: state::Policy::of(configured),
            kind: kind(link),
        });
        state::Chain {
            links: links.collect(),
            last: lock(&chain.last).carry(),
            generations: chain.generations.load(Ordering::Relaxed),
            seen: BTreeMap::new(),
        }
    }

    /// A chain as [`Self::build`] makes it that goes on where the one before has stopped, link by link,
    /// unless the settings name another policy there.
    ///
    /// # Errors
    /// As [`Self::build`], and when a policy does not take the state of the one before.
    pub fn resume(
        links: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
        chain: &state::Chain,
        roster: &Roster,
    ) -> Result<Self, LoadError> {
        let links = Links::resume(links, settings, sessions, &Before { chain, roster })?;
        Ok(Self { links: Live::new(links), listening: AtomicBool::new(false) })
    }
}

impl Links {
    /// As far as the settings name the same as before.
    fn resume(
        links: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
        before: &Before<'_>,
    ) -> Result<Self, LoadError> {
        let Before { chain, roster } = before;
        let (wanted, known, options) = links::split(links, settings);
        let mut last = links::native(known, options).map_err(|problem| links::not_loaded(&known, problem))?;
        last.resume(&chain.last, roster)
            .map_err(|said| links::not_loaded(&known, LoadProblem::Carried(said)))?;
        let going_on: Vec<_> =
            wanted.iter().enumerate().map(|(place, link)| before.link(place, link)).collect();
        let kept: Vec<String> = going_on.iter().flatten().map(|link| link.name.clone()).collect();
        let mut made = Self {
            links: Vec::with_capacity(wanted.len()),
            last: Arc::new(Mutex::new(last)),
            settings: settings.clone(),
            configured: wanted.to_vec(),
            generations: Arc::new(AtomicU64::new(chain.generations)),
            shared: None,
        };
        for (link, carried) in wanted.iter().zip(going_on) {
            let name = carried.map_or_else(
                || links::free_name(link.source.name(), &made.links, &kept),
                |carried| carried.name.clone(),
            );
            let link = made
                .resume_one(name, link, carried.map(|carried| &carried.kind), sessions, roster)
                .map_err(|problem| links::not_loaded(&link.source, problem))?;
            made.links.push(link);
        }
        Ok(made)
    }

    fn resume_one(
        &mut self,
        name: String,
        link: &PolicyLink,
        carried: Option<&Kind>,
        sessions: &Arc<dyn SessionOwner>,
        roster: &Roster,
    ) -> Result<Link, LoadProblem> {
        if let PolicySource::Native(known) = link.source {
            let mut twin = links::native(known, &link.options)?;
            if let Some(Kind::Native(carried)) = carried {
                twin.resume(carried, roster).map_err(LoadProblem::Carried)?;
            }
            return Ok(Link::Native { name, twin: Arc::new(Mutex::new(twin)) });
        }
        let (around, generations) = (self.around(sessions, Arc::default())?, Arc::clone(&self.generations));
        let slot = if let Some(Kind::Component(carried)) = carried {
            Slot::resume(name, around, generations, carried, roster)?
        } else {
            let (version, instance) = load::load(load::read(link)?, &around)?;
            let generation = slot::next(&generations);
            Slot::new(name, around, version, instance, generations, generation)
        };
        Ok(Link::Component(Arc::new(slot)))
    }
}

impl Slot {
    fn carry(&self) -> state::Component {
        let mut live = lock(&self.live);
        let (form, state) = (live.form(), live.state_to_pass_on());
        let store = lock(&self.around().store);
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        state::Component {
            generation: live.generation,
            version: live.version.carry(),
            since: live.since,
            form,
            state: state.map(Bytes),
            store: store.entries().map(|(key, value)| (key.to_owned(), Bytes(value.to_vec()))).collect(),
            in_service: self.in_service(),
            trial: live.trial.as_ref().map(|(until, _)| left(*until)),
            counts: live.counts,
            figures: live.figures(),
            quarantined: live.quarantined.iter().map(|digest| format!("{digest:#}")).collect(),
            past: live.past.iter().map(Tenure::carry).collect(),
        }
    }

    /// Goes on where the program before has stopped: with the version that was in service, whatever is in
    /// its file by now. One that came with that program may be another one in this.
    pub(super) fn resume(
        name: String,
        around: Surroundings,
        generations: Arc<AtomicU64>,
        carried: &state::Component,
        roster: &Roster,
    ) -> Result<Self, LoadProblem> {
        {
            let mut store = around.store.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, value) in &carried.store {
                // It was within the bounds before.
                store.set(key.clone(), value.0.clone());
            }
        }
        let read = carried.version.read()?;
        let digest = read.digest;
        let (version, mut instance) = load::load(read, &around)?;
        let same = Digest::parse(&carried.version.digest) == Some(digest);
        let state = carried.state.as_ref().map(|bytes| bytes.0.clone()).filter(|_| version.state.is_some());
        let form = carried.form.clone().filter(|_| !same && state.is_some());
        // Nobody is told of no workers: it begins with the first.
        let known = Some(roster).filter(|roster| !roster.workers.is_empty());
        if known.is_some() {
            take_over(&mut instance, known, state.as_deref(), form).map_err(|problem| {
                LoadProblem::Carried(match problem {
                    SwapProblem::Form { form } => format!("it does not read the form `{form}`"),
                    SwapProblem::State(said) => said,
                    other => other.to_string(),
                })
            })?;
        }
        let generation = if same { carried.generation } else { slot::next(&generations) };
        let past = carried.past.iter().map(|past| Tenure::resume(past, &around)).collect();
        let slot = Self::new(name, around, version, instance, generations, generation);
        {
            let mut live = lock(&slot.live);
            let live = &mut *live;
            live.saved = state;
            live.roster = known.cloned();
            live.counts = carried.counts;
            live.counted_before = carried.counts;
            live.past = past;
            live.quarantined = carried.quarantined.iter().filter_map(|text| Digest::parse(text)).collect();
            if same {
                live.since = carried.since;
                live.counted_before = carried.counts.before(&carried.figures.counts);
                live.latencies = carried.figures.latencies.clone();
                live.trial = carried.trial.map(|left| (Instant::now() + left, Trial::default()));
            }
            // With nobody to follow, the state waits for the next call's instance.
            if known.is_none() && live.saved.is_some() {
                live.instance = None;
            }
            if same && !carried.in_service {
                live.instance = None;
                slot.glance.in_service.store(false, Ordering::Relaxed);
            }
        }
        Ok(slot)
    }
}

impl Version {
    fn carry(&self) -> state::Version {
        let code = match (&self.link.source, &self.code) {
            (PolicySource::File(_), Code::Wasm(bytes)) => Some(Bytes(bytes.to_vec())),
            (PolicySource::File(_), Code::Script(text)) => Some(Bytes(text.clone().into_bytes())),
            _ => None,
        };
        let policy = state::Policy::of(&self.link);
        state::Version { policy, digest: format!("{:#}", self.digest), code }
    }
}

impl state::Version {
    fn read(&self) -> Result<Read, LoadProblem> {
        let link = self.policy.link()?;
        match &self.code {
            Some(code) => Read::of(link, code.0.clone().into()),
            None => load::read(&link),
        }
    }
}

impl Tenure {
    fn carry(&self) -> state::Tenure {
        let version = match &self.version {
            Some(version) => version.carry(),
            None => state::Version {
                policy: state::Policy { source: self.source.clone(), options: String::new() },
                digest: format!("{:#}", self.digest),
                code: None,
            },
        };
        state::Tenure {
            generation: self.generation,
            version,
            returnable: self.version.is_some(),
            state: self.state.clone().map(Bytes),
            since: self.since,
            until: self.until,
            ending: self.ending.clone(),
            figures: self.figures.clone(),
        }
    }

    /// One that cannot be loaded any more cannot return; that it was there stays known.
    fn resume(carried: &state::Tenure, around: &Surroundings) -> Self {
        let digest = Digest::parse(&carried.version.digest).unwrap_or_else(|| Digest::of(&[]));
        let version = || {
            let read = carried.version.read().ok().filter(|read| read.digest == digest)?;
            load::load(read, around).ok().map(|(version, _)| version)
        };
        Self {
            generation: carried.generation,
            version: if carried.returnable { version() } else { None },
            source: carried.version.policy.source.clone(),
            digest,
            state: carried.state.as_ref().map(|bytes| bytes.0.clone()),
            since: carried.since,
            until: carried.until,
            ending: carried.ending.clone(),
            figures: carried.figures.clone(),
        }
    }
}

impl state::Shadow {
    /// What goes on as shadow instead of what the settings name: somebody has set another one, or switched
    /// it off. None when the settings are to be followed.
    #[must_use]
    #[allow(clippy::option_option, reason = "as configured, none, another one")]
    pub fn in_place_of(&self, configured: Option<&PolicyLink>) -> Option<Option<PolicyLink>> {
        let unchanged = self.configured == configured.map(state::Policy::of);
        let by_hand = self.policy != self.configured;
        (unchanged && by_hand).then(|| self.policy.as_ref().and_then(|policy| policy.link().ok()))
    }
}

impl state::Policy {
    /// A link as somebody would write it.
    #[must_use]
    pub fn of(link: &PolicyLink) -> Self {
        Self { source: link.source.to_string(), options: link.options.clone() }
    }

    /// The link again.
    ///
    /// # Errors
    /// When this program has no such policy.
    pub fn link(&self) -> Result<PolicyLink, LoadProblem> {
        let source = self.source.parse::<PolicySource>();
        let source = source.map_err(|error| LoadProblem::Carried(error.to_string()))?;
        Ok(PolicyLink { source, options: self.options.clone() })
    }
}
