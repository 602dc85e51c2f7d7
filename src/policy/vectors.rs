//! Test vectors: what a policy must answer, step by step, whatever it is compiled to.
//!
//! Each built-in policy has a `vectors.json` that both its component and its native twin must
//! satisfy. The same format serves anyone's policy; `docs/policies.md` describes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use sidetrack_policy::native::{Script, scripted};

use super::instance::Question;
use super::{Chain, LoadError, PolicyLink, PolicySource, SessionOwner, Settings};
use crate::types::{Decision, Head, Refusal, Request, Roster, WorkerId, WorkerInfo};

/// The cases of one policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vectors {
    cases: Vec<Case>,
}

/// A sequence that begins with a new instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// For `configure`.
    options: Option<serde_json::Value>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Step {
    Workers(Workers),
    Balance(Balance),
    Find(Find),
    Renew(Renew),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Workers {
    workers: Vec<Worker>,
}

/// A call: the loads, the random numbers that will be drawn, and the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    balance: Vec<u32>,
    #[serde(default)]
    random: VecDeque<u64>,
    #[serde(default)]
    request: About,
    expect: Expected,
}

/// A lookup: the session, the loads, and the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Find {
    find: String,
    loads: Vec<u32>,
    #[serde(default)]
    request: About,
    expect: Expected,
}

/// The request of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct About {
    method: String,
    /// The target as sent: path and query.
    target: String,
    headers: Vec<(String, String)>,
    peer: Option<IpAddr>,
    session: Option<String>,
    attempt: u32,
}

impl Default for About {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            headers: Vec::new(),
            peer: None,
            session: None,
            attempt: 0,
        }
    }
}

impl About {
    fn request(&self) -> Result<Request, String> {
        let head = Head::compose(&self.method, &self.target, &self.headers)
            .map_err(|text| format!("no request: {text:?}"))?;
        let peer = self.peer.map(|ip| (ip, 40_000).into());
        Ok(Request { head, peer, session: self.session.clone(), attempt: self.attempt })
    }
}

/// The instance is replaced by a new one that is given its state.
#[derive(Debug, Clone, Deserialize)]
enum Renew {
    #[serde(rename = "renew")]
    Renew,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worker {
    id: u32,
    #[serde(default)]
    name: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    labels: Vec<(String, String)>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expected {
    Worker(u32),
    Defer,
    Refuse { status: u16, retry_after: Option<u32>, text: String },
}

/// A policy that does not do what its vectors say, or vectors that say nothing.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    #[error("not test vectors: {0}")]
    Format(serde_json::Error),
    #[error("{0}")]
    Load(LoadError),
    #[error("case `{case}`, step {step}: expected {expected}, found {found}")]
    Mismatch { case: String, step: usize, expected: String, found: String },
}

const fn one() -> u32 {
    1
}

impl Vectors {
    /// Reads the JSON format.
    ///
    /// # Errors
    /// When it is not that, or holds no case.
    pub fn parse(json: &str) -> Result<Self, VectorError> {
        let vectors: Self = serde_json::from_str(json).map_err(VectorError::Format)?;
        if vectors.cases.is_empty() {
            return Err(VectorError::Format(serde::de::Error::custom("no cases")));
        }
        Ok(vectors)
    }

    /// Plays every case against a policy by itself, without the rest of the chain, and returns how
    /// many calls were compared.
    ///
    /// # Errors
    /// The first answer that is not as expected.
    pub fn run(&self, source: &PolicySource, settings: &Settings) -> Result<usize, VectorError> {
        let sessions: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
        let load = |options: &str| {
            let link = PolicyLink { source: source.clone(), options: options.to_owned() };
            Chain::build(&[link], settings, &sessions).map_err(VectorError::Load)
        };
        // Versions go on across cases: the policy must see each roster as a new one.
        let mut roster = Roster { version: 0, workers: Arc::new([]) };
        let mut compared = 0;
        for case in &self.cases {
            let options = case.options.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
            let chain = load(&options)?;
            for (number, step) in (1..).zip(&case.steps) {
                match step {
                    Step::Workers(step) => {
                        let workers = step.workers.iter().map(Worker::info).collect();
                        roster = Roster { version: roster.version + 1, workers };
                    }
                    Step::Renew(Renew::Renew) => chain
                        .renew(&roster)
                        .map_err(|said| case.mismatch(number, "a new instance with the old state", said))?,
                    Step::Balance(Balance { balance: loads, random, request, expect }) => {
                        let call = Call { question: Question::Balance, loads, random, request, expect };
                        call.play(&chain, &roster)
                            .map_err(|found| case.mismatch(number, &format!("{expect:?}"), found))?;
                        compared += 1;
                    }
                    Step::Find(Find { find, loads, request, expect }) => {
                        let random = &VecDeque::new();
                        let call = Call { question: Question::Find(find), loads, random, request, expect };
                        call.play(&chain, &roster)
                            .map_err(|found| case.mismatch(number, &format!("{expect:?}"), found))?;
                        compared += 1;
                    }
                }
            }
        }
        Ok(compared)
    }
}

impl Case {
    fn mismatch(&self, step: usize, expected: &str, found: String) -> VectorError {
        VectorError::Mismatch { case: self.name.clone(), step, expected: expected.to_owned(), found }
    }
}

/// A call and what is expected of it.
struct Call<'a> {
    question: Question<'a>,
    loads: &'a [u32],
    random: &'a VecDeque<u64>,
    request: &'a About,
    expect: &'a Expected,
}

impl Call<'_> {
    /// Makes the call; the error is what was found instead of the expected.
    fn play(&self, chain: &Chain, roster: &Roster) -> Result<(), String> {
        let mut request = self.request.request()?;
        let script = Script { random: self.random.clone(), ..Script::default() };
        let ask = || chain.first(self.question, roster, self.loads, &mut request);
        let (found, script) = scripted(script, ask);
        match found {
            Some(decision) if self.expect.is(&decision) && script.random.is_empty() => Ok(()),
            Some(decision) if self.expect.is(&decision) => {
                Err(format!("the same with {} random numbers not drawn", script.random.len()))
            }
            Some(decision) => Err(format!("{decision:?}")),
            None => Err("a fault or a bad answer".into()),
        }
    }
}

impl Worker {
    fn info(&self) -> WorkerInfo {
        let Self { id, name, weight, draining, labels } = self.clone();
        WorkerInfo { id: WorkerId(id), name, weight, draining, labels }
    }
}

impl Expected {
    fn is(&self, decision: &Decision) -> bool {
        match (self, decision) {
            (Self::Worker(expected), Decision::Worker(WorkerId(found))) => expected == found,
            (Self::Defer, Decision::Defer) => true,
            (
                Self::Refuse { status, retry_after, text },
                Decision::Refuse(Refusal { status: s, retry_after: r, reason }),
            ) => (status, retry_after, text) == (s, r, reason),
            _ => false,
        }
    }
}
