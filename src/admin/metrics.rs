//! The figures of a run in the text format that Prometheus reads. All names are here, or made of those of
//! [`Counters`](crate::telemetry::Counters); labels are slots, links and kinds of ours, never a client's words.

use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::server::Authority;
use crate::policy::LinkStatus;
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
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        page.gauges("build", "The running version; always 1", None, [(version, 1.0)])?;
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
        let by_status = authority.telemetry.refusals.counts();
        let refusals = by_status.map(|(status, count)| (vec![("status", status.to_string())], count));
        page.counters("refusals", "Answers of our own instead of a worker's, by HTTP status", refusals)?;
        let pools = &authority.pools;
        let sessions = pools.iter().map(|pool| (labels(pools, pool), pool.sessions.len() as f64));
        page.gauges("sessions", "Sessions in the table", None, sessions)?;
        page.workers(&of_each(pools, |pool| pool.fleet.census()))?;
        page.policies(&of_each(pools, |pool| pool.policy.describe().links))?;
        if !shadows.is_empty() {
            page.shadows(shadows)?;
        }
        page.process()
    }
}

/// Writes metrics, one after another.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn workers(&mut self, workers: &[Labelled<WorkerReport>]) -> fmt::Result {
        let label =
            |(labels, worker): &Labelled<WorkerReport>| and(labels, [("worker", worker.slot.clone())]);
        let rows = |value: fn(&WorkerReport) -> f64| {
            workers.iter().map(move |row| (label(row), value(&row.1))).collect::<Vec<_>>()
        };
        let counts = |value: fn(&WorkerReport) -> u64| {
            workers.iter().map(move |row| (label(row), value(&row.1))).collect::<Vec<_>>()
        };
        let ready = |worker: &WorkerReport| f64::from(u8::from(worker.standing == Standing::Ready));
        self.gauges("worker_ready", "Whether the worker may be chosen", None, rows(ready))?;
        self.gauges(
            "worker_load",
            "What policies see of a worker's load",
            None,
            rows(|worker| f64::from(worker.load)),
        )?;
        self.gauges(
            "worker_sessions",
            "Sessions of a worker whose end it will announce",
            None,
            rows(|worker| f64::from(worker.sessions)),
        )?;
        self.gauges(
            "worker_sockets",
            "Connections in a worker's hands",
            None,
            rows(|worker| f64::from(worker.sockets)),
        )?;
        self.gauges(
            "worker_unacknowledged",
            "Connections sent to a worker that it has not acknowledged",
            None,
            rows(|worker| worker.unacknowledged as f64),
        )?;
        self.gauges(
            "worker_queued",
            "Connections that wait for a place in a worker's window",
            None,
            rows(|worker| worker.queued as f64),
        )?;
        self.counters(
            "worker_handed_off",
            "Connections sent to the worker that has the slot now",
            counts(|worker| worker.handed_off),
        )?;
        self.counters(
            "worker_handed_back",
            "Connections that it has handed back",
            counts(|worker| worker.handed_back),
        )
    }

    fn policies(&mut self, links: &[Labelled<LinkStatus>]) -> fmt::Result {
        let label = |(labels, link): &Labelled<LinkStatus>| and(labels, [("link", link.name.clone())]);
        let gauge = |value: fn(&LinkStatus) -> f64| {
            links.iter().map(move |row| (label(row), value(&row.1))).collect::<Vec<_>>()
        };
        let count = |value: fn(&LinkStatus) -> u64| {
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
        self.counters(
            "policy_calls",
            "Questions asked",
            count(|link| link.counts.calls + link.counts.native_calls),
        )?;
        let faults = links.iter().flat_map(|row @ (_, link)| {
            let faults = link.counts.faults;
            [
                ("fuel", faults.fuel),
                ("deadline", faults.deadline),
                ("memory", faults.memory),
                ("oversized", faults.oversized),
                ("trap", faults.trap),
            ]
            .map(|(kind, count)| (and(&label(row), [("kind", kind.to_owned())]), count))
        });
        self.counters("policy_faults", "Calls that ended their instance, by kind", faults)?;
        self.counters(
            "policy_bad_answers",
            "Answers nobody could act upon",
            count(|link| link.counts.bad_answers),
        )?;
        self.counters(
            "policy_rebuilds",
            "Instances made anew after a fault",
            count(|link| link.counts.rebuilds),
        )?;
        self.counters(
            "policy_swaps",
            "Versions put in another one's place",
            count(|link| link.counts.swaps),
        )?;
        self.counters(
            "policy_quarantines",
            "Versions taken out of service",
            count(|link| link.counts.quarantines),
        )?;
        self.counters(
            "policy_rollbacks",
            "Versions that returned because the one after them was not fit",
            count(|link| link.counts.rollbacks),
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
