//! A scenario as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::author::ground;
use crate::author::world::Outcome;
use crate::policy::{PolicyLink, PolicySource};
use crate::types::{Request, WorkerId, WorkerInfo};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    policy: Option<OneOrMany>,
    pub(super) seed: Option<u64>,
    #[serde(default)]
    workers: Workers,
    /// What happens, in order.
    pub(super) step: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// How many, or which.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Workers {
    Count(u32),
    Named(Vec<Worker>),
}

impl Default for Workers {
    fn default() -> Self {
        Self::Count(4)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Worker {
    name: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

const fn one() -> u32 {
    1
}

impl Worker {
    pub(super) fn info(&self, id: u32) -> WorkerInfo {
        WorkerInfo {
            id: WorkerId(id),
            name: self.name.clone(),
            weight: self.weight,
            draining: false,
            labels: self.labels.clone().into_iter().collect(),
        }
    }
}

/// One thing that happens, and what is asked of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// New sessions of as many clients.
    open: Option<u32>,
    /// Requests of sessions that there are, at random.
    again: Option<u32>,
    /// Sessions that end, at random.
    close: Option<u32>,
    kill: Option<String>,
    start: Option<Started>,
    drain: Option<String>,
    undrain: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    advance: Option<Duration>,
    swap: Option<String>,
    #[serde(default)]
    request: About,
    /// Who must be answered each time.
    pub(super) expect: Option<Expected>,
    /// How far each worker may be from its fair share: 0.1 is ten per cent.
    pub(super) spread: Option<f64>,
}

/// A worker by its name alone, or in full.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Started {
    Name(String),
    Worker(Worker),
}

/// The requests of a step. In every text `{n}` stands for the client's number, and `{n%10}` for what
/// is left of it after division.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    method: Option<String>,
    target: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    peer: Option<String>,
}

/// What a step's answers must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Expected {
    /// A worker's name, `defer`, or `refuse` with or without a status.
    One(String),
    /// One of these workers.
    Any(Vec<String>),
}

impl Expected {
    pub(super) fn is(&self, outcome: &Outcome, name: &str) -> bool {
        match (self, outcome) {
            (Self::Any(names), Outcome::Worker { .. }) => names.iter().any(|known| known == name),
            (Self::One(text), Outcome::Worker { by_policy, .. }) if text == "defer" => !by_policy,
            (Self::One(text), Outcome::Worker { .. }) => text == name,
            (Self::One(text), Outcome::Refused(refusal)) => match text.strip_prefix("refuse") {
                Some(status) => status.is_empty() || status.trim() == refusal.status.to_string(),
                None => false,
            },
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(text) => f.write_str(text),
            Self::Any(names) => write!(f, "one of {}", names.join(", ")),
        }
    }
}

/// The one thing a step does.
pub(super) enum Action {
    Open(u32),
    Again(u32),
    Close(u32),
    Kill(String),
    Start(Worker),
    Drain(String, bool),
    Advance(Duration),
    Swap(String),
    Nothing,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(count) => write!(f, "{count} new sessions"),
            Self::Again(count) => write!(f, "{count} requests of known sessions"),
            Self::Close(count) => write!(f, "{count} sessions end"),
            Self::Kill(name) => write!(f, "{name} dies"),
            Self::Start(worker) => write!(f, "{} starts", worker.name),
            Self::Drain(name, true) => write!(f, "{name} is drained"),
            Self::Drain(name, false) => write!(f, "{name} takes new sessions again"),
            Self::Advance(time) => write!(f, "{} pass", humantime::format_duration(*time)),
            Self::Swap(policy) => write!(f, "swap to {policy}"),
            Self::Nothing => f.write_str("nothing happens"),
        }
    }
}

impl Scenario {
    /// # Errors
    /// What is wrong with it, with the place.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        for (number, step) in (1..).zip(&scenario.step) {
            step.check().map_err(|said| format!("step {number}: {said}"))?;
        }
        if scenario.step.is_empty() {
            return Err("it has no steps: write [[step]] for each thing that happens".to_owned());
        }
        Ok(scenario)
    }

    pub(super) fn policies(&self) -> Vec<String> {
        match &self.policy {
            None => Vec::new(),
            Some(OneOrMany::One(policy)) => vec![policy.clone()],
            Some(OneOrMany::Many(policies)) => policies.clone(),
        }
    }

    pub(super) fn workers(&self) -> Vec<WorkerInfo> {
        match &self.workers {
            Workers::Count(count) => (0..*count).map(ground::worker).collect(),
            Workers::Named(workers) => (0..).zip(workers).map(|(id, worker)| worker.info(id)).collect(),
        }
    }
}

