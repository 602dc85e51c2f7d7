//! What routing decides, for whoever wants to watch: a shadow policy, a recording, somebody who follows.
//!
//! While nobody watches, a decision costs one load of a flag more. Somebody who watches gets
//! [`Observation`]s after the connections they are about have been handed off, through a bounded queue
//! of their own: whoever is slow loses some and is told how many, and routing never waits. Who wants only
//! a share of them, as the access log does, has it drawn before a connection is looked at: the others
//! cost nothing.

mod interest;
mod latencies;
mod observers;

use std::time::{Duration, Instant};

pub use interest::{Interest, Sampler};
pub use latencies::Latencies;
pub use observers::{Follower, Heard, MOST_FOLLOWERS, Observers, Tap, Tapped, Told};

use crate::policy::Answer;
use crate::types::{Refusal, Request, Roster, WorkerId};

/// Something that has happened, and when.
#[derive(Debug)]
pub struct Observation {
    pub at: Instant,
    /// Who is told.
    pub(crate) interest: Interest,
    pub what: What,
}

/// What policies decide, and what they are told.
#[derive(Debug)]
pub enum What {
    /// A connection was routed.
    Routed(Box<Routing>),
    /// A worker announced a session whose end it will announce too.
    SessionOpened {
        sid: Box<str>,
        worker: WorkerId,
    },
    SessionClosed {
        sid: Box<str>,
        worker: WorkerId,
    },
    /// A worker ended; its sessions are gone.
    WorkerFailed {
        worker: WorkerId,
    },
}

/// How one connection was routed: what was known, what was asked, what came of it.
#[derive(Debug, Clone)]
pub struct Routing {
    pub request: Request,
    pub roster: Roster,
    /// In the order of the roster, as the policies saw them last.
    pub loads: Vec<u32>,
    /// What the policies said to `find`; none when there was no session to find.
    pub found: Option<Answer>,
    /// Who had the session by the table, whether it was asked or not.
    pub owner: Option<WorkerId>,
    /// What the policies said to `balance`; none when the session had an owner.
    pub balanced: Option<Answer>,
    /// Where it went. Not always where the policies wanted it: a worker may lack the server that the
    /// client has called.
    pub outcome: Result<WorkerId, Refusal>,
    /// What the policies took together.
    pub took: Duration,
    /// When the connection was first looked at.
    pub began: Instant,
    /// Every question to the policies, as far as they are [few](MOST_CALLS).
    pub calls: Vec<Call>,
    /// No connection: somebody wanted an explanation, and the policies were really asked.
    pub by_hand: bool,
}

/// One question to the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub question: &'static str,
    pub began: Instant,
    pub took: Duration,
    pub generation: u64,
}

/// Calls remembered of one connection: one that waits for a worker may ask at every change of the roster.
pub const MOST_CALLS: usize = 8;

impl Routing {
    /// The answer that counted, when a policy gave one; the session table did otherwise.
    #[must_use]
    pub fn decisive(&self) -> Option<&Answer> {
        let found = || self.found.as_ref().filter(|answer| answer.decision != crate::types::Decision::Defer);
        self.balanced.as_ref().or_else(found)
    }

    /// The link that gave it, by name; known where its reasons were asked for.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        let answer = self.decisive()?;
        let decided = answer.steps.iter().rev().find(|step| step.decision.as_ref() == Some(&answer.decision));
        decided.map(|step| step.link.as_str())
    }

    /// A worker's name, also of one that has left the roster since.
    #[must_use]
    pub fn name(&self, worker: WorkerId) -> String {
        let known = self.roster.workers.iter().find(|known| known.id == worker);
        known.map_or_else(|| format!("worker {worker}"), |known| known.name.clone())
    }
}

/// A routing on its way to be told: filled in while it happens, only when somebody watches.
#[derive(Debug, Default)]
pub struct Note(Option<Box<Draft>>);

