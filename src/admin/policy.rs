//! The policy's verbs: request → call → reply.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::versions;
use crate::observe::{Observation, Routing};
use crate::policy::{Replacement, Swapped};
use crate::pool::Pool;
use crate::types::{self, Head, Request, Roster};

/// Another version for a link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SetPolicy")]
pub(super) struct Set {
    /// As in the configuration: a name or an absolute path, options behind it.
    policy: String,
    /// The first one without it.
    link: Option<String>,
    /// Begin without the state of the version before.
    #[serde(default)]
    discard_state: bool,
    /// Take a version that was quarantined before.
    #[serde(default)]
    forgive: bool,
}

/// The version before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// The first one without it.
    link: Option<String>,
}

/// A made-up request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Explain {
    method: String,
    /// Path and query.
    target: String,
    /// Names and values.
    headers: Vec<(String, String)>,
    /// The client's address.
    peer: Option<IpAddr>,
    /// The session id it carries.
    session: Option<String>,
}

impl Default for Explain {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            headers: Vec::new(),
            peer: None,
            session: None,
        }
    }
}

impl Explain {
    /// The head that such a request would have.
    pub(super) fn head(&self) -> Result<Head, String> {
        Head::compose(&self.method, &self.target, &self.headers)
            .map_err(|text| format!("not a request: {text:?}"))
    }
}

/// The chain of one pool, or those of several.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Chains {
    One(Box<Status>),
    All { pools: Vec<Status> },
}

/// What is asked now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Policy")]
pub(super) struct Status {
    /// Of which pool, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// In the order they are asked.
    links: Vec<versions::Link>,
    /// The native policy behind them all.
    last: String,
    /// Null when there is none.
    shadow: Option<super::shadow::Told>,
}

/// A swap that has happened.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Swapped")]
pub(super) struct Told {
    link: String,
    policy: String,
    digest: String,
    generation: u64,
    /// What became of the old version's state, for people.
    state: &'static str,
}

/// What would be decided.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Explained {
    /// Who is asked, where there are several pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    decision: Decision,
    /// Who has the session, by sidetrack's table.
    owner: Option<Decision>,
    /// What every link said, in order.
    steps: Vec<Step>,
    /// Who was to choose from.
    workers: Vec<Choice>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Decision {
    Worker {
        /// Its slot; null when it has just gone.
        worker: Option<String>,
        id: u32,
    },
    Refuse {
        /// The HTTP status.
        refuse: u16,
        text: String,
    },
    Word(Word),
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// It leaves it to the next.
    Defer,
    Failed,
}

/// What one link said.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Step {
    link: String,
    /// 0 for a native one.
    generation: u64,
    decision: Decision,
    /// Why, in its own words.
    says: Option<String>,
}

/// A worker that may be chosen.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Choice {
    name: String,
    id: u32,
    load: u32,
    weight: u32,
    draining: bool,
}

pub(super) fn set(pool: &Pool, order: &Set) -> Result<Told, String> {
    let link = order.policy.parse().map_err(|error: crate::policy::LinkError| error.to_string())?;
    let replacement = Replacement { link, discard_state: order.discard_state, forgive: order.forgive };
    let swapped =
        pool.policy.replace(order.link.as_deref(), &replacement).map_err(|error| error.to_string())?;
    pool.watch.moved();
    Ok(swapped.into())
}

pub(super) fn rollback(pool: &Pool, order: &Rollback) -> Result<Told, String> {
    let swapped = pool.policy.roll_back(order.link.as_deref()).map_err(|error| error.to_string())?;
    pool.watch.moved();
    Ok(swapped.into())
}

/// What would become of a request now. The policies are really asked: a turn of round-robin goes by.
/// Who has the session counts as when a connection is routed.
pub(super) fn explain(pool: &Pool, order: &Explain, head: Head) -> Explained {
    let (roster, loads) = pool.fleet.roster();
    let peer = order.peer.map(|ip| (ip, 0).into());
    let mut request = Request { head, peer, session: order.session.clone(), attempt: 0 };
    let owner = order.session.as_ref().and_then(|sid| pool.sessions.glance(sid));
    let (mut said, mut decision, mut found, mut balanced) = (Vec::new(), types::Decision::Defer, None, None);
    let began = Instant::now();
    if let Some(sid) = &order.session {
        let answer = pool.policy.explain_find(sid, &roster, &loads, &mut request);
        (said, decision) = (answer.steps.clone(), answer.decision.clone());
        found = Some(answer);
        if let (types::Decision::Defer, Some(owner)) = (&decision, owner) {
            decision = types::Decision::Worker(owner);
        }
    }
    if decision == types::Decision::Defer {
        let answer = pool.policy.explain(&roster, &loads, &mut request);
        said.extend(answer.steps.iter().cloned());
        decision = answer.decision.clone();
        balanced = Some(answer);
    }
    if pool.observers.watched() {
        // A recording has to know whose turn went by.
        pool.observers.tell(Observation::routed(Routing {
            request,
            roster: roster.clone(),
            loads: loads.clone(),
            found,
            owner,
            balanced,
            outcome: match &decision {
                types::Decision::Worker(worker) => Ok(*worker),
                types::Decision::Refuse(refusal) => Err(refusal.clone()),
                types::Decision::Defer => Err(crate::route::Router::no_worker().refusal),
            },
            took: began.elapsed(),
            began,
            calls: Vec::new(),
            by_hand: true,
        }));
    }
    let steps = said.into_iter().map(|step| Step {
        link: step.link,
        generation: step.generation,
        decision: match step.decision {
            Some(decision) => Decision::of(&decision, &roster),
            None => Decision::Word(Word::Failed),
        },
        says: step.explanation,
    });
    let workers = roster.workers.iter().zip(&loads).map(|(worker, load)| Choice {
        name: worker.name.clone(),
        id: worker.id.0,
        load: *load,
        weight: worker.weight,
        draining: worker.draining,
    });
    Explained {
        pool: None,
        decision: Decision::of(&decision, &roster),
        owner: owner.map(|owner| Decision::of(&types::Decision::Worker(owner), &roster)),
        steps: steps.collect(),
        workers: workers.collect(),
    }
}

pub(super) fn status(pool: &Pool, shadow: Option<super::shadow::Told>) -> Status {
    let description = pool.policy.describe();
    Status {
        pool: None,
        links: description.links.into_iter().map(versions::Link::from).collect(),
        last: description.fallback.name().to_owned(),
        shadow,
    }
}

impl Decision {
    /// A decision in the names of the workers.
    fn of(decision: &types::Decision, roster: &Roster) -> Self {
        match decision {
            types::Decision::Worker(id) => {
                let found = roster.workers.iter().find(|worker| worker.id == *id);
                Self::Worker { worker: found.map(|worker| worker.name.clone()), id: id.0 }
            }
            types::Decision::Defer => Self::Word(Word::Defer),
            types::Decision::Refuse(refusal) => {
                Self::Refuse { refuse: refusal.status, text: refusal.reason.clone() }
            }
        }
    }
}

impl From<Swapped> for Told {
    fn from(swapped: Swapped) -> Self {
        Self {
            link: swapped.link,
            policy: swapped.policy,
            digest: format!("{:#}", swapped.digest),
            generation: swapped.generation,
            state: swapped.state.words(),
        }
    }
}

pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
