//! A connection's whole life on one page: the only place that knows the order of the stages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sidetrack_worker::wire::Luggage;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};

use crate::handoff::{self, Routed};
use crate::observe::{Note, Observation};
use crate::peek::{self, Headless};
use crate::pool::{Pool, Pools};
use crate::route::{Router, Unrouted};
use crate::sys::socket;
use crate::telemetry::{Event, Telemetry, spans};
use crate::types::{Accepted, HeadError, Peeked, Request, WorkerId};
use crate::worker::{HandedBack, Returned, Undelivered, Why};

/// How often a connection is routed anew before its client is told to come back later.
const MOST_ATTEMPTS: u32 = 3;

/// The stages, ready for connections.
#[derive(Debug)]
pub struct Pipeline {
    pub peek: peek::Settings,
    pub pools: Arc<Pools>,
    /// One for each connection between accept and a worker's acknowledgement.
    pub permits: Arc<Semaphore>,
    pub telemetry: Arc<Telemetry>,
}

impl Pipeline {
    /// Starts a connection's life. Does not wait.
    ///
    /// With deferred accept the head is nearly always there and the worker has room, so the whole
    /// life is one poll, done here; only a connection that must wait becomes a task.
    pub fn admit(self: &Arc<Self>, accepted: Accepted) {
        let pipeline = Arc::clone(self);
        let span = spans::connection(accepted.peer, accepted.server, 0);
        start(span, async move { pipeline.live(accepted).await });
    }

    /// Takes connections that a pool's workers did not get or handed back, for as long as the run lasts.
    pub async fn take_back(self: Arc<Self>, pool: Arc<Pool>) {
        loop {
            for returned in pool.fleet.returned().await {
                let (pipeline, pool) = (Arc::clone(&self), Arc::clone(&pool));
                let span = match &returned {
                    Returned::Undelivered { routed, .. } => {
                        let Routed { accepted, request } = &**routed;
                        spans::connection(accepted.peer, accepted.server, request.attempt + 1)
                    }
                    Returned::HandedBack(back) => spans::connection(None, back.server, 0),
                };
                start(span, async move {
                    match returned {
                        Returned::Undelivered { routed, why, from } => {
                            pipeline.again(&pool, routed, why, from).await
                        }
                        Returned::HandedBack(back) => pipeline.re_enter(back).await,
                    }
                });
            }
        }
    }

    async fn live(&self, accepted: Accepted) {
        match peek::peek(accepted, &self.peek).await {
            Ok(Peeked { accepted, head }) => {
                let Some(pool) = self.pools.choose(accepted.server, &head) else {
                    return self.refuse(accepted, &Pools::none()).await;
                };
                let session = pool.router.session(&head);
                let request = Request { head, peer: accepted.peer, session, attempt: 0 };
                self.deliver(pool, Box::new(Routed { accepted, request }), None).await;
            }
            Err((accepted, headless)) => self.turn_away(accepted, headless).await,
        }
    }

    /// Route and hand off; to another worker than `failed`, if there is one.
    async fn deliver(&self, pool: &Pool, mut routed: Box<Routed>, failed: Option<WorkerId>) {
        let Pool { router, fleet, .. } = pool;
        let server = routed.accepted.server;
        let mut note = Note::begin(pool.observers.interest());
        let mut choice = match router.route(server, &mut routed.request, &mut note).await {
            Ok(choice) => choice,
            Err(unrouted) => {
                tell(pool, note.finish(&routed.request, Err(&unrouted.refusal)));
                return self.refuse(routed.accepted, &unrouted).await;
            }
        };
        if choice.unknown {
            // Nobody is known to have the session: whoever gets it says so to the client.
            routed.accepted.luggage.last_stop = true;
        }
        // The policy knows nothing of the attempt before: its next turn may well be the same.
        if failed == Some(choice.worker)
            && routed.request.session.is_none()
            && let Some(worker) = router.another(server, choice.worker)
        {
            choice.worker = worker;
        }
        self.telemetry.emit(Event::HandedOff {
            peer: routed.accepted.peer,
            worker: choice.worker.0,
            session: routed.request.session.is_some(),
            generation: choice.generation,
        });
        let mut observation = note.finish(&routed.request, Ok(choice.worker));
        let Err(Undelivered(routed)) = fleet.hand_off(choice.worker, routed) else {
            return tell(pool, observation);
        };

        // No place there. A session that lives has nowhere else to go; anybody else may have the rest.
        let lives = routed.request.session.is_some() && !choice.unknown;
        let another = if lives { None } else { router.another(server, choice.worker) };
        let routed = match another {
            Some(worker) => match fleet.hand_off(worker, routed) {
                Ok(()) => {
                    observation.iter_mut().for_each(|told| told.went(Ok(worker)));
                    return tell(pool, observation);
                }
                Err(Undelivered(routed)) => routed,
            },
            None => routed,
        };
        let unrouted = Router::no_worker();
        observation.iter_mut().for_each(|told| told.went(Err(&unrouted.refusal)));
        tell(pool, observation);
        self.refuse(routed.accepted, &unrouted).await;
    }

