//! What the pipeline asks: a component first, a native policy last, an answer always.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::counts::Counts;
use super::engine::Engine;
use super::instance::{Question, Surroundings};
use super::load::{self, LoadError, LoadProblem};
use super::native::NativeLink;
use super::slot::{Reply, Slot};
use super::{BuiltIn, Digest, Event, PolicySource, Request, SessionOwner, Settings, lock};
use crate::types::{Decision, Roster};

/// Policies asked in order until one does not defer; the last is native and always answers.
///
/// Shared by reference between the pipeline's threads. A call takes as long as the policy computes,
/// under a mutex, and never blocks on anything else.
pub struct Chain {
    component: Option<ComponentLink>,
    native: Mutex<NativeLink>,
    listening: AtomicBool,
}

struct ComponentLink {
    slot: Slot,
    around: Surroundings,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub decision: Decision,
    /// The policy version that was live.
    pub generation: u64,
    /// Who decided. A [`Decision::Defer`] of the native link to `find` means that no policy looked,
    /// so the session table is to be asked.
    pub link: LinkName,
    /// Why, in the policy's or the host's words; only kept while somebody
    /// [listens](Chain::listen).
    pub explanation: Option<String>,
}

/// A link of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkName {
    Component,
    Native,
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Native => "native",
        })
    }
}

/// A chain in words and numbers, for the start-up summary and the admin interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    pub generation: u64,
    /// Of the policy file; none when the chain is native from the start.
    pub digest: Option<Digest>,
    /// Optional interfaces the policy exports.
    pub interfaces: Vec<&'static str>,
    /// False once the policy was taken out of service.
    pub in_service: bool,
    /// The native last link.
    pub fallback: BuiltIn,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, generation, digest, interfaces, in_service, fallback } = self;
        let Some(digest) = digest else { return write!(f, "{name} (native)") };
        write!(f, "{name} (component {digest}, generation {generation}")?;
        if !interfaces.is_empty() {
            write!(f, ", with {}", interfaces.join(", "))?;
        }
        if !in_service {
            f.write_str(", out of service")?;
        }
        write!(f, "), then {fallback} (native)")
    }
}

