//! Orders that concern the whole run. Whoever gets one passes it on and waits for the answer.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::run::RollingRestart;
use super::server::Authority;
use crate::config::{Change, Diff, Given, Line, Problems};
use crate::worker::Rolling;

/// Something the run is to do.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again; with `dry_run` only say what would happen.
    Reload { dry_run: bool, reply: oneshot::Sender<Result<Reloaded, Problems>> },
    /// Start or retire workers until there are so many slots.
    Scale {
        pool: Option<String>,
        workers: usize,
        within: Option<Duration>,
        reply: oneshot::Sender<Result<Scaled, Problems>>,
    },
    /// Have the workers of some slots followed by new ones, one after another; without `slots`, of all slots of a
    /// pool or of the run. It goes on when nobody waits for it any more.
    Restart {
        pool: Option<String>,
        slots: Option<Vec<String>>,
        within: Option<Duration>,
        reply: oneshot::Sender<Result<Rolling, Problems>>,
    },
    /// Log by another filter, if there is one; the answer is the filter in force.
    Log { filter: Option<String>, reply: oneshot::Sender<Result<String, Problems>> },
}

/// Where orders go.
pub type Orders = mpsc::Sender<Order>;

/// What came of a reload.
#[derive(Debug)]
pub struct Reloaded {
    pub diff: Diff,
    /// The file it was read from.
    pub file: Option<String>,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// How many workers there were to be, and how many there are to be now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    pub before: usize,
    pub now: usize,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reload {
    /// Only say what would happen.
    dry_run: bool,
}

/// What a reload has changed, or would.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Changes {
    /// The file it was read from.
    file: Option<String>,
    dry_run: bool,
    changes: Vec<Changed>,
    /// Settings that are not applied until sidetrack itself starts anew.
    needs_restart: Vec<String>,
    /// New workers follow, one after another.
    rolling_restart: bool,
}

/// One setting.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Changed {
    /// Its path.
    key: String,
    /// As it was given; null when it was not.
    old: Option<Value>,
    new: Option<Value>,
    takes: Takes,
}

/// What it takes for a setting to hold.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Takes {
    Hot,
    RollingRestart,
    NeedsRestart,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    /// The only one or the default without it.
    pool: Option<String>,
    workers: usize,
    /// When the last of those that are not wanted any more leaves, from now.
    within_ms: Option<u64>,
}

/// How many workers there are to be.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Sizes {
    before: usize,
    workers: usize,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Restart {
    /// Only this pool's slots.
    pool: Option<String>,
    /// Only these slots, in this order.
    slots: Option<Vec<String>>,
    /// When a worker that has been followed leaves at the latest, from then on; null for never.
    within_ms: Option<u64>,
}

/// What is to be logged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// A level, or pairs such as `sidetrack::route=debug,info`.
    filter: String,
}

/// What is logged.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Logged {
    filter: String,
}

pub(super) async fn reload(authority: &Authority, order: &Reload) -> Result<Changes, Problems> {
    let dry_run = order.dry_run;
    let Reloaded { diff, file, dry_run } = ask(authority, |reply| Order::Reload { dry_run, reply }).await?;
    Ok(Changes {
        file,
        dry_run,
        changes: diff.lines.iter().map(Changed::from).collect(),
        needs_restart: diff.postponed(),
        rolling_restart: diff.rolls(),
    })
}

pub(super) async fn scale(authority: &Authority, order: Scale) -> Result<Sizes, Problems> {
    let Scale { pool, workers, within_ms } = order;
    let within = within_ms.map(Duration::from_millis);
    let order = |reply| Order::Scale { pool, workers, within, reply };
    let Scaled { before, now } = ask(authority, order).await?;
    Ok(Sizes { before, workers: now })
}

/// It has begun; how it goes on is told by the [`status`](super::run::status).
pub(super) async fn restart(authority: &Authority, order: Restart) -> Result<RollingRestart, Problems> {
    let Restart { pool, slots, within_ms } = order;
    let within = within_ms.map(Duration::from_millis);
    let rolling = ask(authority, |reply| Order::Restart { pool, slots, within, reply }).await?;
    Ok(RollingRestart::from(&rolling))
}

pub(super) async fn log(authority: &Authority, order: Option<Log>) -> Result<Logged, Problems> {
    let filter = order.map(|order| order.filter);
    let filter = ask(authority, |reply| Order::Log { filter, reply }).await?;
    Ok(Logged { filter })
}

async fn ask<T>(
    authority: &Authority,
    order: impl FnOnce(oneshot::Sender<Result<T, Problems>>) -> Order,
) -> Result<T, Problems> {
    let ending = || Problems::one("run", "it is ending");
    let (reply, answer) = oneshot::channel();
    authority.orders.send(order(reply)).await.map_err(|_| ending())?;
    answer.await.unwrap_or_else(|_| Err(ending()))
}

impl From<&Line> for Changed {
    fn from(line: &Line) -> Self {
        let value = |given: &Option<Given>| given.as_ref().map(Given::to_json);
        let takes = match line.change {
            Change::Hot => Takes::Hot,
            Change::Rolling => Takes::RollingRestart,
            Change::Restart => Takes::NeedsRestart,
        };
        Self { key: line.path(), old: value(&line.old), new: value(&line.new), takes }
    }
}
