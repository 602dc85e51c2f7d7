//! Another configuration for a pool that serves: tried first, then exchanged in one go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::Pool;
use super::draft::{program, terms};
use crate::config::{Config, Diff, Problems};
use crate::policy::{Prepared, SessionOwner};
use crate::session::Bounds;
use crate::shadow::Loaded;
use crate::worker::{Program, node};

/// What the chain is made from.
const POLICY: &[&str] =
    &["policy", "policy-config", "policy-fuel", "policy-memory", "policy-trial", "policy-cache"];

/// What was tried out and is good.
#[derive(Debug, Default)]
pub struct Tried {
    policy: Option<Prepared>,
    shadow: Option<Loaded>,
}

impl Pool {
    /// Tries out all that can be, and changes nothing. Every problem at once.
    ///
    /// # Errors
    /// What is wrong with the policies, the shadow or the number of workers.
    pub async fn attempt(&self, diff: &Diff, new: &Config) -> Result<Tried, Problems> {
        let mut problems = Problems::default();
        let place = |key: &str| super::place(&self.name, key);
        if diff.changes(&["workers"])
            && let Err(error) = self.fleet.may_scale(new.workers)
        {
            problems.add(place("workers"), error.to_string());
        }
        let settings = new.policy_settings.clone();
        let links = diff.changes(POLICY).then(|| new.policy.clone());
        let shadow = new.shadow.clone().filter(|_| diff.changes(&["shadow"]));
        if links.is_none() && shadow.is_none() {
            return problems.into_result(Tried::default());
        }
        let chain = Arc::clone(&self.policy);
        let sessions: Arc<dyn SessionOwner> = Arc::clone(&self.sessions) as _;
        // Compiling takes its time, and connections must not wait for it.
        let loaded = spawn_blocking(move || {
            let policy = links.map(|links| chain.prepare(&links, &settings, &sessions)).transpose();
            (policy, shadow.map(|link| Loaded::load(&link, &settings)).transpose())
        });
        let mut tried = Tried::default();
        match loaded.await {
            Ok((policy, shadow)) => {
                match policy {
                    Ok(policy) => tried.policy = policy,
                    Err(error) => {
                        problems.add(place(&format!("policy {}", error.policy)), error.problem.to_string())
                    }
                }
                match shadow {
                    Ok(shadow) => tried.shadow = shadow,
                    Err(error) => {
                        problems.add(place(&format!("shadow {}", error.policy)), error.problem.to_string())
                    }
                }
            }
            Err(error) => problems.add(place("policy"), error.to_string()),
        }
        problems.into_result(tried)
    }

    /// Goes on with another configuration. Does not wait, so that nobody sees the half of it.
    ///
    /// # Errors
    /// When the policies cannot take over after all; nothing has changed then.
    pub fn exchange(&self, diff: &Diff, new: &Config, tried: Tried) -> Result<(), Problems> {
        let program = self.program_of(new)?;
        if let Some(policy) = tried.policy {
            self.policy
                .install(policy)
                .map_err(|error| Problems::one(super::place(&self.name, "policy"), error.to_string()))?;
            self.watch.moved();
        }
        self.shadows.set_settings(new.policy_settings.clone());
        match tried.shadow {
            Some(shadow) => {
                if let Err(error) = self.shadows.begin(shadow) {
                    tracing::error!(%error, "no shadow");
                }
            }
            None if diff.changes(&["shadow"]) => drop(self.shadows.off()),
            None => {}
        }
        self.router.settings.set(new.route.clone());
        self.fleet.treat(new.worker.clone());
        self.start_as(new, program);
        Ok(())
    }

    /// Makes it so many workers, and returns the slots that nobody fills yet. Those that are not wanted any
    /// more have so long to finish what they have.
    pub fn scale(&self, workers: usize, within: Duration) -> Vec<String> {
        self.fleet.scale(workers, Some(Instant::now() + within))
    }

    /// Starts new workers as another configuration says.
    ///
    /// # Errors
    /// When the shim cannot be written.
    pub fn restart_as(&self, config: &Config) -> Result<(), Problems> {
        let program = self.program_of(config)?;
        self.start_as(config, program);
        Ok(())
    }

    fn start_as(&self, config: &Config, program: Program) {
        // Its workers speak of sessions for as long as they are remembered here.
        self.sessions.rebound(Bounds { limit: config.max_sessions, idle: config.session_idle });
        self.program.set(program);
        self.terms.set(terms(&self.name, config, &self.ways));
    }

    /// What new workers run.
    fn program_of(&self, new: &Config) -> Result<Program, Problems> {
        let shim = match (&self.program.now().shim, new.shim) {
            (_, false) => None,
            (Some(shim), true) => Some(Arc::clone(shim)),
            (None, true) => {
                let shim =
                    node::Shim::resume(&[]).map_err(|error| Problems::one("shim", error.to_string()))?;
                Some(Arc::new(shim))
            }
        };
        program(&self.name, new, shim, &self.ways)
    }
}
