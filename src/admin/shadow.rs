//! The shadow's verbs: request → call → reply.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::time;
use super::versions::Counts;
use crate::observe::Latencies;
use crate::pool::Pool;
use crate::shadow::{Status, Tally};

/// Another shadow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SetShadow")]
pub(super) struct Set {
    /// As in the configuration: a name or an absolute path, options behind it.
    policy: String,
}

/// How the shadow does.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Shadow")]
pub(super) struct Told {
    policy: String,
    /// JSON text.
    options: String,
    /// Null for a native one.
    digest: Option<String>,
    generation: Option<u64>,
    /// False when it was switched off after repeated faults.
    in_service: bool,
    since: String,
    asked: u64,
    agreed: u64,
    differed: u64,
    /// The share that agreed; null before any was compared.
    agreement: Option<f64>,
    /// Left to the next policy.
    deferred: u64,
    failed: u64,
    /// Not asked, since it was behind.
    dropped: u64,
    counts: Option<Counts>,
    /// Who got new connections, and who would have.
    spread: Vec<Spread>,
    /// What a decision takes, in nanoseconds.
    latency_ns: Latency,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Spread {
    worker: String,
    live: u64,
    shadow: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Latency {
    live: Percentiles,
    shadow: Percentiles,
}

/// Null before there was any.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Percentiles {
    p50: Option<u64>,
    p99: Option<u64>,
}

pub(super) fn set(pool: &Pool, order: &Set) -> Result<(), String> {
    let link = order.policy.parse().map_err(|error: crate::policy::LinkError| error.to_string())?;
    pool.shadows.set(&link).map_err(|error| error.to_string())
}

pub(super) fn off(pool: &Pool) -> Result<(), String> {
    pool.shadows.off().then_some(()).ok_or_else(|| "there is no shadow".to_owned())
}

pub(super) async fn status(pool: &Pool) -> Option<Told> {
    look(pool).await.as_ref().map(Told::from)
}

/// Elsewhere than where connections are routed: it may be in the middle of a call.
pub(super) async fn look(pool: &Pool) -> Option<Status> {
    let shadows = Arc::clone(&pool.shadows);
    tokio::task::spawn_blocking(move || shadows.status()).await.ok().flatten()
}

impl From<&Status> for Told {
    fn from(status: &Status) -> Self {
        let Status { description, since, tally, dropped } = status;
        // A native policy stands behind the links, alone.
        let link = description.links.first();
        let Tally { agreed, differed, deferred, failed, .. } = *tally;
        let spread = tally.spread.iter().map(|(worker, (live, shadow))| Spread {
            worker: worker.clone(),
            live: *live,
            shadow: *shadow,
        });
        Self {
            policy: link
                .map_or_else(|| format!("native:{}", description.fallback), |link| link.policy.clone()),
            options: link.map_or_else(|| "{}".to_owned(), |link| link.options.clone()),
            digest: link.and_then(|link| link.digest).map(|digest| format!("{digest:#}")),
            generation: link.map(|link| link.generation),
            in_service: link.is_none_or(|link| link.in_service),
            since: time(link.filter(|link| link.digest.is_some()).map_or(*since, |link| link.since)),
            asked: tally.asked(),
            agreed,
            differed,
            agreement: tally.agreement(),
            deferred,
            failed,
            dropped: *dropped,
            counts: link.map(|link| Counts::from(&link.counts)),
            spread: spread.collect(),
            latency_ns: Latency { live: (&tally.live).into(), shadow: (&tally.shadow).into() },
        }
    }
}

impl From<&Latencies> for Percentiles {
    fn from(times: &Latencies) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = |percent| times.percentile(percent).map(nanoseconds);
        Self { p50: at(50), p99: at(99) }
    }
}