impl Step {
    /// Everything that the step does; there should be one thing.
    fn actions(&self) -> Vec<Action> {
        let start = self.start.clone().map(|started| match started {
            Started::Name(name) => Worker { name, weight: 1, labels: BTreeMap::new() },
            Started::Worker(worker) => worker,
        });
        [
            self.open.map(Action::Open),
            self.again.map(Action::Again),
            self.close.map(Action::Close),
            self.kill.clone().map(Action::Kill),
            start.map(Action::Start),
            self.drain.clone().map(|name| Action::Drain(name, true)),
            self.undrain.clone().map(|name| Action::Drain(name, false)),
            self.advance.map(Action::Advance),
            self.swap.clone().map(Action::Swap),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub(super) fn action(&self) -> Action {
        self.actions().pop().unwrap_or(Action::Nothing)
    }

    fn check(&self) -> Result<(), String> {
        match self.actions().as_slice() {
            [action] => {
                let asks = matches!(action, Action::Open(_) | Action::Again(_));
                if !asks && (self.expect.is_some() || self.spread.is_some()) {
                    return Err("`expect` and `spread` are about answers: use them with `open` or `again`".to_owned());
                }
                if !self.compose(0).head.method().is_empty() {
                    return self.peer(0).map(drop);
                }
                Err("`request`: that is no HTTP request; check method, target and headers for spaces and line ends".to_owned())
            }
            [] => Err("it does nothing: expected one of open, again, close, kill, start, drain, undrain, advance, swap".to_owned()),
            [_, _, ..] => Err("it does several things: give each a [[step]] of its own".to_owned()),
        }
    }

    /// The request of client `number`.
    pub(super) fn request(&self, number: u64) -> Request {
        let mut request = self.compose(number);
        // Checked when the scenario was read; another number makes no other form.
        request.peer = self.peer(number).ok().flatten().map(|ip| (ip, 40_000).into());
        request
    }

    fn compose(&self, number: u64) -> Request {
        let About { method, target, headers, .. } = &self.request;
        let text = |text: &Option<String>, default: &str| fill(text.as_deref().unwrap_or(default), number);
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.clone(), fill(value, number))).collect();
        ground::request(&text(method, "GET"), &text(target, "/"), &headers, None)
    }

    fn peer(&self, number: u64) -> Result<Option<IpAddr>, String> {
        let Some(text) = &self.request.peer else {
            let low = u32::try_from(number % (1 << 24)).unwrap_or(0);
            return Ok(Some(std::net::Ipv4Addr::from_bits(0x0a00_0000 | low).into()));
        };
        let filled = fill(text, number);
        filled.parse().map(Some).map_err(|_| format!("`peer`: expected an IP address, found `{filled}`"))
    }
}

/// Puts a client's number where a text asks for it.
fn fill(text: &str, number: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{n") {
        out.push_str(before);
        let Some((modulus, tail)) = after.split_once('}') else {
            out.push_str("{n");
            rest = after;
            continue;
        };
        match modulus.strip_prefix('%').map(str::parse::<u64>) {
            None if modulus.is_empty() => out.push_str(&number.to_string()),
            Some(Ok(modulus @ 1..)) => out.push_str(&(number % modulus).to_string()),
            // Not for us.
            _ => out.push_str(&format!("{{n{modulus}}}")),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// A policy of a scenario: paths begin at the scenario's folder.
pub(super) fn link(text: &str, folder: &Path) -> Result<PolicyLink, String> {
    let link: PolicyLink = text.parse().map_err(|error: crate::policy::LinkError| error.to_string())?;
    Ok(match link.source {
        PolicySource::File(path) if path.is_relative() => {
            PolicyLink { source: PolicySource::File(folder.join(path)), ..link }
        }
        _ => link,
    })
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format!("`{text}` is no time such as 10s: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_filled_in() {
        assert_eq!(fill("/?u={n}&r={n%10}&x={name}{n", 23), "/?u=23&r=3&x={name}{n");
        assert_eq!(fill("{n%0}{n%x}", 23), "{n%0}{n%x}");
    }

    #[test]
    fn mistakes_have_a_place() {
        let error = |text: &str| Scenario::parse(text).expect_err(text);
        assert!(error("workers = 2\nstep = []").contains("no steps"));
        assert!(error("[[step]]\nopen = 1\nkill = 'w0'").contains("step 1: it does several things"));
        assert!(error("[[step]]\nopen = 1\n[[step]]\nspread = 0.1").contains("step 2: it does nothing"));
        assert!(error("[[step]]\nkill = 'w0'\nexpect = 'w1'").contains("step 1: `expect`"));
        assert!(error("[[step]]\nopen = 1\nopend = 2").contains("unknown field `opend`"));
        assert!(error("[[step]]\nadvance = 'soon'").contains("`soon` is no time"));
        assert!(error("[[step]]\nopen = 1\nrequest = { target = 'a b c' }").contains("no HTTP request"));
        assert!(error("[[step]]\nopen = 1\nrequest = { peer = '10.{n}' }").contains("found `10.0`"));
    }

    #[test]
    fn expectations_fit_what_they_name() {
        let by = |by_policy| Outcome::Worker { id: WorkerId(1), by_policy };
        let one = |text: &str| Expected::One(text.to_owned());
        assert!(one("w1").is(&by(true), "w1") && !one("w2").is(&by(true), "w1"));
        assert!(one("defer").is(&by(false), "w1") && !one("defer").is(&by(true), "w1"));
        assert!(Expected::Any(vec!["w0".into(), "w1".into()]).is(&by(true), "w1"));
        let refusal = crate::types::Refusal { status: 429, retry_after: None, reason: String::new() };
        let refused = Outcome::Refused(refusal);
        assert!(one("refuse").is(&refused, "") && one("refuse 429").is(&refused, ""));
        assert!(!one("refuse 503").is(&refused, "") && !one("w1").is(&refused, ""));
    }
}
