//! Folders watched for changes, for whoever loads files again or starts programs anew.
//!
//! Folders are watched rather than files: a file that is replaced by a rename, as editors and deployments
//! do, is another file. What has changed is for the watcher to find out; here it is only said that
//! something has.

mod code;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

pub use code::{Code, folder_of};

/// Folders that never rest are looked into all the same, after so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Some folders, each by itself and not what lies below it.
#[derive(Debug)]
pub struct Folders {
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
}

impl Folders {
    /// None yet. `stirred` is called from another thread.
    ///
    /// # Errors
    /// When the system has no watch to give; in words.
    pub fn new(stirred: impl Fn() + Send + 'static) -> Result<Self, String> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_err() || event.is_ok_and(|event| is_change(event.kind)) {
                stirred();
            }
        });
        let watcher = watcher.map_err(|error| error.to_string())?;
        Ok(Self { watcher, watched: HashSet::new() })
    }

    /// Watches these folders and no others. `deaf` is told of those that cannot be watched.
    pub fn follow(&mut self, wanted: HashSet<PathBuf>, deaf: impl Fn(&Path, &notify::Error)) {
        for folder in self.watched.difference(&wanted) {
            // It may be gone, and its watch with it.
            let _ = self.watcher.unwatch(folder);
        }
        for folder in wanted.difference(&self.watched) {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                deaf(folder, &error);
            }
        }
        self.watched = wanted;
    }
}

/// Reading is no change, and we read ourselves. When events were lost there may have been one.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Waits until nothing has been told for a while: changes that come together are taken together. False when
/// there is nothing to wait for any more.
pub fn settled<T>(told: &Receiver<T>, quiet: Duration, is_end: impl Fn(&T) -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match told.recv_timeout(quiet) {
            Ok(word) if is_end(&word) => return false,
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
    true
}