#[derive(Debug)]
struct Draft {
    interest: Interest,
    began: Instant,
    roster: Option<(Roster, Vec<u32>)>,
    found: Option<Answer>,
    owner: Option<WorkerId>,
    balanced: Option<Answer>,
    took: Duration,
    calls: Vec<Call>,
}

impl Note {
    /// To be filled in, or not.
    #[must_use]
    pub fn begin(interest: Interest) -> Self {
        Self(interest.any().then(|| {
            Box::new(Draft {
                interest,
                began: Instant::now(),
                roster: None,
                found: None,
                owner: None,
                balanced: None,
                took: Duration::ZERO,
                calls: Vec::new(),
            })
        }))
    }

    /// Asks the policies, with their reasons where those are wanted of this connection alone, and notes how
    /// long it took.
    pub fn time(&mut self, question: &'static str, ask: impl FnOnce(bool) -> Answer) -> Answer {
        let Some(draft) = &mut self.0 else { return ask(false) };
        let began = Instant::now();
        let answer = ask(draft.interest.is_sampled());
        let took = began.elapsed();
        draft.took += took;
        if draft.calls.len() < MOST_CALLS {
            draft.calls.push(Call { question, began, took, generation: answer.generation });
        }
        answer
    }

    pub fn found(&mut self, roster: &Roster, loads: &[u32], answer: &Answer) {
        if let Some(draft) = &mut self.0 {
            draft.roster = Some((roster.clone(), loads.to_vec()));
            draft.found = Some(answer.clone());
        }
    }

    /// `owner` is only asked for when somebody wants to know.
    pub fn owner(&mut self, owner: impl FnOnce() -> Option<WorkerId>) {
        if let Some(draft) = &mut self.0 {
            draft.owner = owner();
        }
    }

    pub fn balanced(&mut self, roster: &Roster, loads: &[u32], answer: &Answer) {
        if let Some(draft) = &mut self.0 {
            draft.roster = Some((roster.clone(), loads.to_vec()));
            draft.balanced = Some(answer.clone());
        }
    }

    /// The whole, unless nobody wants it. Where no policy was asked there is nothing to compare or to ask
    /// again, so only those who write lines are told.
    #[must_use]
    pub fn finish(self, request: &Request, outcome: Result<WorkerId, &Refusal>) -> Option<Observation> {
        let Draft { interest, began, roster, found, owner, balanced, took, calls } = *self.0?;
        let interest = if roster.is_some() { interest } else { interest.without_watchers() };
        if !interest.any() {
            return None;
        }
        let (roster, loads) = roster.unwrap_or_else(|| (Roster::default(), Vec::new()));
        let (request, outcome) = (request.clone(), outcome.map_err(Clone::clone));
        let routing = Routing {
            request,
            roster,
            loads,
            found,
            owner,
            balanced,
            outcome,
            took,
            began,
            calls,
            by_hand: false,
        };
        Some(Observation { at: Instant::now(), interest, what: What::Routed(Box::new(routing)) })
    }
}

impl Observation {
    /// A routing that was asked for by hand.
    #[must_use]
    pub fn routed(routing: Routing) -> Self {
        Self { at: Instant::now(), interest: Interest::of_watchers(), what: What::Routed(Box::new(routing)) }
    }

    /// Where a connection went in the end, when that is not where it was to go.
    pub fn went(&mut self, outcome: Result<WorkerId, &Refusal>) {
        if let What::Routed(routing) = &mut self.what {
            routing.outcome = outcome.map_err(Clone::clone);
        }
    }

    /// Something that policies are told.
    #[must_use]
    pub fn event(event: crate::policy::Event<'_>) -> Self {
        use crate::policy::Event;
        let what = match event {
            Event::SessionOpened { sid, worker } => What::SessionOpened { sid: sid.into(), worker },
            Event::SessionClosed { sid, worker } => What::SessionClosed { sid: sid.into(), worker },
            Event::WorkerFailed { worker } => What::WorkerFailed { worker },
        };
        Self { at: Instant::now(), interest: Interest::of_watchers(), what }
    }
}
