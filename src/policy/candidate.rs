//! A policy by itself, for those who want to know all about it: what every call answers and costs.
//!
//! A [`Chain`](super::Chain) hides what a policy does wrong, for the sake of the traffic. Here nothing
//! is hidden and nobody answers in its place.

use std::sync::Arc;

use super::cache::Cache;
use super::engine::Engine;
use super::fault::Fault;
use super::instance::{Instance, Question, StartError, Surroundings};
use super::load::{self, LoadError, LoadProblem};
use super::script;
use super::version::{Digest, Version};
use super::{Clock, Event, Limits, PolicyLink, Request, Role};
use crate::types::{Decision, Roster, WorkerId};

/// A policy that loads: compiled once, started as often as somebody likes.
pub struct Candidate {
    version: Arc<Version>,
    around: Surroundings,
    size: usize,
}

/// An instance of a [`Candidate`], with a store of its own. After a [`Fault`] it is of no use.
pub struct Run {
    instance: Instance,
}

impl Candidate {
    /// Reads, compiles, configures and tries a policy, as a chain does. Nobody has any session.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn load(link: &PolicyLink, limits: Limits) -> Result<Self, LoadError> {
        let load = || {
            let engine = Arc::new(Engine::new().map_err(LoadProblem::Engine)?);
            let around = Surroundings {
                engine,
                cache: Arc::new(Cache::none()),
                sessions: Arc::new(|_: &str| None),
                store: Arc::default(),
                clock: Clock::Machine,
                limits,
                role: Role::Deciding,
            };
            let read = load::read(link)?;
            let size = read.size();
            let (version, _) = load::load(read, &around)?;
            Ok(Self { version, around, size })
        };
        load().map_err(|problem| LoadError { policy: link.source.to_string(), problem })
    }

    /// Of its file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.version.digest
    }

    /// Of its file, in bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The names of the optional interfaces it exports.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&'static str> {
        self.version.interfaces().collect()
    }

    /// The fuel that instantiating and configuring took.
    #[must_use]
    pub fn start_fuel(&self) -> u64 {
        self.version.configure_fuel
    }

    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.around.limits
    }

    /// A new instance.
    ///
    /// # Errors
    /// When it cannot be had, although one could when the policy was loaded.
    pub fn start(&self) -> Result<Run, StartError> {
        self.begin(&self.version.options)
    }

    /// A new instance with other options.
    ///
    /// # Errors
    /// What the policy says to them, or how it failed.
    pub fn configured(&self, options: &str) -> Result<Run, StartError> {
        match script::with_options(&self.version, options) {
            Some(wrapped) => self.begin(&wrapped),
            None => self.begin(options),
        }
    }

    fn begin(&self, configuration: &str) -> Result<Run, StartError> {
        let apart = Surroundings { store: Arc::default(), ..self.around.clone() };
        Instance::configured(&self.version, configuration, &apart, self.around.limits.setup_fuel)
            .map(|instance| Run { instance })
    }
}

/// All of these fail when the call ended the instance.
#[allow(clippy::missing_errors_doc, reason = "said once for all")]
impl Run {
    /// Hands over a roster, unless it has this one.
    pub fn follow(&mut self, roster: &Roster) -> Result<(), Fault> {
        self.instance.follow(roster)
    }

    /// Asks `balance`.
    pub fn balance(&mut self, loads: &[u32], request: &mut Request) -> Result<Decision, Fault> {
        self.instance.ask(Question::Balance, loads, request)
    }

    /// Asks `find`; one that does not export it defers.
    pub fn find(&mut self, sid: &str, loads: &[u32], request: &mut Request) -> Result<Decision, Fault> {
        self.instance.ask(Question::Find(sid), loads, request)
    }

    /// Its state, when it keeps any.
    pub fn save(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        self.instance.save()
    }

    /// What it says to a state.
    pub fn restore(&mut self, state: &[u8]) -> Result<Result<(), String>, Fault> {
        self.instance.restore(state)
    }

    /// The form of its state, when it names one.
    pub fn form(&mut self) -> Result<Option<String>, Fault> {
        self.instance.form()
    }

    /// Whether it takes states of that form.
    pub fn reads(&mut self, form: &str) -> Result<bool, Fault> {
        self.instance.reads(form)
    }

    /// Tells it of an event, if it listens.
    pub fn notice(&mut self, event: Event<'_>) -> Result<(), Fault> {
        self.instance.notice(event)
    }

    /// Whether a decision can be acted upon; else what is wrong with it.
    ///
    /// # Errors
    /// In words.
    pub fn judge(&self, decision: &Decision) -> Result<(), String> {
        load::check(decision, |id: WorkerId| self.instance.knows(id))
    }

    /// The fuel the last `balance` or `find` took.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.instance.fuel_spent()
    }

    /// The most memory it has had, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.instance.memory_peak()
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("policy", &self.version.link).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("memory", &self.memory()).finish_non_exhaustive()
    }
}
