//! The run as it is: who works, for whom, and what has happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::Authority;
use crate::pool::{Pool, Pools};
use crate::worker::{Origin, Rolling, Standing, Vacancy, WorkerReport};

/// The run at a glance.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    version: &'static str,
    pid: u32,
    /// When all this was so.
    now: String,
    /// When the run began.
    since: String,
    uptime_s: u64,
    /// How often another program has gone on with it, …
    upgrades: u64,
    /// … and when this one did; null when it began it.
    upgraded: Option<String>,
    /// Where clients connect.
    addresses: Vec<String>,
    /// The chains, without their native last links.
    policy: Vec<String>,
    /// How many there are.
    sessions: usize,
    workers: Vec<Worker>,
    /// Slots that nobody is in, and nobody is about to be.
    vacancies: Vec<Vacant>,
    /// The last rolling restart; null when there was none.
    restart: Option<RollingRestart>,
    /// Everything that is counted, by name.
    figures: BTreeMap<&'static str, u64>,
    /// Where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<Vec<PoolAtAGlance>>,
}

/// A slot that nobody is in.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Vacant {
    worker: String,
    reason: WhyVacant,
}

/// Why nobody is in a slot.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WhyVacant {
    /// As asked; it can be taken back.
    Drained,
    /// Its workers kept ending; a restart is another try.
    GivenUp,
}

/// Workers that are followed by new ones, one after another.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RollingRestart {
    /// How many there were before it; another one may take the place of one that runs, and its turns with it.
    number: u64,
    running: bool,
    /// In the order in which they have become ready.
    followed: Vec<Follower>,
    /// Whose turn is still to come; while it runs, it is the first one's.
    left: Vec<String>,
    /// Why it went no further.
    failed: Option<NoFollower>,
}

/// A new worker in its slot.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Follower {
    worker: String,
    pid: u32,
}

/// A new worker that did not become ready; the one before stays, if there was one.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NoFollower {
    worker: String,
    reason: String,
}

/// One of several pools.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PoolAtAGlance {
    pool: String,
    /// Hosts and paths whose requests are for it.
    matches: Vec<String>,
    /// Its chain, without the native last link.
    policy: Vec<String>,
    sessions: usize,
    /// How many are ready.
    workers: usize,
}

/// A worker, and what it has to do.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Worker {
    /// Of which pool, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// Its slot. While one worker follows another, both have it.
    worker: String,
    /// Another one for each worker there ever was.
    id: u32,
    pid: u32,
    origin: Begun,
    standing: State,
    /// It gets nothing new.
    draining: bool,
    weight: u32,
    labels: BTreeMap<String, String>,
    /// What policies see: sessions, sockets, and what is under way.
    load: u32,
    sessions: u32,
    /// Connections in its hands, as far as it reports their end.
    sockets: u32,
    /// Sent to it and not yet acknowledged.
    unacknowledged: usize,
    /// Waiting to be sent to it.
    queued: usize,
    handed_off: u64,
    handed_back: u64,
    /// For how long it has been ready; null before.
    ready_s: Option<u64>,
}

/// How a worker came to be.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Begun {
    Started,
    Joined,
}

/// Whether a worker may be chosen.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Starting,
    Ready,
    Unresponsive,
    Leaving,
}

/// Who has a session.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Session {
    session: String,
    /// In which pool, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// Its owner's slot, …
    worker: String,
    /// … number, …
    id: u32,
    /// … and process.
    pid: u32,
    /// When it was announced first, to the second.
    since: String,
    /// How long ago that is.
    since_s: u64,
}

/// A worker that is to be emptied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// When it leaves at the latest, from now; null for never.
    within_ms: Option<u64>,
}

pub(super) fn status(authority: &Authority) -> Status {
    let pools = &authority.pools;
    let links = pools.iter().flat_map(|pool| pool.policy.describe().links);
    let now = SystemTime::now();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        now: super::policy::time(now),
        since: super::policy::time(authority.started),
        uptime_s: now.duration_since(authority.started).unwrap_or_default().as_secs(),
        upgrades: authority.telemetry.counters.upgrades.get(),
        upgraded: authority.upgraded.map(super::policy::time),
        addresses: authority.servers.addresses().iter().map(ToString::to_string).collect(),
        policy: links.map(|link| link.policy).collect(),
        sessions: pools.iter().map(|pool| pool.sessions.len()).sum(),
        workers: workers(&authority.pools),
        vacancies: pools.iter().flat_map(|pool| pool.fleet.vacancies()).map(Vacant::from).collect(),
        restart: authority.rolling.now().as_ref().map(RollingRestart::from),
        figures: authority.telemetry.counters.snapshot().collect(),
        pools: pools.several().then(|| pools.iter().map(|pool| one_pool(pools, pool)).collect()),
    }
}

