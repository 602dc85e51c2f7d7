//! A policy that is asked beside the real one and never heeded.
//!
//! It sees what the chain has seen, once the chain has answered and the connection is on its way: the
//! request, the roster, the true loads, sessions as they open and close. Its answers are compared with
//! the real ones and forgotten. It runs on a thread of its own that gives way to all others, behind a
//! bounded queue; what does not fit is dropped and counted. Calls have the same limits as any policy's,
//! and one that faults again and again is switched off until its file changes.
//!
//! It is asked by itself, without the rest of the chain: when it defers, that is counted, and says
//! nothing about agreement. `session-owner` answers it for the session of the request at hand.

mod tally;

use std::fmt;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub use tally::{Compared, Tally};

use crate::live::Live;
use crate::observe::{Observation, Observers, Routing, Tap, Tapped, What};
use crate::policy::{
    Chain, Description, Event, LoadError, PolicyLink, Role, SessionOwner, Settings, Watch, lock,
};
use crate::sys;
use crate::types::{Decision, Request, WorkerId};

/// While it works it looks at its queue this often, so that routing need not wake it for each
/// connection.
const NAP: Duration = Duration::from_millis(2);

/// How often one that is switched off looks whether its file has changed.
const LOOK: Duration = Duration::from_millis(200);

/// The place of the shadow, whether there is one or not.
#[derive(Debug)]
pub struct Shadows {
    observers: Arc<Observers>,
    settings: Live<Settings>,
    /// Load its file again when it changes.
    follow: bool,
    live: Mutex<Option<Shadow>>,
}

/// A shadow in its place.
struct Shadow {
    chain: Arc<Chain>,
    tap: Tap,
    tally: Arc<Mutex<Figures>>,
    since: SystemTime,
    watch: Watch,
}

/// Figures are about one version.
#[derive(Debug, Default)]
struct Figures {
    generation: u64,
    tally: Tally,
}

/// A shadow that is loaded and not asked yet.
#[derive(Debug)]
pub struct Loaded {
    chain: Arc<Chain>,
    session: Arc<Session>,
}

/// What is known of the shadow.
#[derive(Debug)]
pub struct Status {
    /// What it runs, as a chain of one link.
    pub description: Description,
    pub since: SystemTime,
    pub tally: Tally,
    /// Observations that found its queue full.
    pub dropped: u64,
}

/// Why there is no shadow.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    #[error("{0}")]
    Load(#[from] LoadError),
    #[error("the shadow policy cannot run beside the others: {0}")]
    Thread(String),
}

/// The session of the request at hand, for `session-owner`. The table itself is not asked: its lock is
/// not to be held by a thread that gives way.
#[derive(Debug, Default)]
struct Session(Mutex<Option<(String, WorkerId)>>);

impl SessionOwner for Session {
    fn owner(&self, sid: &str) -> Option<WorkerId> {
        lock(&self.0).as_ref().filter(|(known, _)| known == sid).map(|(_, worker)| *worker)
    }
}

impl Loaded {
    /// Compiles, checks and tries a policy as a shadow.
    ///
    /// # Errors
    /// As for any policy.
    pub fn load(link: &PolicyLink, settings: &Settings) -> Result<Self, LoadError> {
        let session = Arc::<Session>::default();
        let settings = Settings { role: Role::Shadow, trial: Duration::ZERO, ..settings.clone() };
        let owner: Arc<dyn SessionOwner> = Arc::clone(&session) as _;
        let chain = Chain::build(std::slice::from_ref(link), &settings, &owner)?;
        Ok(Self { chain: Arc::new(chain), session })
    }
}

impl Shadows {
    /// Nobody yet. `settings` are the chain's; with `follow` a shadow's file is watched.
    #[must_use]
    pub fn new(observers: Arc<Observers>, settings: Settings, follow: bool) -> Self {
        Self { observers, settings: Live::new(settings), follow, live: Mutex::default() }
    }

    /// Loads a policy and puts it in the place of the shadow before. Takes as long as compiling.
    ///
    /// # Errors
    /// Why not; the shadow before stays.
    pub fn set(&self, link: &PolicyLink) -> Result<(), ShadowError> {
        self.begin(Loaded::load(link, &self.settings.now())?)
    }

