//! From a policy file to an instance that may serve, with every check on the way.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::sync::Arc;

use super::contract::ContractError;
use super::fault::Fault;
use super::instance::{Instance, Question, StartError, Surroundings};
use super::script;
use super::version::{Digest, Version};
use super::{PolicyLink, PolicySource, Request};
use crate::types::{Decision, Head, Roster, WorkerId, WorkerInfo};

/// A policy that was not taken. One line that says what was expected and found.
#[derive(Debug, thiserror::Error)]
#[error("policy `{policy}`: {problem}")]
pub struct LoadError {
    /// The source as the user named it.
    pub policy: String,
    pub problem: LoadProblem,
}

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadProblem {
    #[error("cannot read the file: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Contract(ContractError),
    #[error("`configure` refused the options: {0}")]
    Options(String),
    /// In the script engine's words, which begin with the file and mostly the line.
    #[error("{0}")]
    Script(String),
    /// It failed before or in a call that only tries it out.
    #[error("a trial call failed: {0}")]
    Trial(Fault),
    #[error(
        "a trial call of `balance` with two workers gave a bad answer: expected one of them, `defer` or a refusal with status 400 to 599, found {0}"
    )]
    Answer(String),
    #[error("`restore` refused what `save` had just returned: {0}")]
    State(String),
    /// It was to go on where the program before has stopped.
    #[error("it does not go on from the state of the version in service: {0}")]
    Carried(String),
    /// The machine cannot run WebAssembly.
    #[error("cannot start the WebAssembly engine: {0}")]
    Engine(String),
}

impl From<ContractError> for LoadProblem {
    fn from(error: ContractError) -> Self {
        Self::Contract(error)
    }
}

impl From<Fault> for LoadProblem {
    fn from(fault: Fault) -> Self {
        Self::Trial(fault)
    }
}

impl From<StartError> for LoadProblem {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Fault(fault) => Self::Trial(fault),
            StartError::Types(text) => Self::Contract(ContractError::Types(text)),
            StartError::Refused(said) => Self::Options(said),
        }
    }
}

/// A policy's file as it was read, and what it is to be configured with.
pub(super) struct Read {
    pub(super) link: PolicyLink,
    pub(super) code: Code,
    /// Of what was in the file.
    pub(super) digest: Digest,
}

impl Read {
    /// What a link's file holds.
    pub(super) fn of(link: PolicyLink, bytes: Cow<'static, [u8]>) -> Result<Self, LoadProblem> {
        let digest = Digest::of(&bytes);
        let code = if link.source.is_script() {
            Code::Script(script::text(bytes.into_owned()).map_err(LoadProblem::Script)?)
        } else {
            Code::Wasm(bytes)
        };
        Ok(Self { link, code, digest })
    }

    /// Of what was in the file, in bytes.
    pub(super) fn size(&self) -> usize {
        match &self.code {
            Code::Wasm(bytes) => bytes.len(),
            Code::Script(text) => text.len(),
        }
    }
}

/// What is to be run.
pub(super) enum Code {
    /// A component, or a core module with embedded type information.
    Wasm(Cow<'static, [u8]>),
    /// The text of a script, for the engine that comes with sidetrack.
    Script(String),
}

/// Reads what a link names.
pub(super) fn read(link: &PolicyLink) -> Result<Read, LoadProblem> {
    let bytes = match &link.source {
        PolicySource::BuiltIn(known) | PolicySource::Native(known) => Cow::Borrowed(known.wasm()),
        PolicySource::File(path) => Cow::Owned(fs::read(path).map_err(LoadProblem::Read)?),
    };
    Read::of(link.clone(), bytes)
}

/// Compiles, configures and tries a policy. The instance is fresh: the trial ran on another.
pub(super) fn load(read: Read, around: &Surroundings) -> Result<(Arc<Version>, Instance), LoadProblem> {
    let fuel = around.limits.setup_fuel;
    let mut version = Version::compile(&around.engine, &around.cache, read, &around.limits)?;
    // What it keeps while it is tried is not to be found later.
    let apart = Surroundings { store: Arc::default(), ..around.clone() };
    let start = |version: &Version, around| {
        Instance::start(version, around, fuel).map_err(|error| match error {
            StartError::Refused(said) if version.script.is_some() => LoadProblem::Script(said),
            error => error.into(),
        })
    };
    let mut trial = start(&version, &apart)?;
    version.configure_fuel = fuel.saturating_sub(trial.fuel_left());
    if let Some(interfaces) = trial.interfaces()? {
        version.narrow(&interfaces);
    }
    try_out(&mut trial, version.script.is_some())?;
    let instance = start(&version, around)?;
    Ok((Arc::new(version), instance))
}

/// Whether a decision can be acted upon, when `known` says which workers exist; else what is wrong.
pub(super) fn check(decision: &Decision, known: impl Fn(WorkerId) -> bool) -> Result<(), String> {
    match decision {
        Decision::Worker(id) if !known(*id) => Err(format!("worker {id}, which does not exist")),
        Decision::Refuse(refusal) if !(400..=599).contains(&refusal.status) => {
            Err(format!("a refusal with status {}", refusal.status))
        }
        _ => Ok(()),
    }
}

/// Calls what will be called in service, with two made-up workers and a plain request. A script may call workers by
/// their names, and mean others than these.
fn try_out(instance: &mut Instance, script: bool) -> Result<(), LoadProblem> {
    let worker = |id: u32| WorkerInfo {
        id: WorkerId(id),
        name: format!("w{id}"),
        weight: 1,
        draining: false,
        labels: vec![],
    };
    instance.follow(&Roster { version: 0, workers: Arc::new([worker(0), worker(1)]) })?;
    let host = ("Host".to_owned(), "localhost".to_owned());
    let head = Head::compose("GET", "/", &[host]).unwrap_or_default();
    let mut request = Request { head, ..Request::default() };
    for question in [Question::Balance, Question::Find("trial")] {
        let decision = instance.ask(question, &[0, 0], &mut request)?;
        check(&decision, |id| script || instance.knows(id)).map_err(LoadProblem::Answer)?;
    }
    if let Some(saved) = instance.save()? {
        instance.restore(&saved)?.map_err(LoadProblem::State)?;
    }
    Ok(())
}
