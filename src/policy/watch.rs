//! Loads policy files again when they change.
//!
//! Changes that come together are taken together, and what counts in the end is the content: the same
//! bytes are never loaded twice.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::version::Digest;
use super::{Chain, lock};
use crate::watching::{Folders, settled};

/// Quiet for so long means that a change is complete.
const QUIET: Duration = Duration::from_millis(20);

/// Watches the files of a chain, on a thread of its own, for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    tell: Sender<Told>,
    seen: Arc<Mutex<Seen>>,
}

/// The last content of each link's file, loaded or refused; none where there was no file.
type Seen = HashMap<String, Option<Digest>>;

#[derive(Debug)]
enum Told {
    /// Something has happened in a folder.
    Stirred,
    /// Somebody wants every file looked at again.
    Again,
    /// The chain's files may be others now.
    Moved,
    /// Nobody needs the watch any more.
    End,
}

impl Watch {
    /// Begins to watch; with `follow` false only [`Self::again`] makes it look.
    ///
    /// # Errors
    /// When no thread or no watch can be had; in words.
    pub fn start(chain: Arc<Chain>, follow: bool) -> Result<Self, String> {
        Self::resume(chain, follow, &BTreeMap::new())
    }

    /// Goes on with what the program before has seen.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(
        chain: Arc<Chain>,
        follow: bool,
        before: &BTreeMap<String, Option<String>>,
    ) -> Result<Self, String> {
        let (tell, told) = mpsc::channel();
        let stir = tell.clone();
        let folders = follow
            .then(|| Folders::new(move || drop(stir.send(Told::Stirred))))
            .transpose()
            .map_err(|error| format!("policy files cannot be watched: {error}"))?;
        // What runs is what was seen: a file that has changed since it was loaded is loaded again.
        let live = chain.describe().links.into_iter();
        let mut seen: Seen = live.map(|link| (link.name, link.digest)).collect();
        // A version that was rolled back is not what is in its file, and stays all the same.
        seen.extend(
            before.iter().map(|(link, content)| (link.clone(), content.as_deref().and_then(Digest::parse))),
        );
        let seen = Arc::new(Mutex::new(seen));
        let mut watching = Watching { chain, folders, seen: Arc::clone(&seen) };
        watching.follow();
        thread::Builder::new()
            .name("policy-watch".into())
            .spawn(move || watching.run(&told))
            .map_err(|error| format!("policy files cannot be watched: {error}"))?;
        Ok(Self { tell, seen })
    }

    /// What it has seen so far, for the next program.
    #[must_use]
    pub fn carry(&self) -> BTreeMap<String, Option<String>> {
        let seen = lock(&self.seen);
        seen.iter().map(|(link, content)| (link.clone(), content.map(|it| format!("{it:#}")))).collect()
    }

    /// Looks at every file now.
    pub fn again(&self) {
        // The thread ends only with this value.
        let _ = self.tell.send(Told::Again);
    }

    /// Follows the files that the chain has by now.
    pub fn moved(&self) {
        let _ = self.tell.send(Told::Moved);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The watcher itself keeps the channel open.
        let _ = self.tell.send(Told::End);
    }
}

/// The watching thread's own.
struct Watching {
    chain: Arc<Chain>,
    folders: Option<Folders>,
    seen: Arc<Mutex<Seen>>,
}

impl Watching {
    fn run(mut self, told: &Receiver<Told>) {
        self.look(false);
        while let Ok(first) = told.recv() {
            if matches!(first, Told::End) {
                return;
            }
            let again = matches!(first, Told::Again);
            if matches!(first, Told::Stirred) && !settled(told, QUIET, |told| matches!(told, Told::End)) {
                return;
            }
            self.follow();
            self.look(again);
        }
    }

    /// Loads what has changed. `again`: somebody asked, and is told also of what has not.
    fn look(&mut self, again: bool) {
        for (link, path) in self.chain.files() {
            let content = content(&path);
            let known = lock(&self.seen).insert(link.clone(), content);
            if known == Some(content) && !again {
                continue;
            }
            if content.is_none() {
                tracing::warn!(link, path = %path.display(), "the policy's file is gone; the version in service stays");
                continue;
            }
            match self.chain.reload(&link) {
                Ok(Some(_)) => {}
                Ok(None) if again => tracing::info!(link, path = %path.display(), "policy file unchanged"),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(link, %error, "policy not replaced; the version in service stays");
                }
            }
        }
    }

    /// Watches the folders of the chain's files, and no others.
    fn follow(&mut self) {
        let Some(folders) = &mut self.folders else { return };
        let wanted = self.chain.files().iter().map(|(_, path)| folder(path)).collect();
        folders.follow(wanted, |folder, error| {
            tracing::warn!(
                %error,
                folder = %folder.display(),
                "policy files there are not watched; load them with SIGHUP or `sidetrack policy set`"
            );
        });
    }
}

fn content(path: &Path) -> Option<Digest> {
    fs::read(path).ok().map(|bytes| Digest::of(&bytes))
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
