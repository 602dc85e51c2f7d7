//! The figures of a run in the text format that Prometheus reads. All names are here, or made of those of
//! [`Counters`](crate::telemetry::Counters); labels are slots, links, generations and kinds of ours, never a client's words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::server::Authority;
use crate::observe::{Latencies, Sampler};
use crate::policy::{LinkStatus, VersionFigures};
use crate::pool::{Pool, Pools};
use crate::shadow::Status;
use crate::sys::process;
use crate::worker::{Standing, WorkerReport};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of one figure.
type Labels = Vec<(&'static str, String)>;

/// Something of a pool, and the labels that say of which.
pub(super) type Labelled<T> = (Labels, T);

/// Where there is one pool alone, nothing is labelled with it.
pub(super) fn labels(pools: &Pools, pool: &Pool) -> Labels {
    if pools.several() { vec![("pool", pool.name.to_string())] } else { Labels::new() }
}

fn of_each<T>(pools: &Pools, list: impl Fn(&Pool) -> Vec<T>) -> Vec<Labelled<T>> {
    let own = |pool| list(pool).into_iter().map(|item| (labels(pools, pool), item)).collect::<Vec<_>>();
    pools.iter().map(|pool| &**pool).flat_map(own).collect()
}

fn and(labels: &Labels, more: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
    labels.iter().cloned().chain(more).collect()
}

/// All metrics as they are now.
pub(super) fn scrape(authority: &Authority, shadows: Vec<Labelled<Status>>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sidetrack");
    registry.register_collector(Box::new(Scrape(authority.clone(), shadows)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape(Authority, Vec<Labelled<Status>>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(authority, shadows) = self;
        let mut page = Page(&mut encoder);
        page.build()?;
        let started = authority.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        page.gauge(
            "start_time",
            "When this run began, since 1970",
            Some(&Unit::Seconds),
            started.as_secs_f64(),
        )?;
        for (name, help, count) in authority.telemetry.counters.explained() {
            page.counters(name, help.trim_end_matches('.'), [(Labels::new(), count)])?;
        }
        let refusals = authority.telemetry.refusals.counts().map(|(cause, status, count)| {
            (vec![("reason", cause.name().to_owned()), ("status", status.to_string())], count)
        });
        page.counters(
            "refusals",
            "Answers of our own instead of a worker's, by reason and HTTP status",
            refusals,
        )?;
        let pools = &authority.pools;
        let sessions = pools.iter().map(|pool| (labels(pools, pool), pool.sessions.len() as f64));
        page.gauges("sessions", "Sessions in the table", None, sessions)?;
        let limit = authority.config.now().max_pending;
        let pending = limit.saturating_sub(authority.permits.available_permits());
        page.gauge(
            "pending",
            "Connections between accept and a worker's acknowledgement",
            None,
            pending as f64,
        )?;
        page.gauge("pending_limit", "The most there may be", None, limit as f64)?;
        page.limits(pools)?;
        page.workers(&by_slot(&of_each(pools, |pool| pool.fleet.census())))?;
        page.policies(&of_each(pools, |pool| pool.policy.describe().links))?;
        let fallback = pools.iter().map(|pool| (labels(pools, pool), pool.policy.describe().fallback_calls));
        page.counters("policy_fallback_calls", "Decisions left to the native last link", fallback)?;
        page.lost(pools)?;
        if !shadows.is_empty() {
            page.shadows(shadows)?;
        }
        page.process()
    }
}

/// All workers in one slot: while one follows another there are several.
#[derive(Debug, Default)]
struct SlotFigures {
    ready: f64,
    draining: f64,
    load: f64,
    sessions: f64,
    sockets: f64,
    unacknowledged: f64,
    queued: f64,
    handed_off: u64,
    handed_back: u64,
}

fn by_slot(workers: &[Labelled<WorkerReport>]) -> Vec<Labelled<SlotFigures>> {
    let mut slots = BTreeMap::<Labels, SlotFigures>::new();
    for (labels, worker) in workers {
        let slot = slots.entry(and(labels, [("worker", worker.slot.clone())])).or_default();
        let ready = worker.standing == Standing::Ready && !worker.draining;
        slot.ready += f64::from(u8::from(ready));
        slot.draining += f64::from(u8::from(worker.draining));
        slot.load += f64::from(worker.load);
        slot.sessions += f64::from(worker.sessions);
        slot.sockets += f64::from(worker.sockets);
        slot.unacknowledged += worker.unacknowledged as f64;
        slot.queued += worker.queued as f64;
        slot.handed_off += worker.handed_off;
        slot.handed_back += worker.handed_back;
    }
    slots.into_iter().collect()
}

/// Where the buckets of a call's time end, as powers of two in nanoseconds: from 256 ns to 268 ms.
const BUCKETS: [u32; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24, 26, 28];

/// Ends in seconds, and how many there are in each; the last has no end.
fn buckets(times: &Latencies) -> Vec<(f64, u64)> {
    let mut from = 0;
    let mut buckets: Vec<_> = BUCKETS
        .into_iter()
        .map(|to| {
            let count = times.between(from, to);
            from = to;
            ((1_u64 << to) as f64 / 1e9, count)
        })
        .collect();
    buckets.push((f64::INFINITY, times.between(from, 64)));
    buckets
}

/// Writes metrics, one after another.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn build(&mut self) -> fmt::Result {
        let metric = self.0.encode_descriptor("build", "The running version", None, MetricType::Info)?;
        Info::new([("version", env!("CARGO_PKG_VERSION"))]).encode(metric)
    }

    fn limits(&mut self, pools: &Pools) -> fmt::Result {
        let rows = |value: fn(&Pool) -> usize| {
            pools.iter().map(move |pool| (labels(pools, pool), value(pool) as f64)).collect::<Vec<_>>()
        };
        self.gauges("session_limit", "The most there may be", None, rows(|pool| pool.sessions.limit()))?;
        self.gauges(
            "worker_window",
            "Connections a worker may have unacknowledged",
            None,
            rows(|pool| pool.fleet.room().0),
        )?;
        self.gauges(
            "worker_queue",
            "Connections that may wait for a place in a worker's window",
            None,
            rows(|pool| pool.fleet.room().1),
        )
    }

    fn workers(&mut self, slots: &[Labelled<SlotFigures>]) -> fmt::Result {
        let rows = |value: fn(&SlotFigures) -> f64| {
            slots.iter().map(move |(labels, slot)| (labels.clone(), value(slot))).collect::<Vec<_>>()
        };
        let counts = |value: fn(&SlotFigures) -> u64| {
            slots.iter().map(move |(labels, slot)| (labels.clone(), value(slot))).collect::<Vec<_>>()
        };
        self.gauges("worker_ready", "Workers in the slot that may be chosen", None, rows(|slot| slot.ready))?;
        self.gauges(
            "worker_draining",
            "Workers in the slot that get nothing new",
            None,
            rows(|slot| slot.draining),
        )?;
        self.gauges("worker_load", "What policies see of a worker's load", None, rows(|slot| slot.load))?;
        self.gauges(
            "worker_sessions",
            "Sessions of a worker whose end it will announce",
            None,
            rows(|slot| slot.sessions),
        )?;
        self.gauges("worker_sockets", "Connections in a worker's hands", None, rows(|slot| slot.sockets))?;
        self.gauges(
            "worker_unacknowledged",
            "Connections sent to a worker that it has not acknowledged",
            None,
            rows(|slot| slot.unacknowledged),
        )?;
        self.gauges(
            "worker_queued",
            "Connections that wait for a place in a worker's window",
            None,
            rows(|slot| slot.queued),
        )?;
        self.counters(
            "worker_handed_off",
            "Connections sent to the workers that have the slot now",
            counts(|slot| slot.handed_off),
        )?;
        self.counters(
            "worker_handed_back",
            "Connections that they have handed back",
            counts(|slot| slot.handed_back),
        )
    }

    fn policies(&mut self, links: &[Labelled<LinkStatus>]) -> fmt::Result {
        let label = |(labels, link): &Labelled<LinkStatus>| and(labels, [("link", link.name.clone())]);
        let gauge = |value: fn(&LinkStatus) -> f64| {
            links.iter().map(move |row| (label(row), value(&row.1))).collect::<Vec<_>>()
        };
        self.gauges(
            "policy_generation",
            "The version in service, by number",
            None,
            gauge(|link| link.generation as f64),
        )?;
        self.gauges(
            "policy_in_service",
            "Whether the link answers",
            None,
            gauge(|link| f64::from(u8::from(link.in_service))),
        )?;
        self.gauges(
            "policy_on_trial",
            "Whether the version in service is still watched for slowness and imbalance",
            None,
            gauge(|link| f64::from(u8::from(link.trial.is_some()))),
        )?;
        self.versions(links)?;
        let rebuilds = links.iter().map(|row| (label(row), row.1.counts.rebuilds));
        self.counters("policy_rebuilds", "Instances made anew after a fault", rebuilds)?;
        let swaps = links.iter().flat_map(|row| {
            let counts = &row.1.counts;
            [
                ("taken", counts.swaps),
                ("refused", counts.swaps_refused),
                ("quarantined", counts.quarantines),
                ("returned", counts.rollbacks),
            ]
            .map(|(result, count)| (and(&label(row), [("result", result.to_owned())]), count))
        });
        self.counters(
            "policy_swaps",
            "Versions that were taken in another one's place, refused, taken out of service, and returned",
            swaps,
        )
    }

    /// What each version has done: the live ones and the few that could return. Older ones are gone from
    /// here, so that swaps do not add up to ever more series.
    fn versions(&mut self, links: &[Labelled<LinkStatus>]) -> fmt::Result {
        let label = |(labels, link): &Labelled<LinkStatus>, generation: u64| {
            and(labels, [("link", link.name.clone()), ("generation", generation.to_string())])
        };
        let versions = || {
            links.iter().flat_map(move |row| {
                let labelled = move |figures: &'_ VersionFigures| label(row, figures.generation);
                row.1.versions.iter().map(move |figures| (labelled(figures), figures))
            })
        };
        // A native link has no versions.
        let native = links.iter().filter(|(_, link)| link.digest.is_none());
        let native = native.map(|row| (label(row, 0), row.1.counts.native_calls));
        let calls = versions().map(|(labels, figures)| (labels, figures.counts.calls));
        self.counters("policy_calls", "Questions asked", calls.chain(native))?;
        let faults = versions().flat_map(|(labels, figures)| {
            let faults = figures.counts.faults;
            [
                ("fuel", faults.fuel),
                ("deadline", faults.deadline),
                ("memory", faults.memory),
                ("oversized", faults.oversized),
                ("trap", faults.trap),
            ]
            .map(|(kind, count)| (and(&labels, [("kind", kind.to_owned())]), count))
        });
        self.counters("policy_faults", "Calls that ended their instance, by kind", faults)?;
        let bad = versions().map(|(labels, figures)| (labels, figures.counts.bad_answers));
        self.counters("policy_bad_answers", "Answers nobody could act upon", bad)?;
        let metric = self.0.encode_descriptor(
            "policy_call",
            "How long a question took, of one in eight",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        family(metric, versions(), |figures, mut metric| {
            let times = &figures.latencies;
            metric.encode_histogram::<NoLabelSet>(
                times.sum().as_secs_f64(),
                times.count(),
                &buckets(times),
                None,
            )
        })
    }

    /// What those who watch were too slow for.
    fn lost(&mut self, pools: &Pools) -> fmt::Result {
        let lost = [("access_log", Sampler::AccessLog), ("traces", Sampler::Traces)];
        let dropped = |sampler| pools.iter().map(|pool| pool.observers.dropped(sampler)).max().unwrap_or(0);
        self.counters(
            "decisions_lost",
            "Decisions that were to be written down and were not, since that was slow",
            lost.map(|(name, sampler)| (vec![("by", name.to_owned())], dropped(sampler))),
        )
    }

    fn shadows(&mut self, shadows: &[Labelled<Status>]) -> fmt::Result {
        let in_service = shadows.iter().map(|(labels, status)| {
            let asked = status.description.links.first().is_none_or(|link| link.in_service);
            (labels.clone(), f64::from(u8::from(asked)))
        });
        self.gauges("shadow_in_service", "Whether the shadow policy is asked", None, in_service)?;
        let outcomes = shadows.iter().flat_map(|(labels, Status { tally, dropped, .. })| {
            [
                ("agreed", tally.agreed),
                ("differed", tally.differed),
                ("deferred", tally.deferred),
                ("failed", tally.failed),
                ("dropped", *dropped),
            ]
            .map(|(name, count)| (and(labels, [("outcome", name.to_owned())]), count))
        });
        self.counters(
            "shadow_decisions",
            "Connections that the present shadow policy was to be asked about, by what came of comparing",
            outcomes,
        )
    }

    fn process(&mut self) -> fmt::Result {
        let process::Usage { descriptors, descriptor_limit, cpu, resident } = process::usage();
        self.gauge("descriptors", "Open file descriptors", None, descriptors as f64)?;
        self.gauge("descriptor_limit", "The most there may be", None, descriptor_limit as f64)?;
        let cpu = ConstCounter::new(cpu.as_secs_f64());
        cpu.encode(self.0.encode_descriptor(
            "cpu",
            "CPU time used",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?)?;
        self.gauge("resident_memory", "Memory in use", Some(&Unit::Bytes), resident as f64)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        self.gauges(name, help, unit, [(Labels::new(), value)])
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        family(metric, rows, |value, metric| ConstGauge::new(value).encode(metric))
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family(metric, rows, |count, metric| ConstCounter::new(count).encode(metric))
    }
}

fn family<T>(
    mut metric: MetricEncoder<'_>,
    rows: impl IntoIterator<Item = (Labels, T)>,
    encode: impl Fn(T, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in rows {
        encode(value, metric.encode_family(&labels)?)?;
    }
    Ok(())
}
