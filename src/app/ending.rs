//! The end of a run: what brings it about, and how it goes in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Outcome;
use crate::config::{Config, Problems};
use crate::drain::{Drain, Phase};
use crate::pool::{self, Pools};
use crate::telemetry::{Event, Telemetry};
use crate::worker::{Fatal, node};

/// Time for connections on their way to reach a worker when the run ends.
const SETTLE: Duration = Duration::from_secs(2);

/// Between SIGTERM and SIGKILL for a worker that outstays the drain.
const GRACE: Duration = Duration::from_secs(2);

/// Whether a grave event ends the run, and how. While other workers serve, the run goes on.
pub fn judge(
    (pool, fatal): &(Arc<str>, Fatal),
    telemetry: &Telemetry,
    pools: &Pools,
) -> Option<Result<Outcome, Problems>> {
    let served = telemetry.counters.workers_ready.get() > 0;
    let problem = |key: &str, text: String| Problems::one(pool::place(pool, key), text);
    let problem = match fatal {
        Fatal::Wrapper { name } => {
            let command = pools.named(Some(pool)).ok().map(|pool| pool.program.now().command.clone());
            let command = command.unwrap_or_default();
            let first = command.first().filter(|word| word.contains(name.as_str()));
            problem("command", node::advice(first.unwrap_or(name), &command, std::path::Path::new(".")))
        }
        Fatal::NoAddress { .. } => problem("listen", fatal.to_string()),
        Fatal::Bind(_) if !served => problem("listen", fatal.to_string()),
        Fatal::Start { .. } if !served => problem("command", fatal.to_string()),
        Fatal::Bind(error) => {
            tracing::error!(%error, "a worker asks for an address that cannot be had");
            return None;
        }
        Fatal::Start { .. } | Fatal::GivenUp { .. } => {
            telemetry.emit(Event::SlotGivenUp { reason: &fatal.to_string() });
            // The slot's task ends with its report; the run ends with its last slot.
            return None;
        }
    };
    Some(Err(problem))
}

/// Ends the run in order, once its listeners are closed: connections on their way, workers. True
/// when something had to be cut off.
pub async fn stop(
    drain: &Drain,
    config: &Config,
    permits: &Arc<Semaphore>,
    slots: &mut JoinSet<()>,
    again: impl Future<Output = ()>,
) -> bool {
    tracing::info!(limit = ?config.drain_timeout, "draining; a second signal stops at once");
    let all = u32::try_from(config.max_pending).unwrap_or(u32::MAX);
    let orderly = async {
        // Every permit back means that every connection is in a worker's hands or gone.
        drop(timeout(SETTLE.min(config.drain_timeout), permits.acquire_many(all)).await);
        drain.enter(Phase::Draining);
        timeout(config.drain_timeout, finished(slots)).await.is_ok()
    };
    let drained = tokio::select! {
        drained = orderly => drained,
        () = again => {
            drain.enter(Phase::Cutting);
            false
        }
    };
    if drained {
        return false;
    }
    tracing::warn!(left = slots.len(), "workers are still there; they are ended");
    drain.enter(Phase::Ending);
    if timeout(GRACE, finished(slots)).await.is_err() {
        drain.enter(Phase::Cutting);
        finished(slots).await;
    }
    true
}

/// Waits for the end of every task.
pub async fn finished(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The figures of the whole run, in one line.
pub fn report(telemetry: &Telemetry) {
    let figures: serde_json::Map<_, _> =
        telemetry.counters.snapshot().map(|(name, count)| (name.to_owned(), count.into())).collect();
    tracing::info!(figures = %serde_json::Value::from(figures), "ended");
}
