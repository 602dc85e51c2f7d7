//! The shadow's verbs: request → call → reply.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::policy::{counts, time};
use crate::observe::Latencies;
use crate::pool::Pool;
use crate::shadow::{Status, Tally};

/// Another shadow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    /// As in the configuration: a name or an absolute path, options behind it.
    policy: String,
}

pub(super) fn set(pool: &Pool, order: &Set) -> Result<(), String> {
    let link = order.policy.parse().map_err(|error: crate::policy::LinkError| error.to_string())?;
    pool.shadows.set(&link).map_err(|error| error.to_string())
}

pub(super) fn off(pool: &Pool) -> Result<Value, String> {
    pool.shadows.off().then_some(Value::Null).ok_or_else(|| "there is no shadow".to_owned())
}

/// Null when there is none.
pub(super) async fn status(pool: &Pool) -> Value {
    look(pool).await.as_ref().map_or(Value::Null, told)
}

/// Elsewhere than where connections are routed: it may be in the middle of a call.
pub(super) async fn look(pool: &Pool) -> Option<Status> {
    let shadows = Arc::clone(&pool.shadows);
    tokio::task::spawn_blocking(move || shadows.status()).await.ok().flatten()
}

fn told(status: &Status) -> Value {
    let Status { description, since, tally, dropped } = status;
    // A native policy stands behind the links, alone.
    let link = description.links.first();
    let spread = |(worker, (live, shadow)): (&String, &(u64, u64))| json!({ "worker": worker, "live": live, "shadow": shadow });
    let Tally { agreed, differed, deferred, failed, .. } = tally;
    json!({
        "policy": link.map_or_else(|| format!("native:{}", description.fallback), |link| link.policy.clone()),
        "options": link.map_or("{}", |link| &link.options),
        "digest": link.and_then(|link| link.digest).map(|digest| format!("{digest:#}")),
        "generation": link.map(|link| link.generation),
        "in_service": link.is_none_or(|link| link.in_service),
        "since": time(link.filter(|link| link.digest.is_some()).map_or(*since, |link| link.since)),
        "asked": tally.asked(),
        "agreed": agreed,
        "differed": differed,
        "agreement": tally.agreement(),
        "deferred": deferred,
        "failed": failed,
        "dropped": dropped,
        "counts": link.map(|link| counts(&link.counts)),
        "spread": tally.spread.iter().map(spread).collect::<Vec<_>>(),
        "latency_ns": { "live": latency(&tally.live), "shadow": latency(&tally.shadow) },
    })
}

fn latency(times: &Latencies) -> Value {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let at = |percent| times.percentile(percent).map(nanoseconds);
    json!({ "p50": at(50), "p99": at(99) })
}
