//! A connection's whole life on one page: the only place that knows the order of the stages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sidetrack_worker::wire::Luggage;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};

use crate::drain::{Phase, Phases};
use crate::front::{self, Front};
use crate::handoff::{self, Routed};
use crate::live::Live;
use crate::observe::{Note, Observation};
use crate::peek::{self, Headless};
use crate::pool::{Pool, Pools};
use crate::route::{Router, Unrouted};
use crate::sys::socket;
use crate::telemetry::{Cause, Event, Telemetry, spans};
use crate::types::{Accepted, Head, HeadError, Opening, Request, WorkerId};
use crate::upgrade::{Pause, Waiting};
use crate::worker::{HandedBack, Returned, Undelivered, Why};

/// How often a connection is routed anew before its client is told to come back later.
const MOST_ATTEMPTS: u32 = 3;

/// The stages, ready for connections.
#[derive(Debug)]
pub struct Pipeline {
    /// The first look, with its settings and the bounds of a head.
    pub front: Live<Front>,
    pub pools: Arc<Pools>,
    /// One for each connection between accept and a worker's acknowledgement.
    pub permits: Arc<Semaphore>,
    pub phases: Phases,
    /// Where connections that wait for something are put aside when another program is to go on.
    pub pause: Arc<Pause>,
    pub telemetry: Arc<Telemetry>,
}

/// Whether a connection has just come, or has been in a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    New,
    Returned,
}

impl Pipeline {
    /// Starts a connection's life. Does not wait.
    ///
    /// With deferred accept the head is nearly always there and the worker has room, so the whole
    /// life is one poll, done here; only a connection that must wait becomes a task.
    pub fn admit(self: &Arc<Self>, mut accepted: Accepted) {
        let span = spans::connection(accepted.peer, accepted.server, 0);
        if accepted.opening == Opening::Preamble {
            self.start(span, |pipeline| async move { pipeline.meet(accepted).await });
            return;
        }
        let front = self.front.now();
        if self.lets_in(&front, &mut accepted) {
            let bounds = front.bounds();
            self.start(span, |pipeline| async move {
                pipeline.live(accepted, bounds, Arrival::New).await;
            });
        }
    }

    /// Has every connection put aside that is nobody's yet: for as long as nothing is awaited afterwards,
    /// these are all.
    pub async fn put_aside(&self) -> Vec<Waiting> {
        let mut aside = self.pause.begin().await;
        let returned = self.pools.iter().flat_map(|pool| pool.fleet.take_returned());
        aside.extend(returned.map(Waiting::Returned));
        aside
    }

    /// Takes connections up again that were put aside, by this program or the one before. Does not wait.
    pub fn go_on(self: &Arc<Self>, aside: Vec<Waiting>) {
        for waiting in aside {
            self.start(span(&waiting), |pipeline| async move { pipeline.take_up(waiting).await });
        }
    }

    async fn take_up(&self, waiting: Waiting) {
        match waiting {
            Waiting::Accepted(accepted) if accepted.opening == Opening::Preamble => self.meet(accepted).await,
            Waiting::Accepted(accepted) => {
                // Not routed yet: only one that was handed back has no stop behind the next.
                let back = accepted.luggage.last_stop;
                let arrival = if back { Arrival::Returned } else { Arrival::New };
                let bounds = self.front.now().bounds();
                self.live(accepted, bounds, arrival).await;
            }
            Waiting::Routed(routed) => match self.pool_of(&routed) {
                Some(pool) => self.deliver(pool, routed, None).await,
                None => self.refuse(routed.accepted, &Pools::none()).await,
            },
            Waiting::Refused(accepted) => self.see_off(accepted).await,
            Waiting::Returned(Returned::HandedBack(back)) => self.re_enter(back).await,
            Waiting::Returned(Returned::Undelivered { routed, why, from }) => match self.pool_of(&routed) {
                Some(pool) => self.again(pool, routed, why, from).await,
                None => self.refuse(routed.accepted, &Pools::none()).await,
            },
        }
    }

