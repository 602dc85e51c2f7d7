//! The run as it is: who works, for whom, and what has happened.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::server::Authority;
use crate::pool::{Pool, Pools};
use crate::worker::{Origin, Standing, WorkerReport};

/// Everything at a glance.
pub(super) fn status(authority: &Authority) -> Value {
    let addresses: Vec<_> = authority.servers.addresses().iter().map(ToString::to_string).collect();
    let figures: Map<_, _> = authority
        .telemetry
        .counters
        .snapshot()
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    let pools = &authority.pools;
    let links = pools.iter().flat_map(|pool| pool.policy.describe().links);
    let policies: Vec<_> = links.map(|link| link.policy).collect();
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "since": super::policy::time(authority.started),
        "uptime_s": SystemTime::now().duration_since(authority.started).unwrap_or_default().as_secs(),
        "addresses": addresses,
        "policy": policies,
        "sessions": pools.iter().map(|pool| pool.sessions.len()).sum::<usize>(),
        "workers": workers(authority),
        "figures": figures,
    });
    if pools.several() {
        status["pools"] = pools.iter().map(|pool| one_pool(pools, pool)).collect();
    }
    status
}

fn one_pool(pools: &Pools, pool: &Pool) -> Value {
    let links = pool.policy.describe().links;
    json!({
        "pool": &*pool.name,
        "matches": pools.matches(pool),
        "policy": links.iter().map(|link| &link.policy).collect::<Vec<_>>(),
        "sessions": pool.sessions.len(),
        "workers": pool.fleet.ready().len(),
    })
}

/// Every worker.
pub(super) fn workers(authority: &Authority) -> Value {
    let pools = &authority.pools;
    let of = |pool: &Arc<Pool>| {
        let named = |report: &WorkerReport| told(pools, pool, worker(report));
        pool.fleet.census().iter().map(named).collect::<Vec<_>>()
    };
    pools.iter().flat_map(of).collect()
}

/// Where there are several pools it is said of which something is.
fn told(pools: &Pools, pool: &Pool, mut value: Value) -> Value {
    if pools.several() {
        value["pool"] = json!(&*pool.name);
    }
    value
}

/// A worker that is to be emptied.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// When it leaves at the latest, from now.
    within_ms: Option<u64>,
}

pub(super) fn drain(authority: &Authority, slot: &str, order: &Drain) -> Result<Value, String> {
    let deadline = order.within_ms.map(|within| Instant::now() + Duration::from_millis(within));
    authority.pools.of_slot(slot)?.fleet.drain(slot, deadline).map_err(|error| error.to_string())?;
    Ok(workers(authority))
}

pub(super) fn restart(authority: &Authority, slot: &str, order: &Drain) -> Result<Value, String> {
    let deadline = order.within_ms.map(|within| Instant::now() + Duration::from_millis(within));
    authority.pools.of_slot(slot)?.fleet.restart(slot, deadline).map_err(|error| error.to_string())?;
    Ok(workers(authority))
}

pub(super) fn undrain(authority: &Authority, slot: &str) -> Result<Value, String> {
    authority.pools.of_slot(slot)?.fleet.undrain(slot).map_err(|error| error.to_string())?;
    Ok(workers(authority))
}

/// Who has a session.
pub(super) fn session(authority: &Authority, sid: &str) -> Result<Value, String> {
    let owned = |pool: &Arc<Pool>| Some((Arc::clone(pool), pool.sessions.glance(sid)?));
    let (pool, owner) = authority
        .pools
        .iter()
        .find_map(owned)
        .ok_or_else(|| format!("nobody is known to have session `{sid}`"))?;
    let owner = pool.fleet.census().into_iter().find(|worker| worker.id == owner);
    let owner = owner.ok_or_else(|| format!("the worker of session `{sid}` has just gone"))?;
    let value = json!({ "session": sid, "worker": owner.slot, "id": owner.id.0, "pid": owner.pid });
    Ok(told(&authority.pools, &pool, value))
}

fn worker(report: &WorkerReport) -> Value {
    let standing = match report.standing {
        Standing::Starting => "starting",
        Standing::Ready => "ready",
        Standing::Unresponsive => "unresponsive",
        Standing::Leaving => "leaving",
    };
    let origin = match report.origin {
        Origin::Started => "started",
        Origin::Joined => "joined",
    };
    json!({
        "worker": report.slot,
        "id": report.id.0,
        "pid": report.pid,
        "origin": origin,
        "standing": standing,
        "draining": report.draining,
        "weight": report.facts.weight,
        "labels": report.facts.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>(),
        "load": report.load,
        "sessions": report.sessions,
        "sockets": report.sockets,
        "unacknowledged": report.unacknowledged,
        "queued": report.queued,
        "handed_off": report.handed_off,
        "handed_back": report.handed_back,
        "ready_s": report.ready_since.map(|since| since.elapsed().as_secs()),
    })
}