    /// A worker did not get the connection and has read nothing of it: as if it were new.
    async fn again(&self, pool: &Pool, mut routed: Box<Routed>, why: Why, from: WorkerId) {
        routed.request.attempt += 1;
        let waited_for_its_owner = why == Why::Overdue && routed.request.session.is_some();
        if waited_for_its_owner || routed.request.attempt > MOST_ATTEMPTS {
            let unrouted = Router::no_worker();
            let note = Note::begin(pool.observers.interest());
            tell(pool, note.finish(&routed.request, Err(&unrouted.refusal)));
            return self.refuse(routed.accepted, &unrouted).await;
        }
        let (peer, attempt) = (routed.accepted.peer, routed.request.attempt);
        self.telemetry.emit(Event::Rerouted { peer, attempt });
        self.deliver(pool, routed, Some(from)).await;
    }

    /// A connection whose next request belongs to another worker: its life begins again.
    async fn re_enter(&self, back: HandedBack) {
        let HandedBack { socket, server, data } = back;
        // A worker in another language may have made it one that blocks.
        let peer = socket::set_nonblocking(&socket).and_then(|()| socket::peer(&socket));
        let Ok(peer) = peer else {
            // The client has left meanwhile, or this never was one.
            return self.telemetry.counters.gone.one();
        };
        // The run outlives every connection, so the semaphore is never closed.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
        // Whoever gets it keeps it: sent on twice, an unknown session would circulate.
        let luggage = Luggage { data, last_stop: true };
        self.telemetry.emit(Event::HandedBack { peer });
        self.live(Accepted { socket, peer, server, luggage, permit }).await;
    }

    async fn turn_away(&self, accepted: Accepted, why: Headless) {
        self.telemetry.emit(Event::Headless { peer: accepted.peer, why });
        let Some((refusal, cause)) = handoff::refusal_for(why) else { return };
        self.telemetry.emit(Event::Refused { peer: accepted.peer, refusal: &refusal, cause });
        handoff::refuse(accepted, &refusal, why == Headless::Invalid(HeadError::Tls)).await;
    }

    async fn refuse(&self, accepted: Accepted, Unrouted { refusal, cause }: &Unrouted) {
        self.telemetry.emit(Event::Refused { peer: accepted.peer, refusal, cause: *cause });
        handoff::refuse(accepted, refusal, false).await;
    }
}

/// Only when the connection is on its way: whoever watches is not to delay it.
fn tell(pool: &Pool, observation: Option<Observation>) {
    if let Some(observation) = observation {
        pool.observers.tell(observation);
    }
}

/// Polls a life once where it stands, and makes it a task only if it must wait.
///
/// The first poll has no waker that matters: a spawned task is polled again at once, and whatever
/// it waits for then learns the true one.
fn start(span: Span, life: impl Future<Output = ()> + Send + 'static) {
    let mut life: Pin<Box<dyn Future<Output = ()> + Send>> =
        if span.is_disabled() { Box::pin(life) } else { Box::pin(life.instrument(span)) };
    if life.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
        drop(tokio::spawn(life));
    }
}