impl Chain {
    /// Compiles the policy, checks it against the contract, configures it, and tries it out.
    ///
    /// # Errors
    /// One line that says what is wrong with the policy.
    pub fn load(
        source: &PolicySource,
        settings: &Settings,
        sessions: Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadError> {
        Self::build(source, settings, sessions)
            .map_err(|problem| LoadError { policy: source.to_string(), problem })
    }

    fn build(
        source: &PolicySource,
        settings: &Settings,
        sessions: Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadProblem> {
        let (twin, options) = match (source, settings.fallback) {
            (PolicySource::Native(known), _) | (PolicySource::BuiltIn(known), None) => {
                (*known, settings.options.as_str())
            }
            // The options are meant for another policy.
            (_, fallback) => (fallback.unwrap_or(BuiltIn::LeastConnection), "{}"),
        };
        let native = NativeLink::new(twin, options).map_err(LoadProblem::Options)?;
        let component = if let PolicySource::Native(_) = source {
            None
        } else {
            let engine = Engine::new().map_err(LoadProblem::Engine)?;
            let (options, limits) = (settings.options.clone(), settings.limits);
            let around = Surroundings { engine, sessions, options, limits };
            let (version, instance) = load::load(source, &around)?;
            Some(ComponentLink { slot: Slot::new(version, instance), around })
        };
        Ok(Self { component, native: Mutex::new(native), listening: AtomicBool::new(false) })
    }

    /// Chooses a worker for a connection whose session is new or absent. Without workers the answer
    /// is [`Decision::Defer`].
    ///
    /// `loads` holds one number per worker of the roster. `request` comes back as it was.
    pub fn balance(&self, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        debug_assert_eq!(loads.len(), roster.workers.len(), "one load per worker");
        if roster.workers.is_empty() {
            return self.nobody(Reply::default());
        }
        let reply = match &self.component {
            Some(link) => link.ask(Question::Balance, roster, loads, request, self.is_listening()),
            None => Reply::default(),
        };
        match reply.decision {
            Some(decision) if decision != Decision::Defer => Answer {
                decision,
                generation: reply.generation,
                link: LinkName::Component,
                explanation: reply.explanation,
            },
            _ => Answer { decision: lock(&self.native).balance(roster, loads), ..self.nobody(reply) },
        }
    }

    /// Asks a policy that keeps its own books for the worker of session `sid`. Any other defers at
    /// once and at no cost.
    pub fn find(&self, sid: &str, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        let link = match &self.component {
            Some(link) if link.slot.has_sessions() && !roster.workers.is_empty() => link,
            _ => return self.nobody(Reply::default()),
        };
        let reply = link.ask(Question::Find(sid), roster, loads, request, self.is_listening());
        match reply.decision {
            Some(decision) => Answer {
                decision,
                generation: reply.generation,
                link: LinkName::Component,
                explanation: reply.explanation,
            },
            None => self.nobody(reply),
        }
    }

    /// Tells a policy that exports `events` what happened.
    pub fn notice(&self, event: Event<'_>) {
        if let Some(link) = &self.component {
            link.slot.notice(&link.around, event);
        }
    }

    /// Turns the keeping of explanations on or off. Off at first, since a text costs more than most
    /// decisions.
    pub fn listen(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.component.as_ref().map(|link| link.slot.counts()).unwrap_or_default();
        counts.native_calls = lock(&self.native).calls;
        counts
    }

    #[must_use]
    pub fn describe(&self) -> Description {
        let fallback = lock(&self.native).built_in();
        match &self.component {
            Some(ComponentLink { slot, .. }) => {
                let (name, digest, interfaces) = slot.describe();
                Description {
                    name,
                    generation: slot.generation(),
                    digest: Some(digest),
                    interfaces,
                    in_service: slot.in_service(),
                    fallback,
                }
            }
            None => Description {
                name: fallback.name().to_owned(),
                generation: 1,
                digest: None,
                interfaces: vec![],
                in_service: true,
                fallback,
            },
        }
    }

    /// The answer of a policy by itself, without the rest of the chain; none when it failed. For
    /// test vectors.
    pub(super) fn first(&self, roster: &Roster, loads: &[u32]) -> Option<Decision> {
        match &self.component {
            Some(link) => link.ask(Question::Balance, roster, loads, &mut Request::default(), false).decision,
            None => Some(lock(&self.native).balance(roster, loads)),
        }
    }

    /// Starts a new instance of the first link, with the state of the old one. For test vectors.
    pub(super) fn renew(&self, roster: &Roster) -> Result<(), String> {
        match &self.component {
            Some(link) => link.slot.renew().map_err(|fault| fault.to_string()),
            None => lock(&self.native).renew(roster),
        }
    }

    /// Starts a new instance of the first link that remembers nothing. For test vectors.
    pub(super) fn reset(&self) -> Result<(), String> {
        match &self.component {
            Some(link) => {
                link.slot.reset();
                Ok(())
            }
            None => lock(&self.native).reset(),
        }
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Nobody has decided yet.
    fn nobody(&self, reply: Reply) -> Answer {
        let generation = match (reply.generation, &self.component) {
            (0, Some(link)) => link.slot.generation(),
            (0, None) => 1,
            (generation, _) => generation,
        };
        Answer {
            decision: Decision::Defer,
            generation,
            link: LinkName::Native,
            explanation: reply.explanation,
        }
    }
}

impl ComponentLink {
    fn ask(
        &self,
        question: Question<'_>,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
        listening: bool,
    ) -> Reply {
        self.slot.ask(&self.around, question, roster, loads, request, listening)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.describe()).finish()
    }
}
