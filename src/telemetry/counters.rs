//! Every figure sidetrack keeps, by name. The names are public: they appear in the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a client got an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Tls,
    /// HTTP/2 without upgrade, or a version that is none of HTTP/1.
    Version,
    /// No request of HTTP/1.
    Malformed,
    /// Longer than allowed, or with too many fields.
    HeadTooLarge,
    HeadTooSlow,
    /// Nobody serves the host and path.
    NoPool,
    NoWorker,
    /// Its client opens connections too fast.
    ClientRate,
    /// A policy has said so.
    Policy,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::Tls,
        Self::Version,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::HeadTooSlow,
        Self::NoPool,
        Self::NoWorker,
        Self::ClientRate,
        Self::Policy,
    ];

    /// As metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTooSlow => "head_too_slow",
            Self::NoPool => "no_pool",
            Self::NoWorker => "no_worker",
            Self::ClientRate => "client_rate",
            Self::Policy => "policy",
        }
    }
}

/// Answers of our own, by cause and status.
#[derive(Debug, Default)]
pub struct Refusals([ByStatus; Cause::ALL.len()]);

impl Refusals {
    pub fn one(&self, cause: Cause, status: u16) {
        self.add(cause, status, 1);
    }

    fn add(&self, cause: Cause, status: u16, count: u64) {
        if let Some(by_status) = self.0.get(cause as usize) {
            by_status.add(status, count);
        }
    }

    /// Goes on from the counts of the program before. Causes that are none are left out.
    pub fn resume(&self, counts: &[(String, u16, u64)]) {
        for (name, status, count) in counts {
            if let Some(cause) = Cause::ALL.into_iter().find(|cause| cause.name() == name) {
                self.add(cause, *status, *count);
            }
        }
    }

    /// Those that there were.
    pub fn counts(&self) -> impl Iterator<Item = (Cause, u16, u64)> {
        let each = |(cause, by_status): (Cause, &ByStatus)| {
            by_status.counts().map(|(status, count)| (cause, status, count)).collect::<Vec<_>>()
        };
        Cause::ALL.into_iter().zip(&self.0).flat_map(each)
    }
}

/// Counters by HTTP status, from 400 to 599.
#[derive(Debug)]
struct ByStatus([Counter; 200]);

impl Default for ByStatus {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByStatus {
    /// Counts so many; a status that is none of those is left out.
    fn add(&self, status: u16, count: u64) {
        if let Some(counter) = status.checked_sub(400).and_then(|at| self.0.get(usize::from(at))) {
            counter.add(count);
        }
    }

    /// Those that there were.
    fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        (400..).zip(&self.0).map(|(status, counter)| (status, counter.get())).filter(|(_, count)| *count > 0)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// All figures.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Names and values, in the order of their declaration.
            pub fn snapshot(&self) -> impl Iterator<Item = (&'static str, u64)> {
                self.explained().map(|(name, _, count)| (name, count))
            }

            /// Goes on from the values of the program before. Names of figures that are none are left out.
            pub fn resume(&self, values: &BTreeMap<String, u64>) {
                $(self.$name.add(values.get(stringify!($name)).copied().unwrap_or(0));)+
            }

            /// Names, what they mean, and values.
            pub fn explained(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.get()),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections taken from the kernel.
    accepted,
    /// Accept calls that failed.
    accept_errors,
    /// Connections that ended without a byte.
    silent,
    /// Connections closed because they did not begin with the PROXY header that their listener expects, or
    /// came from somebody who may send none.
    preambles_refused,
    /// Connections closed because their client had as many pending ones as it may.
    crowded_out,
    /// Requests refused because their client opened connections too fast.
    rate_limited,
    /// Health checks answered by sidetrack itself.
    health_checks,
    /// Clients that left before they were handed over.
    gone,
    /// Connections sent to a worker, once for each time one was sent.
    handed_off,
    /// Connections a worker has taken into its hands.
    acknowledged,
    /// Connections that a worker did not get or did not take, and that were routed again.
    rerouted,
    /// Connections that waited because a worker had as many unacknowledged as it may.
    queued,
    /// Connections that workers handed back because their next request belongs elsewhere.
    handed_back,
    /// Answers of our own instead of a worker's.
    refused,
    /// Requests with a session id nobody knew at first.
    missed,
    /// Connections held until their session was announced or the grace had passed.
    held,
    /// Connections held in vain: nobody has announced their session.
    unannounced,
    /// Requests whose session id was contradictory or did not decode.
    ambiguous,
    /// Sessions announced.
    sessions_opened,
    /// Sessions announced as ended.
    sessions_closed,
    /// Sessions lost with their worker.
    sessions_forgotten,
    /// Sessions that a worker claimed although another one owns them, or beyond the limit.
    sessions_refused,
    /// Handed-off connections that workers reported as closed.
    sockets_closed,
    /// Workers started.
    workers_started,
    /// Workers that joined from outside.
    workers_joined,
    /// Workers that became ready.
    workers_ready,
    /// Workers that ended without being asked to.
    workers_lost,
    /// Workers taken out because they acknowledged nothing for too long.
    workers_unresponsive,
    /// Configurations loaded while running.
    reloads,
    /// Configurations that were not loaded because something was wrong with them.
    reloads_refused,
    /// Lines on a channel that made no sense, surplus descriptors, unearned acknowledgements.
    channel_errors,
    /// Adapter messages passed on from worker to worker.
    relayed,
    /// Adapter messages lost because a worker did not read its channel.
    relay_dropped,
    /// Upgrades: another program went on in this process, with everything.
    upgrades,
}
