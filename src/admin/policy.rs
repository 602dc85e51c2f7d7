//! The policy's verbs: request → call → reply.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::observe::{Observation, Routing};
use crate::policy::{Counts, Ending, LinkStatus, Past, Replacement, Step, Swapped};
use crate::pool::Pool;
use crate::types::{Decision, Head, Request, Roster};

/// Another version for a link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    /// As in the configuration: a name or an absolute path, options behind it.
    policy: String,
    link: Option<String>,
    #[serde(default)]
    discard_state: bool,
    #[serde(default)]
    forgive: bool,
}

/// The version before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    link: Option<String>,
}

/// A made-up request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Explain {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    peer: Option<IpAddr>,
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

pub(super) fn set(pool: &Pool, order: &Set) -> Result<Value, String> {
    let link = order.policy.parse().map_err(|error: crate::policy::LinkError| error.to_string())?;
    let replacement = Replacement { link, discard_state: order.discard_state, forgive: order.forgive };
    let swapped =
        pool.policy.replace(order.link.as_deref(), &replacement).map_err(|error| error.to_string())?;
    pool.watch.moved();
    Ok(told(&swapped))
}

pub(super) fn rollback(pool: &Pool, order: &Rollback) -> Result<Value, String> {
    let swapped = pool.policy.roll_back(order.link.as_deref()).map_err(|error| error.to_string())?;
    pool.watch.moved();
    Ok(told(&swapped))
}

/// What would become of a request now. The policies are really asked: a turn of round-robin goes by.
/// Who has the session counts as when a connection is routed.
pub(super) fn explain(pool: &Pool, order: &Explain, head: Head) -> Result<Value, String> {
    let (roster, loads) = pool.fleet.roster();
    let peer = order.peer.map(|ip| (ip, 0).into());
    let mut request = Request { head, peer, session: order.session.clone(), attempt: 0 };
    let owner = order.session.as_ref().and_then(|sid| pool.sessions.glance(sid));
    let (mut said, mut decision, mut found, mut balanced) = (Vec::new(), Decision::Defer, None, None);
    let began = Instant::now();
    if let Some(sid) = &order.session {
        let answer = pool.policy.explain_find(sid, &roster, &loads, &mut request);
        (said, decision) = (answer.steps.clone(), answer.decision.clone());
        found = Some(answer);
        if let (Decision::Defer, Some(owner)) = (&decision, owner) {
            decision = Decision::Worker(owner);
        }
    }
    if decision == Decision::Defer {
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
                Decision::Worker(worker) => Ok(*worker),
                Decision::Refuse(refusal) => Err(refusal.clone()),
                Decision::Defer => Err(crate::route::Router::no_worker().refusal),
            },
            took: began.elapsed(),
            began,
            calls: Vec::new(),
            by_hand: true,
        }));
    }
    let name = |decision: &Decision| decided(decision, &roster);
    let steps: Vec<Value> = said
        .iter()
        .map(|Step { link, generation, decision, explanation }| {
            let decision = decision.as_ref().map_or_else(|| json!("failed"), name);
            json!({ "link": link, "generation": generation, "decision": decision, "says": explanation })
        })
        .collect();
    let workers: Vec<Value> = roster
        .workers
        .iter()
        .zip(&loads)
        .map(|(worker, load)| {
            json!({ "name": worker.name, "id": worker.id.0, "load": load, "weight": worker.weight, "draining": worker.draining })
        })
        .collect();
    let owner = owner.map(|owner| name(&Decision::Worker(owner)));
    Ok(json!({ "decision": name(&decision), "owner": owner, "steps": steps, "workers": workers }))
}

/// A decision in the names of the workers.
fn decided(decision: &Decision, roster: &Roster) -> Value {
    match decision {
        Decision::Worker(id) => {
            let name =
                roster.workers.iter().find(|worker| worker.id == *id).map(|worker| worker.name.as_str());
            json!({ "worker": name, "id": id.0 })
        }
        Decision::Defer => json!("defer"),
        Decision::Refuse(refusal) => json!({ "refuse": refusal.status, "text": refusal.reason }),
    }
}

pub(super) fn status(pool: &Pool) -> Value {
    let description = pool.policy.describe();
    let links: Vec<Value> = description.links.iter().map(link).collect();
    json!({ "links": links, "last": description.fallback.name() })
}

fn link(status: &LinkStatus) -> Value {
    let LinkStatus { name, policy, options, generation, digest, interfaces, in_service, .. } = status;
    json!({
        "name": name,
        "policy": policy,
        "options": options,
        "generation": generation,
        "digest": digest.map(|digest| format!("{digest:#}")),
        "interfaces": interfaces,
        "in_service": in_service,
        "since": time(status.since),
        "trial_left_ms": status.trial.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        "counts": counts(&status.counts),
        "store": { "keys": status.stored.0, "bytes": status.stored.1 },
        "history": status.history.iter().map(past).collect::<Vec<_>>(),
    })
}

fn past(past: &Past) -> Value {
    let Past { generation, policy, digest, since, until, ending } = past;
    let ended = match ending {
        Ending::Replaced => "replaced",
        Ending::RolledBack(_) => "rolled back",
        Ending::Quarantined(_) => "quarantined",
    };
    json!({
        "generation": generation,
        "policy": policy,
        "digest": format!("{digest:#}"),
        "since": time(*since),
        "until": time(*until),
        "ended": ended,
        "reason": ending.reason(),
    })
}

pub(super) fn counts(counts: &Counts) -> Value {
    json!({
        "calls": counts.calls,
        "native_calls": counts.native_calls,
        "faults": {
            "fuel": counts.faults.fuel,
            "deadline": counts.faults.deadline,
            "memory": counts.faults.memory,
            "oversized": counts.faults.oversized,
            "trap": counts.faults.trap,
        },
        "bad_answers": counts.bad_answers,
        "rebuilds": counts.rebuilds,
        "states_lost": counts.states_lost,
        "quarantines": counts.quarantines,
        "swaps": counts.swaps,
        "rollbacks": counts.rollbacks,
    })
}

fn told(swapped: &Swapped) -> Value {
    json!({
        "link": swapped.link,
        "policy": swapped.policy,
        "digest": format!("{:#}", swapped.digest),
        "generation": swapped.generation,
        "state": swapped.state.words(),
    })
}

pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
