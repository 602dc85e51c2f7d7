//! All pools of a run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{DEFAULT, Pool, Ways};
use crate::listener::Servers;
use crate::route::Unrouted;
use crate::telemetry::Cause;
use crate::types::{Head, Refusal, ServerId};

/// What comes within so long is seen together.
const TOGETHER: Duration = Duration::from_millis(5);

/// All pools: the default one first, then those of the configuration in its order.
#[derive(Debug)]
pub struct Pools {
    list: Vec<Arc<Pool>>,
    ways: Arc<Ways>,
    servers: Arc<Servers>,
}

impl Pools {
    #[must_use]
    pub fn new(list: Vec<Arc<Pool>>, ways: Arc<Ways>, servers: Arc<Servers>) -> Self {
        Self { list, ways, servers }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.list.iter()
    }

    /// Whether it has to be said which one is meant.
    #[must_use]
    pub fn several(&self) -> bool {
        self.list.len() > 1
    }

    /// The pool of a request that has come through a server's listener.
    #[must_use]
    pub fn choose(&self, server: ServerId, head: &Head) -> Option<&Arc<Pool>> {
        match self.list.as_slice() {
            [only] => Some(only),
            _ => match self.servers.pool(server) {
                Some(name) => self.find(&name),
                None => self.meant(head),
            },
        }
    }

    /// Whether a server is one that a program has beside its main one.
    #[must_use]
    pub fn is_side(&self, server: ServerId) -> bool {
        self.servers.is_side(server)
    }

    /// The pool of a request at the common addresses.
    #[must_use]
    pub fn meant(&self, head: &Head) -> Option<&Arc<Pool>> {
        match self.list.as_slice() {
            [only] => Some(only),
            _ => self.ways.find(head).and_then(|name| self.find(name)),
        }
    }

    /// The matches of a pool.
    #[must_use]
    pub fn matches(&self, pool: &Pool) -> Vec<String> {
        self.ways.of(&pool.name)
    }

    fn find(&self, name: &str) -> Option<&Arc<Pool>> {
        self.iter().find(|pool| &*pool.name == name)
    }

    /// What a client is told whose request is for no pool.
    #[must_use]
    pub fn none() -> Unrouted {
        let reason = "nobody serves this host and path".to_owned();
        Unrouted { refusal: Refusal { status: 404, retry_after: None, reason }, cause: Cause::NoPool }
    }

    /// The one somebody names; without a name the only one, or the default.
    ///
    /// # Errors
    /// When it is not clear which, or there is none of that name; in words.
    pub fn named(&self, name: Option<&str>) -> Result<&Arc<Pool>, String> {
        let names = || self.iter().map(|pool| &*pool.name).collect::<Vec<_>>().join(", ");
        match (name, self.list.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => self
                .find(DEFAULT)
                .ok_or_else(|| format!("there are several pools; say which with --pool: {}", names())),
            (Some(name), _) => {
                self.find(name).ok_or_else(|| format!("there is no pool `{name}`, but {}", names()))
            }
        }
    }

    /// The pool that a slot is in: `api.w0` in `api`, `w0` in the default one.
    ///
    /// # Errors
    /// When there is none; in words.
    pub fn of_slot(&self, slot: &str) -> Result<&Arc<Pool>, String> {
        let named = slot.split_once('.').and_then(|(name, _)| self.find(name));
        named.map_or_else(|| self.named(None), Ok)
    }

    /// Slot and process of every worker that may be chosen.
    #[must_use]
    pub fn ready(&self) -> Vec<(String, u32)> {
        self.iter().flat_map(|pool| pool.fleet.ready()).collect()
    }

    /// To wait for changes with.
    #[must_use]
    pub fn watch(&self) -> Changes {
        Changes(self.iter().map(|pool| pool.fleet.watch()).collect())
    }
}

/// Changes of any roster.
#[derive(Debug)]
pub struct Changes(Vec<watch::Receiver<u64>>);

impl Changes {
    /// Waits until one has changed; a little longer, so that what comes together is seen together.
    pub async fn next(&mut self) {
        let changes = self.0.iter_mut().map(|changes| Box::pin(changes.changed()));
        if select_all(changes).await.0.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(TOGETHER).await;
    }
}
