//! A pool: the workers of one command, and everything that decides among them.
//!
//! Each has its own policy, session table and roster, so that nothing which happens in one is felt in
//! another. What pools share is the way in: listeners, peeking, permits and figures.

mod draft;
mod pools;
mod reload;
mod ways;

use std::sync::Arc;

pub use draft::{Common, Draft};
pub use pools::Pools;
pub use reload::Tried;
pub use ways::Ways;

use crate::live::Live;
use crate::observe::Observers;
use crate::policy::{Chain, Watch};
use crate::route::Router;
use crate::session::SessionTable;
use crate::shadow::Shadows;
use crate::worker::{Fleet, Program, Terms};

/// The name of the pool that the settings outside any other one describe.
pub const DEFAULT: &str = "default";

/// Where in the configuration a pool's setting is.
#[must_use]
pub fn place(pool: &str, key: &str) -> String {
    if pool == DEFAULT { key.to_owned() } else { format!("pool.{pool}.{key}") }
}

/// What the names of a pool's slots begin with: they are unique among all pools.
#[must_use]
pub fn prefix(pool: &str) -> String {
    if pool == DEFAULT { String::new() } else { format!("{pool}.") }
}

/// One command's workers and what decides among them.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    /// What new workers run.
    pub program: Live<Program>,
    /// What workers that join are told.
    pub terms: Live<Terms>,
    ways: Arc<Ways>,
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
    /// Looks at every policy file now.
    pub fn look_again(&self) {
        self.watch.again();
        self.shadows.again();
    }
}
