//! Which worker shall have a connection: the session table, the policy, and patience.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::live::Live;
use crate::observe::Note;
use crate::policy::{Chain, SessionOwner};
use crate::session::{Found, SessionKey, SessionTable};
use crate::telemetry::{Cause, Event, Telemetry};
use crate::types::{Decision, Head, Refusal, Request, Roster, ServerId, WorkerId};
use crate::worker::Fleet;

/// How routing waits.
#[derive(Debug, Clone)]
pub struct Settings {
    pub session_key: SessionKey,
    /// How long a request with an unknown session waits for a worker to announce it.
    pub hold: Duration,
    /// How long a connection waits for any worker to be ready.
    pub worker_wait: Duration,
}

/// Decides.
#[derive(Debug)]
pub struct Router {
    pub settings: Live<Settings>,
    pub sessions: Arc<SessionTable>,
    pub fleet: Arc<Fleet>,
    pub policy: Arc<Chain>,
    pub telemetry: Arc<Telemetry>,
}

/// Who shall have the connection, and which policy said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub worker: WorkerId,
    pub generation: u64,
    /// The request names a session that nobody is known to have.
    pub unknown: bool,
}

/// Nobody shall have the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrouted {
    pub refusal: Refusal,
    pub cause: Cause,
}

impl SessionOwner for SessionTable {
    fn owner(&self, sid: &str) -> Option<WorkerId> {
        Self::owner(self, sid)
    }
}

impl Router {
    /// The session a request belongs to. What is contradictory belongs to none.
    #[must_use]
    pub fn session(&self, head: &Head) -> Option<String> {
        match self.settings.now().session_key.find(head) {
            Found::Nothing => None,
            Found::Id(id) => Some(id),
            Found::Ambiguous => {
                self.telemetry.counters.ambiguous.one();
                None
            }
        }
    }

    /// Chooses a worker. Cancel safe: nothing is held but the caller's own request. What is asked and
    /// answered on the way goes into `note`.
    ///
    /// # Errors
    /// The answer for the client when the policy refuses it or no worker becomes ready.
    pub async fn route(
        &self,
        server: ServerId,
        request: &mut Request,
        note: &mut Note,
    ) -> Result<Choice, Unrouted> {
        let sid = request.session.clone();
        if let Some(sid) = &sid
            && let Some(choice) = self.owner(sid, server, request, note).await?
        {
            return Ok(choice);
        }
        let (worker, generation) = self.balance(server, request, note).await?;
        if let Some(sid) = &sid
            && self.settings.now().session_key.made_by_client()
        {
            // Its other requests may be on their way already: they follow this one. The worker
            // says the same again for as long as it hears of the session.
            self.sessions.open_fleeting(sid, worker);
        }
        Ok(Choice { worker, generation, unknown: sid.is_some() })
    }

    /// Who has the session: the policy may know, the table does, and a worker may be about to
    /// say so.
    async fn owner(
        &self,
        sid: &str,
        server: ServerId,
        request: &mut Request,
        note: &mut Note,
    ) -> Result<Option<Choice>, Unrouted> {
        let (roster, loads) = self.fleet.roster();
        let answer = note.time("find", |reasons| match reasons {
            true => self.policy.explain_find(sid, &roster, &loads, request),
            false => self.policy.find(sid, &roster, &loads, request),
        });
        note.found(&roster, &loads, &answer);
        note.owner(|| self.sessions.glance(sid));
        let generation = answer.generation;
        let known = |worker| Some(Choice { worker, generation, unknown: false });
        let mut told = |worker| {
            note.owner(|| Some(worker));
            known(worker)
        };
        match answer.decision {
            Decision::Worker(worker) if self.fleet.serves(worker, server) => return Ok(known(worker)),
            Decision::Refuse(refusal) => return Err(Unrouted { refusal, cause: Cause::Policy }),
            Decision::Worker(_) | Decision::Defer => {}
        }
        if let Some(worker) = self.sessions.owner(sid) {
            return Ok(known(worker));
        }
        // Channels before listeners: the announcement may be here already, unread.
        self.telemetry.counters.missed.one();
        self.fleet.read_all();
        if let Some(worker) = self.sessions.owner(sid) {
            return Ok(told(worker));
        }
        // Without the shim a worker answers its client before it tells us of the session. The
        // connection waits unread. One that was routed before has waited already, and nobody
        // announces what the client itself makes up.
        let hold = {
            let settings = self.settings.now();
            if request.attempt > 0 || settings.session_key.made_by_client() {
                return Ok(None);
            }
            settings.hold.max(self.fleet.gathering())
        };
        self.telemetry.counters.held.one();
        let announced = self.sessions.announced(sid, hold).await;
        if announced.is_none() {
            self.telemetry.emit(Event::Unannounced { held: hold });
        }
        Ok(announced.and_then(told))
    }

    /// The policy's choice; waits while no worker that may be chosen has the connection's server. A
    /// program with several servers may have opened only some of them in workers that have just started.
    async fn balance(
        &self,
        server: ServerId,
        request: &mut Request,
        note: &mut Note,
    ) -> Result<(WorkerId, u64), Unrouted> {
        if let Some(choice) = self.choose(server, request, note)? {
            return Ok(choice);
        }
        let mut changes = self.fleet.watch();
        let wait = async {
            loop {
                if let Some(choice) = self.choose(server, request, note)? {
                    return Ok(choice);
                }
                // The fleet outlives every wait, so this cannot fail.
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let longest = self.settings.now().worker_wait;
        timeout(longest, wait).await.unwrap_or_else(|_| Err(Self::no_worker()))
    }

    /// Asks the policy once. None when nobody has the connection's server.
    fn choose(
        &self,
        server: ServerId,
        request: &mut Request,
        note: &mut Note,
    ) -> Result<Option<(WorkerId, u64)>, Unrouted> {
        let (roster, loads) = self.fleet.roster();
        if roster.workers.is_empty() {
            return Ok(None);
        }
        let answer = note.time("balance", |reasons| match reasons {
            true => self.policy.explain(&roster, &loads, request),
            false => self.policy.balance(&roster, &loads, request),
        });
        note.balanced(&roster, &loads, &answer);
        let worker = match answer.decision {
            Decision::Refuse(refusal) => return Err(Unrouted { refusal, cause: Cause::Policy }),
            Decision::Worker(worker) if self.fleet.serves(worker, server) => Some(worker),
            Decision::Worker(_) | Decision::Defer => self.least_loaded(server, None, &roster, &loads),
        };
        Ok(worker.map(|worker| (worker, answer.generation)))
    }

    /// Another worker for a connection that its first choice had no place for.
    #[must_use]
    pub fn another(&self, server: ServerId, except: WorkerId) -> Option<WorkerId> {
        let (roster, loads) = self.fleet.roster();
        self.least_loaded(server, Some(except), &roster, &loads)
    }

    fn least_loaded(
        &self,
        server: ServerId,
        except: Option<WorkerId>,
        roster: &Roster,
        loads: &[u32],
    ) -> Option<WorkerId> {
        let fits = |id| Some(id) != except && self.fleet.serves(id, server);
        let serving = roster.workers.iter().zip(loads).filter(|(info, _)| fits(info.id));
        serving.min_by_key(|(info, load)| (info.draining, **load)).map(|(info, _)| info.id)
    }

    /// What a client is told when nobody can take its connection.
    #[must_use]
    pub fn no_worker() -> Unrouted {
        let refusal = Refusal { status: 503, retry_after: Some(1), reason: "no worker is ready".to_owned() };
        Unrouted { refusal, cause: Cause::NoWorker }
    }
}
