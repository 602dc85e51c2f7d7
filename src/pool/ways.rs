//! Which pool a request is for.
//!
//! By the listener it came through, where that is one pool's alone; else by its host and path. Of the
//! matches that it fits the most particular counts: one host before `*.` of several before any, and then
//! the longest path. What fits none is for the default pool, if there is one.

use std::sync::Arc;

use sidetrack_worker::matches::{Match, Matches, Wanted, Whose};

use super::DEFAULT;
use crate::config::Config;
use crate::types::Head;

/// The matches of all pools, the most particular first.
#[derive(Debug, Default)]
pub struct Ways {
    matches: Vec<(Match, Arc<str>)>,
    rest: Option<Arc<str>>,
    /// Pools that have listeners of their own.
    apart: Vec<Arc<str>>,
    /// All but the default one.
    names: Vec<Arc<str>>,
}

impl Ways {
    /// As the configuration says.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let of = |pool: &crate::config::PoolConfig| {
            pool.matches.iter().map(|known| (known.clone(), Arc::clone(&pool.name))).collect::<Vec<_>>()
        };
        let mut matches: Vec<_> = config.pools.iter().flat_map(of).collect();
        matches.sort_by_key(|(known, _)| known.rank());
        let apart = config.pools.iter().filter(|pool| pool.matches.is_empty());
        let apart = apart.map(|pool| Arc::clone(&pool.name)).collect();
        let names = config.pools.iter().map(|pool| Arc::clone(&pool.name)).collect();
        Self { matches, rest: config.has_default_pool().then(|| DEFAULT.into()), apart, names }
    }

    /// The pool of a request that has come through a common listener.
    #[must_use]
    pub fn find(&self, head: &Head) -> Option<&str> {
        let wanted = Wanted::of(head);
        let found = self.matches.iter().find(|(known, _)| known.fits(&wanted)).map(|(_, pool)| pool);
        found.or(self.rest.as_ref()).map(|pool| &**pool)
    }

    /// What a pool's workers are told, so that they see when the next request on a connection is for
    /// another pool; nothing when none can be.
    #[must_use]
    pub fn told(&self, pool: &Arc<str>) -> Option<String> {
        if self.matches.is_empty() || self.apart.contains(pool) {
            return None;
        }
        let whose = |owner: &Arc<str>| if owner == pool { Whose::Own } else { Whose::Others };
        let all = self.matches.iter().map(|(known, owner)| (whose(owner), known.clone()));
        Some(Matches::new(all, self.rest.as_ref().map_or(Whose::Others, whose)).to_string())
    }

    /// The pools besides the default one.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// The matches of a pool, for people.
    #[must_use]
    pub fn of(&self, pool: &str) -> Vec<String> {
        let own = self.matches.iter().filter(|(_, owner)| &**owner == pool);
        own.map(|(known, _)| known.to_string()).collect()
    }
}
