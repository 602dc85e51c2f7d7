//! The lines of a recording.
//!
//! The first is a [`Beginning`]; of the others, a key tells which they are. Keys of decisions are short,
//! since most lines are decisions. Times are microseconds since the beginning; workers are named by id,
//! rosters say which those are.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{self, Refusal, WorkerId, WorkerInfo};

/// The form this program writes, and the only one it reads so far.
pub const VERSION: &str = "decisions/1";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Beginning {
    /// [`VERSION`].
    pub sidetrack: String,
    /// When it began, in UTC.
    pub began: String,
    /// Of the program.
    pub program: String,
    /// Where requests carry their session id.
    pub session_key: String,
    /// `hashed`, or `full` when nothing is left out or replaced.
    pub form: String,
    /// What a hashed one keeps as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// The policies at the beginning, in order.
    pub chain: Vec<Link>,
    pub last: Link,
}

/// A policy and what it remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Link {
    pub link: String,
    pub policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// What it would have passed on, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A later line.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Roster(Roster),
    Decision(Box<Decision>),
    Opened(Opened),
    Closed(Closed),
    Failed(Failed),
    Gap(Gap),
    End(End),
}

/// The workers that may be chosen from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    pub t: u64,
    pub roster: Vec<Worker>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub id: u32,
    pub name: String,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
}

/// How a connection was routed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub t: u64,
    /// The method, unless it is GET.
    #[serde(rename = "m", default = "get", skip_serializing_if = "is_get")]
    pub method: String,
    /// Path and query.
    #[serde(rename = "u")]
    pub target: String,
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The client's address.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// The session id.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How often it came back before.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// In the order of the roster.
    #[serde(rename = "l")]
    pub loads: Vec<u32>,
    /// Who had the session, by sidetrack's table.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// What the policies said to `find`.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Said>,
    /// What the policies said to `balance`.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub balanced: Option<Said>,
    /// The worker that got it, …
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// … or what its client was told instead.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The link that decided.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its generation, unless it is the native last one.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What the policies took, in nanoseconds.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub took: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// No connection: somebody asked for an explanation, and the policies' turn went by.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hand: bool,
    /// What every link said, in order; only for those who follow live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub link: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// None when it failed.
    pub said: Option<Said>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A decision: a worker's id, `"defer"`, or a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    Worker(u32),
    Defer(Defer),
    Refuse(Refused),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Defer {
    Defer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub refuse: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    pub text: String,
}

/// A worker announced a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub t: u64,
    pub open: String,
    pub w: u32,
}

/// A session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub t: u64,
    pub close: String,
    pub w: u32,
}

/// A worker ended, and its sessions with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub t: u64,
    pub failed: u32,
}

/// So many observations were lost here, since the recorder was slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub t: u64,
    pub gap: u64,
}

/// The last line of a recording that was ended in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub t: u64,
    pub end: Total,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Total {
    pub decisions: u64,
    /// Observations lost in gaps.
    pub lost: u64,
}

/// The keys that tell lines apart.
const MARKS: &str = "u (a decision), roster, open, close, failed, gap or end";

impl Entry {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(line).map_err(|error| {
            // Its lines are ours.
            format!("not JSON: {}", error.to_string().replace("at line 1 column", "at byte"))
        })?;
        let has = |key: &str| value.get(key).is_some();
        let parsed = if has("u") {
            serde_json::from_value(value).map(Self::Decision)
        } else if has("roster") {
            serde_json::from_value(value).map(Self::Roster)
        } else if has("open") {
            serde_json::from_value(value).map(Self::Opened)
        } else if has("close") {
            serde_json::from_value(value).map(Self::Closed)
        } else if has("failed") {
            serde_json::from_value(value).map(Self::Failed)
        } else if has("gap") {
            serde_json::from_value(value).map(Self::Gap)
        } else if has("end") {
            serde_json::from_value(value).map(Self::End)
        } else {
            return Err(format!("expected an object with the key {MARKS}"));
        };
        parsed.map_err(|error| error.to_string())
    }

    /// When it happened, in microseconds since the beginning.
    #[must_use]
    pub const fn time(&self) -> u64 {
        match self {
            Self::Roster(Roster { t, .. })
            | Self::Opened(Opened { t, .. })
            | Self::Closed(Closed { t, .. })
            | Self::Failed(Failed { t, .. })
            | Self::Gap(Gap { t, .. })
            | Self::End(End { t, .. }) => *t,
            Self::Decision(decision) => decision.t,
        }
    }
}

impl From<&types::Decision> for Said {
    fn from(decision: &types::Decision) -> Self {
        match decision {
            types::Decision::Worker(WorkerId(id)) => Self::Worker(*id),
            types::Decision::Defer => Self::Defer(Defer::Defer),
            types::Decision::Refuse(refusal) => Self::Refuse(refusal.into()),
        }
    }
}

impl From<&Refusal> for Refused {
    fn from(Refusal { status, retry_after, reason }: &Refusal) -> Self {
        Self { refuse: *status, retry_after: *retry_after, text: reason.clone() }
    }
}

impl From<&WorkerInfo> for Worker {
    fn from(WorkerInfo { id, name, weight, draining, labels }: &WorkerInfo) -> Self {
        Self { id: id.0, name: name.clone(), weight: *weight, draining: *draining, labels: labels.clone() }
    }
}

impl From<Worker> for WorkerInfo {
    fn from(Worker { id, name, weight, draining, labels }: Worker) -> Self {
        Self { id: WorkerId(id), name, weight, draining, labels }
    }
}

const fn one() -> u32 {
    1
}

fn get() -> String {
    "GET".to_owned()
}

// What serde asks takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_one(number: &u32) -> bool {
    *number == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

fn is_get(method: &str) -> bool {
    method == "GET"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_by_its_key() {
        for (line, time) in [
            (r#"{"t":1,"u":"/","l":[0,0],"b":1,"w":1,"k":"random","g":3}"#, 1),
            (r#"{"t":2,"u":"/","l":[],"f":"defer","x":{"refuse":503,"text":"no"}}"#, 2),
            (r#"{"t":3,"roster":[{"id":1,"name":"w0"}]}"#, 3),
            (r#"{"t":4,"open":"s","w":1}"#, 4),
            (r#"{"t":5,"close":"s","w":1}"#, 5),
            (r#"{"t":6,"failed":1}"#, 6),
            (r#"{"t":7,"gap":20}"#, 7),
            (r#"{"t":8,"end":{"decisions":2,"lost":20}}"#, 8),
        ] {
            assert_eq!(Entry::parse(line).unwrap_or_else(|error| panic!("{error}: {line}")).time(), time);
        }
    }

    #[test]
    fn a_broken_line_says_what_is_wrong() {
        for (line, expected) in [
            ("", "not JSON: EOF"),
            ("{\"t\":1", "not JSON"),
            ("{\"t\":1}", "expected an object with the key u"),
            (r#"{"t":1,"u":"/"}"#, "missing field `l`"),
            (r#"{"t":-1,"gap":1}"#, "invalid value"),
        ] {
            let error = Entry::parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn what_goes_without_saying_is_not_said() {
        let Entry::Decision(decision) = Entry::parse(r#"{"t":1,"u":"/","l":[],"f":"defer"}"#).unwrap() else {
            panic!()
        };
        assert_eq!((decision.method.as_str(), decision.attempt), ("GET", 0));
        assert_eq!(serde_json::to_string(&decision).unwrap(), r#"{"t":1,"u":"/","l":[],"f":"defer"}"#);
    }
}
