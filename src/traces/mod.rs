//! Traces for OpenTelemetry: a span for each connection, or for a share of them, and in it one for each question
//! to the policies, sent to a collector as OTLP over HTTP in JSON.
//!
//! Spans are made of what [`crate::observe`] tells, on a thread of their own behind a bounded queue. While there is
//! no collector, or a slow one, spans are lost and counted; no connection waits. Part of the program only with the
//! feature `otlp`.

mod collector;
mod parent;
mod span;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use collector::Endpoint;
use span::Resource;

use crate::observe::{Sampler, Tap, Tapped, Told, What};
use crate::pool::Pools;

/// What comes within so long goes in one message …
const TOGETHER: Duration = Duration::from_millis(200);
/// … unless that is more than this many.
const MOST: usize = 512;
/// Lost spans are said so often at most.
const COMPLAIN: Duration = Duration::from_secs(10);
/// How long the end of a run waits for the collector.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where to send spans, and of how many connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub endpoint: Endpoint,
    /// From 0 to 1.
    pub share: f64,
}

impl Settings {
    /// # Errors
    /// When it is no address of a collector; in words.
    pub fn new(endpoint: &str, share: f64) -> Result<Self, String> {
        Ok(Self { endpoint: Endpoint::from_str(endpoint)?, share })
    }
}

/// Traces that are being sent.
#[derive(Debug)]
pub struct Traces {
    pools: Arc<Pools>,
    ended: Receiver<()>,
}

impl Traces {
    /// Begins to send.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(settings: Settings, pools: &Arc<Pools>) -> io::Result<Self> {
        let (tap, tapped) = Tap::new();
        let (end, ended) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let Settings { endpoint, share } = settings;
        let sending = Sending { endpoint, runtime, resource: Resource::new(), tapped, said: (0, None) };
        thread::Builder::new().name("traces".into()).spawn(move || {
            sending.run();
            drop(end);
        })?;
        for (source, pool) in pools.iter().enumerate() {
            pool.observers.sample(Sampler::Traces, Some(tap.of(source)), share);
        }
        Ok(Self { pools: Arc::clone(pools), ended })
    }

    /// Sends what there is; waits for the collector, but not for long.
    pub fn close(self) {
        for pool in self.pools.iter() {
            pool.observers.sample(Sampler::Traces, None, 0.0);
        }
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// The sending thread's own.
struct Sending {
    endpoint: Endpoint,
    runtime: tokio::runtime::Runtime,
    resource: Resource,
    tapped: Tapped,
    /// How many lost connections were said, and when.
    said: (u64, Option<Instant>),
}

impl Sending {
    /// Sends until its tap is taken away.
    fn run(mut self) {
        let mut trouble = None;
        while let Ok(first) = self.tapped.queue.recv() {
            let batch = self.batch(first);
            if let Err(error) = self.send(&batch) {
                self.tapped.lost(batch.len() as u64);
                trouble = Some(error);
            }
            self.complain(trouble.as_deref());
        }
    }

    /// What comes within a moment.
    fn batch(&self, first: Told) -> Vec<Told> {
        let end = Instant::now() + TOGETHER;
        let mut batch = vec![first];
        while batch.len() < MOST {
            match self.tapped.queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(next) => batch.push(next),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        batch
    }

    fn send(&self, batch: &[Told]) -> Result<(), String> {
        let routings = batch.iter().filter_map(|told| match &told.observation.what {
            What::Routed(routing) => Some((told.observation.at, &**routing)),
            _ => None,
        });
        match self.resource.message(routings) {
            Some(message) => self.runtime.block_on(self.endpoint.send(message)),
            None => Ok(()),
        }
    }

    fn complain(&mut self, trouble: Option<&str>) {
        let (said, when) = self.said;
        let lost = self.tapped.dropped();
        if lost > said && when.is_none_or(|when| when.elapsed() > COMPLAIN) {
            tracing::warn!(
                connections = lost - said,
                endpoint = %self.endpoint,
                error = trouble.unwrap_or("the collector is slower than the connections"),
                "traces are lost"
            );
            self.said = (lost, Some(Instant::now()));
        }
    }
}
