//! A pool: the workers of one command, and everything that decides among them.
//!
//! Each has its own policy, session table and roster, so that nothing which happens in one is felt in
//! another. What pools share is the way in: listeners, peeking, permits and figures.

mod draft;
mod pools;
mod ways;

use std::sync::Arc;

pub use draft::{Common, Draft};
pub use pools::Pools;
pub use ways::Ways;

use crate::observe::Observers;
use crate::policy::{Chain, Watch};
use crate::route::Router;
use crate::session::SessionTable;
use crate::shadow::Shadows;
use crate::worker::{Fleet, Program};

/// The name of the pool that the settings outside any other one describe.
pub const DEFAULT: &str = "default";

/// Where in the configuration a pool's setting is.
#[must_use]
pub fn place(pool: &str, key: &str) -> String {
    if pool == DEFAULT { key.to_owned() } else { format!("pool.{pool}.{key}") }
}

/// One command's workers and what decides among them.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    pub program: Program,
    /// How many workers are started here.
    pub workers: usize,
    pub fleet: Arc<Fleet>,
    pub sessions: Arc<SessionTable>,
    pub policy: Arc<Chain>,
    pub router: Router,
    /// Told when a link has got another file.
    pub watch: Watch,
    pub shadows: Arc<Shadows>,
    /// Whoever watches its decisions.
    pub observers: Arc<Observers>,
}

impl Pool {
    /// The slots that are filled here.
    pub fn slots(&self) -> impl Iterator<Item = String> {
        let prefix = self.prefix();
        (0..self.workers).map(move |number| format!("{prefix}w{number}"))
    }

    /// What the names of its slots begin with: they are unique among all pools.
    fn prefix(&self) -> String {
        if &*self.name == DEFAULT { String::new() } else { format!("{}.", self.name) }
    }

    /// Looks at every policy file now.
    pub fn look_again(&self) {
        self.watch.again();
        self.shadows.again();
    }
}
