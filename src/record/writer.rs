//! Observations into lines.

use std::fmt::Write as _;
use std::io;
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::format::{
    Beginning, Closed, Decision, Failed, Gap, Link, Opened, Roster, Said, Step, VERSION, Worker,
};
use super::mask::{Form, Keep, Mask};
use crate::observe::{Heard, Observation, Routing, What};
use crate::policy::{BuiltIn, LinkName, LinkState, PolicySource, States};
use crate::session::SessionKey;
use crate::types;

/// Makes the lines of one recording. Each call appends whole lines.
#[derive(Debug)]
pub struct Writer {
    mask: Mask,
    began: Instant,
    /// The version of the roster written last.
    roster: Option<u64>,
    /// Write what every link said.
    steps: bool,
    /// Write what clients have sent in headers.
    headers: bool,
    /// The links' names, in the order of the chain.
    links: Vec<String>,
    last: String,
}

impl Writer {
    /// A recording that begins now.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(form: Form, keep: Vec<Keep>, steps: bool, session_key: SessionKey) -> io::Result<Self> {
        let mask = Mask::new(form, keep, session_key)?;
        Ok(Self {
            mask,
            began: Instant::now(),
            roster: None,
            steps,
            headers: true,
            links: Vec::new(),
            last: String::new(),
        })
    }

    /// For somebody who has no use for headers.
    pub fn leave_headers_out(&mut self) {
        self.headers = false;
    }

    /// One whose decisions go elsewhere, as the access log's do.
    #[must_use]
    pub fn of_decisions(mask: Mask) -> Self {
        let (links, last) = (Vec::new(), String::new());
        Self { mask, began: Instant::now(), roster: None, steps: false, headers: true, links, last }
    }

    /// The first line, and the roster as it is.
    pub fn begin(
        &mut self,
        out: &mut String,
        states: &States,
        roster: &types::Roster,
        session_key: &SessionKey,
        keep: Vec<String>,
    ) {
        self.links = states.links.iter().map(|link| link.name.clone()).collect();
        self.last.clone_from(&states.last.name);
        let form = if self.mask.is_full() { "full" } else { "hashed" };
        let beginning = Beginning {
            sidetrack: VERSION.to_owned(),
            began: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            session_key: session_key.to_string(),
            form: form.to_owned(),
            keep,
            chain: states.links.iter().map(|link| self.link(link)).collect(),
            last: self.link(&states.last),
        };
        line(out, &beginning);
        self.roster(out, 0, roster);
    }

    /// What was heard.
    pub fn write(&mut self, out: &mut String, heard: &Heard) {
        match heard {
            Heard::Observation(observation) => self.observation(out, observation),
            Heard::Missed(gap) => line(out, &Gap { t: self.time(Instant::now()), gap: *gap }),
        }
    }

    fn observation(&mut self, out: &mut String, Observation { at, what, .. }: &Observation) {
        let t = self.time(*at);
        match what {
            What::Routed(routing) => {
                self.roster(out, t, &routing.roster);
                line(out, &self.decision(t, routing));
            }
            What::SessionOpened { sid, worker } => {
                line(out, &Opened { t, open: self.mask.sid(sid), w: worker.0 });
            }
            What::SessionClosed { sid, worker } => {
                line(out, &Closed { t, close: self.mask.sid(sid), w: worker.0 });
            }
            What::WorkerFailed { worker } => line(out, &Failed { t, failed: worker.0 }),
        }
    }

    fn roster(&mut self, out: &mut String, t: u64, roster: &types::Roster) {
        if self.meet(roster) {
            line(out, &Roster { t, roster: roster.workers.iter().map(Worker::from).collect() });
        }
    }

    /// Gets to know the workers of a roster. False when it does already.
    pub fn meet(&mut self, roster: &types::Roster) -> bool {
        let new = self.roster.replace(roster.version) != Some(roster.version);
        if new {
            for worker in roster.workers.iter() {
                self.mask.worker(&worker.name);
            }
        }
        new
    }

    /// A decision as it is to be told.
    #[must_use]
    pub fn decision(&self, t: u64, routing: &Routing) -> Decision {
        let masked = self.mask.request(&routing.request);
        let decisive = routing.decisive();
        let words = |text: &String| masked.words(text);
        let steps = |answer: &crate::policy::Answer| {
            let step = |step: &crate::policy::Step| Step {
                link: step.link.clone(),
                generation: Some(step.generation).filter(|&generation| generation > 0),
                said: step.decision.as_ref().map(Said::from),
                why: step.explanation.as_ref().map(words),
            };
            answer.steps.iter().map(step).collect::<Vec<_>>()
        };
        let said = [&routing.found, &routing.balanced]
            .map(|answer| answer.as_ref().filter(|_| self.steps).map(steps).unwrap_or_default());
        Decision {
            t,
            method: routing.request.head.method().to_owned(),
            attempt: routing.request.attempt,
            loads: routing.loads.clone(),
            owner: routing.owner.map(|worker| worker.0),
            found: routing.found.as_ref().map(|answer| (&answer.decision).into()),
            balanced: routing.balanced.as_ref().map(|answer| (&answer.decision).into()),
            worker: routing.outcome.as_ref().ok().map(|worker| worker.0),
            refused: routing.outcome.as_ref().err().map(Into::into),
            link: decisive.map(|answer| match answer.link {
                LinkName::Link(place) => self.links.get(place).unwrap_or(&self.last).clone(),
                LinkName::Last => self.last.clone(),
            }),
            generation: decisive
                .filter(|answer| answer.link != LinkName::Last)
                .map(|answer| answer.generation),
            took: Some(u64::try_from(routing.took.as_nanos()).unwrap_or(u64::MAX)),
            why: decisive.and_then(|answer| answer.explanation.as_ref()).map(words),
            hand: routing.by_hand,
            steps: said.concat(),
            target: masked.target,
            headers: if self.headers { masked.headers } else { Vec::new() },
            peer: masked.peer,
            session: masked.session,
        }
    }

    /// What a policy of somebody's own remembers may be anything, people included.
    fn link(&self, state: &LinkState) -> Link {
        let LinkState { name, policy, options, generation, digest, form, state } = state;
        let harmless = self.mask.is_full()
            || matches!(policy.parse(), Ok(PolicySource::BuiltIn(_) | PolicySource::Native(_)))
            || digest.as_ref().is_some_and(|digest| built_in(digest));
        Link {
            link: name.clone(),
            policy: policy.clone(),
            options: Some(options.clone()).filter(|options| options != "{}"),
            generation: *generation,
            digest: digest.clone(),
            form: form.clone(),
            state: state.as_ref().filter(|_| harmless).map(|state| STANDARD.encode(state)),
        }
    }

    fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

fn built_in(digest: &str) -> bool {
    BuiltIn::ALL.iter().any(|known| format!("{:#}", crate::policy::Digest::of(known.wasm())) == digest)
}

fn line(out: &mut String, value: &impl serde::Serialize) {
    // Nothing here has a map with other keys than texts, the only thing that cannot be written.
    if let Ok(text) = serde_json::to_string(value) {
        let _ = writeln!(out, "{text}");
    }
}
