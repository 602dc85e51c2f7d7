//! The access log: a line of JSON for each decision, or for a share of them.
//!
//! What it says of people goes through the same mask as a recording ([`crate::record`]), under pseudonyms that
//! hold for one run, unless told otherwise. Lines are made and written on a thread of their own, behind a
//! bounded queue: a slow disk costs lines, which are counted, and never delays a connection.

mod file;
mod line;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use file::LogFile;

use crate::observe::{Sampler, Tap, Tapped, Told, What};
use crate::pool::Pools;
use crate::record::{Form, Keep, Mask, Writer};
use crate::session::SessionKey;

/// What comes within so long is written together: routing is not to wake somebody for every connection.
const TOGETHER: Duration = Duration::from_millis(5);
/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Lost lines are said so often at most.
const COMPLAIN: Duration = Duration::from_secs(10);
/// How long the end of a run waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to write, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `-` for standard output.
    pub path: PathBuf,
    /// Of all connections, from 0 to 1.
    pub share: f64,
    /// What is not to be hidden under a pseudonym.
    pub keep: Vec<Keep>,
}

/// A log that is being written.
#[derive(Debug)]
pub struct AccessLog {
    pools: Arc<Pools>,
    reopen: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl AccessLog {
    /// Begins to write.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no thread or randomness to be had.
    pub fn start(settings: &Settings, pools: &Arc<Pools>) -> io::Result<Self> {
        let file = LogFile::open(&settings.path)?;
        // One key for all of them: a client of two pools has one pseudonym.
        let mask = Mask::new(Form::Hashed, settings.keep.clone(), SessionKey::Query(String::new()))?;
        let keys = pools.iter().map(|pool| pool.router.settings.now().session_key.clone());
        let writers = keys.map(|key| Writer::of_decisions(mask.with_session_key(key))).collect();
        let (tap, tapped) = Tap::new();
        let reopen = Arc::<AtomicBool>::default();
        let (end, ended) = channel();
        let queries = settings.keep.iter().any(|keep| matches!(keep, Keep::Query(_)));
        let writing =
            Writing { file, writers, queries, tapped, reopen: Arc::clone(&reopen), said: (0, None) };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            writing.run();
            drop(end);
        })?;
        for (source, pool) in pools.iter().enumerate() {
            pool.observers.sample(Sampler::AccessLog, Some(tap.of(source)), settings.share);
        }
        Ok(Self { pools: Arc::clone(pools), reopen, ended })
    }

    /// The file may have been moved: what comes goes into a new one.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Writes what there is and closes the file; waits for a slow disk, but not for long.
    pub fn close(self) {
        for pool in self.pools.iter() {
            pool.observers.sample(Sampler::AccessLog, None, 0.0);
        }
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// The writing thread's own.
struct Writing {
    file: LogFile,
    /// One for each pool.
    writers: Vec<Writer>,
    /// Whether paths are written with their queries.
    queries: bool,
    tapped: Tapped,
    reopen: Arc<AtomicBool>,
    /// How many lost lines were said, and when.
    said: (u64, Option<Instant>),
}

impl Writing {
    /// Writes until its tap is taken away.
    fn run(mut self) {
        loop {
            match self.tapped.queue.recv_timeout(LOOK) {
                Ok(first) => {
                    thread::sleep(TOGETHER);
                    self.look();
                    self.write(&first);
                    while let Ok(next) = self.tapped.queue.try_recv() {
                        self.write(&next);
                    }
                    self.file.flush();
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return self.file.flush(),
            }
            self.complain();
        }
    }

    fn look(&mut self) {
        let asked = self.reopen.swap(false, Ordering::Relaxed);
        self.file.follow(asked);
    }

    fn write(&mut self, Told { source, observation }: &Told) {
        let What::Routed(routing) = &observation.what else { return };
        let Some(writer) = self.writers.get_mut(*source) else { return };
        writer.meet(&routing.roster);
        let line = line::Line::new(writer, observation.at, routing, self.queries);
        if !self.file.write(&line) {
            self.tapped.lost(1);
        }
    }

    fn complain(&mut self) {
        let (said, when) = self.said;
        let lost = self.tapped.dropped();
        if lost > said && when.is_none_or(|when| when.elapsed() > COMPLAIN) {
            tracing::warn!(
                lines = lost - said,
                error = self.file.trouble().unwrap_or("the disk is slower than the decisions"),
                "lines of the access log are lost"
            );
            self.said = (lost, Some(Instant::now()));
        }
    }
}