    fn pool_of(&self, routed: &Routed) -> Option<&Pool> {
        self.pools.choose(routed.accepted.server, &routed.request.head).map(|pool| &**pool)
    }

    /// Takes connections that a pool's workers did not get or handed back, for as long as the run lasts.
    pub async fn take_back(self: Arc<Self>, pool: Arc<Pool>) {
        loop {
            for returned in pool.fleet.returned().await {
                let pool = Arc::clone(&pool);
                self.start(span_of(&returned), |pipeline| async move {
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

    /// A connection that a proxy announces.
    async fn meet(&self, mut accepted: Accepted) {
        let front = self.front.whole();
        let met = tokio::select! {
            biased;
            met = front.meet(&mut accepted) => met,
            () = self.pause.called() => return self.pause.put(Waiting::Accepted(accepted)),
        };
        match met {
            Ok(bounds) if self.lets_in(&front, &mut accepted) => {
                self.live(accepted, bounds, Arrival::New).await;
            }
            Ok(_) => {}
            Err(why) => self.telemetry.emit(Event::Unwelcome { peer: accepted.peer, why }),
        }
    }

    /// Whether its client may have one more connection here. If not, it is closed without a word.
    fn lets_in(&self, front: &Front, accepted: &mut Accepted) -> bool {
        let let_in = front.let_in(accepted);
        if let Err(why) = let_in {
            self.telemetry.emit(Event::Unwelcome { peer: accepted.peer, why });
        }
        let_in.is_ok()
    }

    async fn live(&self, accepted: Accepted, bounds: peek::Settings, arrival: Arrival) {
        let peeked = tokio::select! {
            biased;
            peeked = peek::peek(&accepted, bounds) => peeked,
            () = self.pause.called() => return self.pause.put(Waiting::Accepted(accepted)),
        };
        let head = match peeked {
            Ok(head) => head,
            // Whatever a program speaks beside the web, such as TLS, its own server understands it or says no.
            Err(Headless::Invalid(_)) if arrival == Arrival::New && self.pools.is_side(accepted.server) => {
                Head::default()
            }
            Err(headless) => return self.turn_away(accepted, headless).await,
        };
        let front = self.front.whole();
        let peer = front.client(accepted.peer, &head);
        if arrival == Arrival::New {
            if front.is_health_check(&head) {
                return self.answer_health_check(accepted, &head).await;
            }
            if let Err(refusal) = front.count(peer) {
                self.telemetry.counters.rate_limited.one();
                return self.refuse(accepted, &Unrouted { refusal, cause: Cause::ClientRate }).await;
            }
        }
        let Some(pool) = self.pools.choose(accepted.server, &head) else {
            return self.refuse(accepted, &Pools::none()).await;
        };
        let session = pool.router.session(&head);
        let request = Request { head, peer, session, attempt: 0 };
        self.deliver(pool, Box::new(Routed { accepted, request }), None).await;
    }

    /// Route and hand off; to another worker than `failed`, if there is one.
    async fn deliver(&self, pool: &Pool, mut routed: Box<Routed>, failed: Option<WorkerId>) {
        let Pool { router, fleet, .. } = pool;
        let server = routed.accepted.server;
        let mut note = Note::begin(pool.observers.interest());
        let choice = tokio::select! {
            biased;
            choice = router.route(server, &mut routed.request, &mut note) => choice,
            () = self.pause.called() => return self.pause.put(Waiting::Routed(routed)),
        };
        let mut choice = match choice {
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
        let HandedBack { socket, server, data, peer: announced } = back;
        // A worker in another language may have made it one that blocks.
        let peer = socket::set_nonblocking(&socket).and_then(|()| socket::peer(&socket));
        let Ok(peer) = peer else {
            // The client has left meanwhile, or this never was one.
            return self.telemetry.counters.gone.one();
        };
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
            () = self.pause.called() => {
                let back = HandedBack { socket, server, data, peer: announced };
                return self.pause.put(Waiting::Returned(Returned::HandedBack(back)));
            }
        };
        // The run outlives every connection, so the semaphore is never closed.
        let Ok(permit) = permit else { return };
        // Whoever gets it keeps it: sent on twice, an unknown session would circulate.
        let luggage = Luggage { data, last_stop: true, peer: announced };
        let (peer, opening, share) = (announced.or(peer), Opening::Request, None);
        self.telemetry.emit(Event::HandedBack { peer });
        let accepted = Accepted { socket, peer, opening, server, luggage, permit, share };
        let bounds = self.front.now().bounds();
        self.live(accepted, bounds, Arrival::Returned).await;
    }

    async fn answer_health_check(&self, accepted: Accepted, head: &Head) {
        self.telemetry.counters.health_checks.one();
        let ready = self.pools.ready().len();
        let draining = self.phases.now() > Phase::Running;
        let answer = front::health_answer(ready, draining, head.method() == "HEAD");
        self.answer(accepted, &answer).await;
    }

    async fn turn_away(&self, accepted: Accepted, why: Headless) {
        self.telemetry.emit(Event::Headless { peer: accepted.peer, why });
        let Some((refusal, cause)) = handoff::refusal_for(why) else { return };
        self.telemetry.emit(Event::Refused { peer: accepted.peer, refusal: &refusal, cause });
        let tls = why == Headless::Invalid(HeadError::Tls);
        self.answer(accepted, &handoff::refusal(&refusal, tls)).await;
    }

    async fn refuse(&self, accepted: Accepted, Unrouted { refusal, cause }: &Unrouted) {
        self.telemetry.emit(Event::Refused { peer: accepted.peer, refusal, cause: *cause });
        self.answer(accepted, &handoff::refusal(refusal, false)).await;
    }

    async fn answer(&self, accepted: Accepted, answer: &[u8]) {
        if handoff::answer(&accepted, answer) {
            self.see_off(accepted).await;
        }
    }

    /// Lets a client that was answered here read it.
    async fn see_off(&self, accepted: Accepted) {
        tokio::select! {
            biased;
            () = handoff::linger(&accepted) => {}
            () = self.pause.called() => self.pause.put(Waiting::Refused(accepted)),
        }
    }

    /// Polls a life once where it stands, and makes it a task only if it must wait.
    ///
    /// The first poll has no waker that matters: a spawned task is polled again at once, and whatever
    /// it waits for then learns the true one.
    fn start<L: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        span: Span,
        life: impl FnOnce(Arc<Self>) -> L,
    ) {
        let life = life(Arc::clone(self));
        let mut life: Pin<Box<dyn Future<Output = ()> + Send>> =
            if span.is_disabled() { Box::pin(life) } else { Box::pin(life.instrument(span)) };
        if life.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            let begun = self.pause.begun();
            drop(tokio::spawn(async move {
                life.await;
                drop(begun);
            }));
        }
    }
}

/// Only when the connection is on its way: whoever watches is not to delay it.
fn tell(pool: &Pool, observation: Option<Observation>) {
    if let Some(observation) = observation {
        pool.observers.tell(observation);
    }
}

/// The span of a life that goes on.
fn span(waiting: &Waiting) -> Span {
    let of = |accepted: &Accepted, attempt| spans::connection(accepted.peer, accepted.server, attempt);
    match waiting {
        Waiting::Accepted(accepted) | Waiting::Refused(accepted) => of(accepted, 0),
        Waiting::Routed(routed) => of(&routed.accepted, routed.request.attempt),
        Waiting::Returned(returned) => span_of(returned),
    }
}

/// The span of a life that begins again.
fn span_of(returned: &Returned) -> Span {
    match returned {
        Returned::Undelivered { routed, .. } => {
            let Routed { accepted, request } = &**routed;
            spans::connection(accepted.peer, accepted.server, request.attempt + 1)
        }
        Returned::HandedBack(back) => spans::connection(None, back.server, 0),
    }
}
