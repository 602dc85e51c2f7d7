//! Putting another version in a link's place: the terms used, what was there before, and what can
//! go wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::counts::VersionFigures;
use super::fault::Fault;
use super::version::{Digest, Version};
use super::{LoadError, PolicyLink};

/// The versions of a link that are remembered.
pub(super) const REMEMBERED: usize = 16;
/// … and those among them that can return: each holds compiled code and a descriptor of its memory.
pub(super) const RETURNABLE: usize = 3;

/// How to replace a version.
#[derive(Debug, Clone)]
pub struct Replacement {
    pub link: PolicyLink,
    /// Begin without the old version's state.
    pub discard_state: bool,
    /// Take a version that was quarantined before.
    pub forgive: bool,
}

/// A replacement that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// The link's name.
    pub link: String,
    pub policy: String,
    pub digest: Digest,
    pub generation: u64,
    pub state: Carried,
}

/// What became of the old version's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// The old version had none.
    Nothing,
    /// The new version goes on with it.
    Taken,
    /// The new version keeps none.
    Dropped,
    /// As was asked for.
    Discarded,
    /// A version that has returned does not take the present one, and goes on with the one it was left with.
    Own,
}

impl Carried {
    /// In a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "there was no state",
            Self::Taken => "state taken over",
            Self::Dropped => "state dropped: this version does not take it",
            Self::Discarded => "state discarded as asked",
            Self::Own => "it goes on with the state it was left with, since it does not take the present one",
        }
    }
}

/// A replacement that has not happened; the version before goes on.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error("{0}")]
    Load(LoadError),
    #[error("policy `{policy}`: {problem}; {kept} stays")]
    Problem { policy: String, problem: SwapProblem, kept: String },
    #[error("there is no link `{wanted}`: the chain is {links}")]
    NoLink { wanted: String, links: String },
    #[error("the link `{0}` is native and cannot be replaced")]
    Native(String),
    #[error("the link `{0}` has no version before that could return")]
    NothingBefore(String),
}

/// What was wrong with a version that loads.
#[derive(Debug, thiserror::Error)]
pub enum SwapProblem {
    #[error(
        "it does not read the state of the version before, whose form is `{form}`; to begin without state use --discard-state"
    )]
    Form { form: String },
    #[error("it refused the state of the version before: {0}; to begin without state use --discard-state")]
    State(String),
    #[error("taking over failed: {0}")]
    Fault(Fault),
    #[error("this very version ({0}) was quarantined before; change it, or use --forgive")]
    Quarantined(Digest),
}

impl From<Fault> for SwapProblem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How a version's time ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Another one was put in its place.
    Replaced,
    /// Its trial failed, or somebody wanted the one before back.
    RolledBack(String),
    /// It faulted too often.
    Quarantined(String),
}

impl Ending {
    /// Why, unless it was simply replaced.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Replaced => None,
            Self::RolledBack(reason) | Self::Quarantined(reason) => Some(reason),
        }
    }
}

/// A version's time in service, ended.
pub(super) struct Tenure {
    pub(super) generation: u64,
    /// None when it cannot return any more.
    pub(super) version: Option<Arc<Version>>,
    pub(super) source: String,
    pub(super) digest: Digest,
    /// What it would have gone on with.
    pub(super) state: Option<Vec<u8>>,
    pub(super) since: SystemTime,
    pub(super) until: SystemTime,
    pub(super) ending: Ending,
    pub(super) figures: VersionFigures,
}

/// A version's time in service, as told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    pub generation: u64,
    pub policy: String,
    pub digest: Digest,
    pub since: SystemTime,
    pub until: SystemTime,
    pub ending: Ending,
}

impl Tenure {
    pub(super) fn told(&self) -> Past {
        Past {
            generation: self.generation,
            policy: self.source.clone(),
            digest: self.digest,
            since: self.since,
            until: self.until,
            ending: self.ending.clone(),
        }
    }
}

/// A link of the chain, for people and machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub name: String,
    pub policy: String,
    /// Whether it is a script.
    pub script: bool,
    pub options: String,
    pub generation: u64,
    /// None for a native link.
    pub digest: Option<Digest>,
    pub interfaces: Vec<&'static str>,
    pub in_service: bool,
    pub since: SystemTime,
    /// What is left of the trial of its present version.
    pub trial: Option<Duration>,
    pub counts: super::Counts,
    /// What the live version has done, and the latest ones before it.
    pub versions: Vec<VersionFigures>,
    /// Keys in its store, and bytes of keys and values.
    pub stored: (usize, usize),
    /// Versions before, the latest first.
    pub history: Vec<Past>,
}