    /// Other settings, for shadows to come.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.set(settings);
    }

    /// Begins to ask a loaded one.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(&self, loaded: Loaded) -> Result<(), ShadowError> {
        let Loaded { chain, session } = loaded;
        let watch = Watch::start(Arc::clone(&chain), self.follow).map_err(ShadowError::Thread)?;
        let (tap, tapped) = Tap::new();
        let tally = Arc::<Mutex<Figures>>::default();
        let asking = Asking {
            chain: Arc::clone(&chain),
            session,
            tapped,
            observers: Arc::clone(&self.observers),
            tally: Arc::clone(&tally),
        };
        thread::Builder::new()
            .name("policy-shadow".into())
            .spawn(move || asking.run())
            .map_err(|error| ShadowError::Thread(error.to_string()))?;
        let mut live = lock(&self.live);
        self.observers.tap(Some(tap.clone()));
        *live = Some(Shadow { chain, tap, tally, since: SystemTime::now(), watch });
        Ok(())
    }

    /// Asks no shadow any more. False when there was none.
    pub fn off(&self) -> bool {
        let mut live = lock(&self.live);
        self.observers.tap(None);
        live.take().is_some()
    }

    /// What runs, for the next program.
    #[must_use]
    pub fn policy(&self) -> Option<PolicyLink> {
        let chain = Arc::clone(&lock(&self.live).as_ref()?.chain);
        chain.policy()
    }

    /// Looks at its file now.
    pub fn again(&self) {
        if let Some(shadow) = &*lock(&self.live) {
            shadow.watch.again();
        }
    }

    /// What is known of the shadow, when there is one. May wait for a call of it to end, so it is not to be
    /// asked where connections are routed.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let (chain, tap, tally, since) = {
            let live = lock(&self.live);
            let Shadow { chain, tap, tally, since, .. } = live.as_ref()?;
            (Arc::clone(chain), tap.clone(), Arc::clone(tally), *since)
        };
        let figures = lock(&tally);
        // A version that was not asked yet has no figures.
        let tally =
            if figures.generation == chain.generation() { figures.tally.clone() } else { Tally::default() };
        drop(figures);
        Some(Status { description: chain.describe(), since, tally, dropped: tap.dropped() })
    }
}

/// The asking thread's own.
struct Asking {
    chain: Arc<Chain>,
    session: Arc<Session>,
    tapped: Tapped,
    observers: Arc<Observers>,
    tally: Arc<Mutex<Figures>>,
}

impl Asking {
    /// Asks until its tap is taken away.
    fn run(self) {
        sys::thread::give_way();
        // A reload begins one from the main thread.
        sys::signals::hold();
        while let Ok(first) = self.tapped.queue.recv() {
            self.take(&first.observation);
            while self.chain.in_service() {
                let mut idle = true;
                while self.chain.in_service()
                    && let Ok(next) = self.tapped.queue.try_recv()
                {
                    idle = false;
                    self.take(&next.observation);
                }
                if idle {
                    break;
                }
                thread::sleep(NAP);
            }
            if !self.chain.in_service() && !self.pause() {
                return;
            }
        }
    }

    fn take(&self, observation: &Observation) {
        match &observation.what {
            What::Routed(routing) => self.compare(routing),
            What::SessionOpened { sid, worker } => {
                self.chain.notice(Event::SessionOpened { sid, worker: *worker });
            }
            What::SessionClosed { sid, worker } => {
                self.chain.notice(Event::SessionClosed { sid, worker: *worker });
            }
            What::WorkerFailed { worker } => self.chain.notice(Event::WorkerFailed { worker: *worker }),
        }
    }

    fn compare(&self, routing: &Routing) {
        let mut request = routing.request.clone();
        *lock(&self.session.0) = routing.request.session.clone().zip(routing.owner);
        let began = Instant::now();
        let compared = self.ask(routing, &mut request);
        let took = began.elapsed();
        if routing.by_hand {
            // Its turn has gone by, as the real one's has.
            return;
        }
        let generation = self.chain.generation();
        let mut figures = lock(&self.tally);
        if figures.generation != generation {
            *figures = Figures { generation, tally: Tally::default() };
        }
        figures.tally.note(routing, &compared, took);
    }

    /// What would have come of the connection.
    fn ask(&self, routing: &Routing, request: &mut Request) -> Compared {
        let Routing { roster, loads, .. } = routing;
        if let (Some(sid), Some(_)) = (&routing.request.session, &routing.found) {
            match self.chain.find_alone(sid, roster, loads, request) {
                Some(Decision::Defer) => {}
                Some(decision) => return Compared::Decided(decision),
                None => return Compared::Failed,
            }
            if let Some(owner) = routing.owner {
                return Compared::Decided(Decision::Worker(owner));
            }
        }
        if routing.balanced.is_none() {
            // The chain knew the session where neither this one nor the table does.
            return Compared::Deferred;
        }
        match self.chain.balance_alone(roster, loads, request) {
            Some(Decision::Defer) => Compared::Deferred,
            Some(decision) => Compared::Decided(decision),
            None => Compared::Failed,
        }
    }

    /// Waits until its file has changed. False when it is not wanted any more.
    fn pause(&self) -> bool {
        let link = self.chain.describe().links.into_iter().next();
        let (policy, faults) = link.map(|link| (link.policy, link.counts.faults.total())).unwrap_or_default();
        tracing::warn!(
            policy,
            faults,
            "shadow policy switched off: it faults again and again; it is asked again when its file changes"
        );
        self.tapped.pause(&self.observers, true);
        loop {
            match self.tapped.queue.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Disconnected) => return false,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
            if self.chain.in_service() {
                tracing::info!("shadow policy is asked again");
                self.tapped.pause(&self.observers, false);
                return true;
            }
        }
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shadow").field(&self.chain).finish()
    }
}
