//! A pool before it starts anything: what the configuration says, tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Pool, Ways};
use crate::config::{Config, Problems};
use crate::listener::Servers;
use crate::live::Live;
use crate::observe::Observers;
use crate::policy::{Chain, PolicyLink, SessionOwner, Watch};
use crate::route::Router;
use crate::session::SessionTable;
use crate::shadow::{Loaded, Shadows};
use crate::telemetry::Telemetry;
use crate::types::{Roster, ServerId};
use crate::upgrade::state;
use crate::worker::node::Shim;
use crate::worker::{Fatal, Fleet, Program, Reports, Terms};

/// A pool whose policies are loaded.
#[derive(Debug)]
pub struct Draft {
    pub name: Arc<str>,
    pub policy: Arc<Chain>,
    shadow: Option<Loaded>,
    sessions: Arc<SessionTable>,
    /// What the program before has seen of the policies' files.
    seen: BTreeMap<String, Option<String>>,
}

/// What all pools share.
#[derive(Debug)]
pub struct Common {
    pub servers: Arc<Servers>,
    pub telemetry: Arc<Telemetry>,
    pub shim: Option<Arc<Shim>>,
    pub fatal: mpsc::Sender<(Arc<str>, Fatal)>,
    pub opened: mpsc::Sender<ServerId>,
    pub ways: Arc<Ways>,
}

impl Draft {
    /// Loads the policies; starts nothing. They go on where the program before has stopped, if there was
    /// one.
    ///
    /// # Errors
    /// When a policy cannot be used.
    pub fn load(name: Arc<str>, config: &Config, before: Option<&state::Pool>) -> Result<Self, Problems> {
        let place = |key: &str| super::place(&name, key);
        let sessions = Arc::new(SessionTable::new(config.max_sessions, config.session_idle));
        let owner: Arc<dyn SessionOwner> = Arc::clone(&sessions) as _;
        let settings = &config.policy_settings;
        let policy = match before {
            None => Chain::build(&config.policy, settings, &owner),
            Some(before) => {
                let state::Fleet { version, roster, .. } = &before.fleet;
                let roster = Roster { version: *version, workers: roster.as_slice().into() };
                Chain::resume(&config.policy, settings, &owner, &before.chain, &roster)
            }
        };
        let policy = policy.map_err(|error| {
            Problems::one(place(&format!("policy {}", error.policy)), error.problem.to_string())
        })?;
        let load = |link: &PolicyLink| Loaded::load(link, settings);
        let shadow = match before.and_then(|before| before.shadow.in_place_of(config.shadow.as_ref())) {
            // Somebody has set it by hand. It decides nothing, and its file may have gone since.
            Some(live) => live.and_then(|link| {
                let failed = |error| tracing::warn!(%error, "the shadow policy does not go on");
                load(&link).map_err(failed).ok()
            }),
            None => config.shadow.as_ref().map(load).transpose().map_err(|error| {
                Problems::one(place(&format!("shadow {}", error.policy)), error.problem.to_string())
            })?,
        };
        let seen = before.map(|before| before.chain.seen.clone()).unwrap_or_default();
        Ok(Self { name, policy: Arc::new(policy), shadow, sessions, seen })
    }

    /// Makes it ready for workers; still starts none.
    ///
    /// # Errors
    /// When files cannot be watched or the shadow cannot run.
    pub fn build(self, config: &Config, common: &Common) -> Result<Pool, Problems> {
        let Self { name, policy, shadow, sessions, seen } = self;
        let watch = Watch::resume(Arc::clone(&policy), config.policy_watch, &seen)
            .map_err(|error| Problems::one("policy-watch", error))?;
        let observers = Arc::<Observers>::default();
        let shadows =
            Shadows::new(Arc::clone(&observers), config.policy_settings.clone(), config.policy_watch);
        if let Some(loaded) = shadow {
            shadows.begin(loaded).map_err(|error| Problems::one("shadow", error.to_string()))?;
        }
        let (fatal, opened) = (common.fatal.clone(), common.opened.clone());
        let reports = Reports { pool: Arc::clone(&name), fatal, opened };
        let fleet = Arc::new(Fleet::new(
            config.worker.clone(),
            Arc::clone(&sessions),
            Arc::clone(&common.servers),
            Arc::clone(&policy),
            Arc::clone(&common.telemetry),
            Arc::clone(&observers),
            reports,
        ));
        let router = Router {
            settings: Live::new(config.route.clone()),
            sessions: Arc::clone(&sessions),
            fleet: Arc::clone(&fleet),
            policy: Arc::clone(&policy),
            telemetry: Arc::clone(&common.telemetry),
        };
        let program = Live::new(program(&name, config, common.shim.clone(), &common.ways)?);
        let terms = Live::new(terms(&name, config, &common.ways));
        let (ways, shadows) = (Arc::clone(&common.ways), Arc::new(shadows));
        Ok(Pool { name, program, terms, ways, fleet, sessions, policy, router, watch, shadows, observers })
    }
}

/// What runs in every slot.
pub(super) fn program(
    name: &Arc<str>,
    config: &Config,
    shim: Option<Arc<Shim>>,
    ways: &Ways,
) -> Result<Program, Problems> {
    let account =
        config.account().map_err(|error| Problems::one(super::place(name, "user"), error.to_string()))?;
    Ok(Program {
        command: config.command.clone(),
        account,
        folder: config.folder.clone(),
        environment: config.environment.clone(),
        shim: shim.filter(|_| config.shim),
        session_key: config.route.session_key.clone(),
        keepalive: config.keepalive,
        session_idle: config.session_idle,
        tagged_sids: config.tagged_sids,
        matches: ways.told(name),
    })
}

/// What workers that join are told.
pub(super) fn terms(name: &Arc<str>, config: &Config, ways: &Ways) -> Terms {
    let others = ways.names().filter(|other| *other != name);
    Terms {
        session_key: config.route.session_key.clone(),
        keepalive: config.keepalive,
        session_idle: config.session_idle,
        tagged_sids: config.tagged_sids,
        matches: ways.told(name),
        prefix: super::prefix(name),
        others: others.map(|name| format!("{name}.")).collect(),
    }
}