fn one_pool(pools: &Pools, pool: &Pool) -> PoolAtAGlance {
    let links = pool.policy.describe().links;
    PoolAtAGlance {
        pool: pool.name.to_string(),
        matches: pools.matches(pool),
        policy: links.into_iter().map(|link| link.policy).collect(),
        sessions: pool.sessions.len(),
        workers: pool.fleet.ready().len(),
    }
}

/// Where there are several pools it is said of which something is.
pub(super) fn named(pools: &Pools, pool: &Pool) -> Option<String> {
    pools.several().then(|| pool.name.to_string())
}

/// Every worker.
pub(super) fn workers(pools: &Pools) -> Vec<Worker> {
    pools.iter().flat_map(|pool| workers_of(pools, pool)).collect()
}

/// Those of one pool.
pub(super) fn workers_of(pools: &Pools, pool: &Pool) -> Vec<Worker> {
    let own = |report| Worker { pool: named(pools, pool), ..Worker::from(report) };
    pool.fleet.census().into_iter().map(own).collect()
}

pub(super) fn drain(authority: &Authority, slot: &str, order: &Drain) -> Result<Vec<Worker>, String> {
    authority.pools.of_slot(slot)?.fleet.drain(slot, order.deadline()).map_err(|error| error.to_string())?;
    Ok(workers(&authority.pools))
}

pub(super) fn restart(authority: &Authority, slot: &str, order: &Drain) -> Result<Vec<Worker>, String> {
    authority
        .pools
        .of_slot(slot)?
        .fleet
        .restart(slot, order.deadline())
        .map_err(|error| error.to_string())?;
    Ok(workers(&authority.pools))
}

pub(super) fn undrain(authority: &Authority, slot: &str) -> Result<Vec<Worker>, String> {
    authority.pools.of_slot(slot)?.fleet.undrain(slot).map_err(|error| error.to_string())?;
    Ok(workers(&authority.pools))
}

/// Who has a session. Looking does not count as using it.
pub(super) fn session(authority: &Authority, sid: &str) -> Result<Session, String> {
    let known = |pool: &Arc<Pool>| pool.sessions.look(sid).map(|known| (Arc::clone(pool), known));
    let (pool, (owner, age)) = authority
        .pools
        .iter()
        .find_map(known)
        .ok_or_else(|| format!("nobody is known to have session `{sid}`"))?;
    let owner = pool.fleet.census().into_iter().find(|worker| worker.id == owner);
    let owner = owner.ok_or_else(|| format!("the worker of session `{sid}` has just gone"))?;
    let since = SystemTime::now().checked_sub(age).unwrap_or(authority.started);
    Ok(Session {
        session: sid.to_owned(),
        pool: named(&authority.pools, &pool),
        worker: owner.slot,
        id: owner.id.0,
        pid: owner.pid,
        since: humantime::format_rfc3339_seconds(since).to_string(),
        since_s: age.as_secs(),
    })
}

impl Drain {
    fn deadline(&self) -> Option<Instant> {
        // A time beyond all clocks is none.
        self.within_ms.and_then(|within| Instant::now().checked_add(Duration::from_millis(within)))
    }
}

impl From<(String, Vacancy)> for Vacant {
    fn from((worker, vacancy): (String, Vacancy)) -> Self {
        let reason = match vacancy {
            Vacancy::Drained => WhyVacant::Drained,
            Vacancy::GivenUp => WhyVacant::GivenUp,
        };
        Self { worker, reason }
    }
}

impl From<&Rolling> for RollingRestart {
    fn from(rolling: &Rolling) -> Self {
        let Rolling { number, followed, left, failed, over } = rolling;
        let follower = |(slot, pid): &(String, u32)| Follower { worker: slot.clone(), pid: *pid };
        let no_follower =
            |(slot, reason): &(String, String)| NoFollower { worker: slot.clone(), reason: reason.clone() };
        Self {
            number: *number,
            running: !over,
            followed: followed.iter().map(follower).collect(),
            left: left.iter().map(|turn| turn.slot.clone()).collect(),
            failed: failed.as_ref().map(no_follower),
        }
    }
}

impl From<WorkerReport> for Worker {
    fn from(report: WorkerReport) -> Self {
        Self {
            pool: None,
            worker: report.slot,
            id: report.id.0,
            pid: report.pid,
            origin: match report.origin {
                Origin::Started => Begun::Started,
                Origin::Joined => Begun::Joined,
            },
            standing: match report.standing {
                Standing::Starting => State::Starting,
                Standing::Ready => State::Ready,
                Standing::Unresponsive => State::Unresponsive,
                Standing::Leaving => State::Leaving,
            },
            draining: report.draining,
            weight: report.facts.weight,
            labels: report.facts.labels.into_iter().collect(),
            load: report.load,
            sessions: report.sessions,
            sockets: report.sockets,
            unacknowledged: report.unacknowledged,
            queued: report.queued,
            handed_off: report.handed_off,
            handed_back: report.handed_back,
            ready_s: report.ready_since.map(|since| since.elapsed().as_secs()),
        }
    }
}
