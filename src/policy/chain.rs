//! What the pipeline asks: components in order, a native policy last, an answer always.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::counts::Counts;
use super::instance::Question;
use super::links::{Link, Links, Prepared};
use super::load::{self, LoadError, LoadProblem, Read};
use super::slot::{Asked, Slot};
use super::swap::{LinkStatus, Replacement, SwapError, SwapProblem, Swapped};
use super::{BuiltIn, Event, PolicyLink, PolicySource, Request, SessionOwner, Settings, States, lock};
use crate::live::Live;
use crate::types::{Decision, Roster};

/// Policies asked in order until one does not defer; the last is native and always answers.
///
/// Shared by reference between the pipeline's threads. A call takes as long as the policies compute,
/// under a mutex for each, and never blocks on anything else. Each link's version can be replaced at
/// any time, and so can the chain.
pub struct Chain {
    pub(super) links: Live<Links>,
    pub(super) listening: AtomicBool,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub decision: Decision,
    /// The version that decided: of the link that answered, or of the first when the last one did.
    pub generation: u64,
    /// Who decided. A [`Decision::Defer`] of the last link to `find` means that no policy looked, so
    /// the session table is to be asked.
    pub link: LinkName,
    /// Why, in the deciding policy's or the host's words; only kept while somebody
    /// [listens](Chain::listen).
    pub explanation: Option<String>,
    /// What each link said, in order; only kept while somebody listens.
    pub steps: Vec<Step>,
}

/// A link of the chain, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkName {
    Link(usize),
    /// The native one behind all others.
    Last,
}

/// One link's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub link: String,
    pub generation: u64,
    /// None when it failed or gave a bad answer.
    pub decision: Option<Decision>,
    pub explanation: Option<String>,
}

/// A chain in words and numbers, for the start-up summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub links: Vec<LinkStatus>,
    /// The native last link.
    pub fallback: BuiltIn,
    /// Decisions left to it.
    pub fallback_calls: u64,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for LinkStatus { name, script, generation, digest, interfaces, in_service, .. } in &self.links {
            let Some(digest) = digest else {
                write!(f, "{name} (native), then ")?;
                continue;
            };
            let kind = if *script { "script" } else { "component" };
            write!(f, "{name} ({kind} {digest}, generation {generation}")?;
            if !interfaces.is_empty() {
                write!(f, ", with {}", interfaces.join(", "))?;
            }
            if !in_service {
                f.write_str(", out of service")?;
            }
            f.write_str("), then ")?;
        }
        write!(f, "{} (native)", self.fallback)
    }
}

impl Chain {
    /// A chain of one policy without options.
    ///
    /// # Errors
    /// As [`Self::build`].
    #[allow(clippy::needless_pass_by_value, reason = "the chain keeps it")]
    pub fn load(
        source: &PolicySource,
        settings: &Settings,
        sessions: Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadError> {
        Self::build(&[PolicyLink::plain(source.clone())], settings, &sessions)
    }

    /// Compiles the policies, checks them against the contract, configures them, and tries them out.
    ///
    /// # Errors
    /// One line that says what is wrong with which policy.
    pub fn build(
        links: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadError> {
        let links = Links::build(links, settings, sessions)?;
        Ok(Self { links: Live::new(links), listening: AtomicBool::new(false) })
    }

    /// Loads and tries what a chain of other links, or with other settings, needs in addition. Takes as
    /// long as compiling does; nothing changes.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn prepare(
        &self,
        links: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
    ) -> Result<Prepared, LoadError> {
        Prepared::load(&self.links.now(), links, settings, sessions)
    }

    /// Goes on with what was prepared. Links that are the same go on as they are; the others take over
    /// what state they read.
    ///
    /// # Errors
    /// When a link does not take over after all; everything is as it was then.
    pub fn install(&self, prepared: Prepared) -> Result<(), SwapError> {
        self.links.set(prepared.take_over()?);
        Ok(())
    }

    /// Chooses a worker for a connection whose session is new or absent. Without workers the answer
    /// is [`Decision::Defer`].
    ///
    /// `loads` holds one number per worker of the roster. `request` comes back as it was.
    pub fn balance(&self, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        self.decide(roster, loads, request, self.is_listening())
    }

    /// What the first link says to `balance` by itself; none when it failed.
    pub fn balance_alone(&self, roster: &Roster, loads: &[u32], request: &mut Request) -> Option<Decision> {
        self.first(Question::Balance, roster, loads, request)
    }

    /// What the first link says to `find` by itself; none when it failed.
    pub fn find_alone(
        &self,
        sid: &str,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
    ) -> Option<Decision> {
        self.first(Question::Find(sid), roster, loads, request)
    }

    /// Whether the first link is still asked: one that faults too often is not.
    #[must_use]
    pub fn in_service(&self) -> bool {
        match self.links.now().links.first() {
            Some(Link::Component(slot)) => slot.in_service(),
            _ => true,
        }
    }

    /// What the first link runs, unless it is native.
    #[must_use]
    pub fn policy(&self) -> Option<PolicyLink> {
        match self.links.now().links.first() {
            Some(Link::Component(slot)) => Some(slot.link()),
            _ => None,
        }
    }

    /// The version of the first link.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.nobody().generation
    }

    /// What every link would pass on to a version after it.
    #[must_use]
    pub fn states(&self) -> States {
        let Links { links, last, .. } = &*self.links.now();
        let links = links.iter().map(|link| match link {
            Link::Component(slot) => slot.state(),
            Link::Native { name, twin } => lock(twin).state(name),
        });
        let links = links.collect();
        let mut last = lock(last);
        let name = last.built_in().name();
        States { links, last: last.state(name) }
    }

    /// Has the links begin with states from elsewhere: each that runs the same version, or says that it
    /// reads the form, takes what the link in its place had. The names of those that did.
    pub fn adopt(&self, states: &States) -> Vec<String> {
        let Links { links, last, .. } = &*self.links.now();
        let pairs = links.iter().zip(&states.links);
        let mut adopted: Vec<String> = pairs
            .filter(|(link, state)| match link {
                Link::Component(slot) => slot.adopt(state),
                Link::Native { twin, .. } => lock(twin).adopt(state),
            })
            .map(|(link, _)| link.name().to_owned())
            .collect();
        let mut last = lock(last);
        if last.adopt(&states.last) {
            adopted.push(last.built_in().to_string());
        }
        adopted
    }

    /// What [`Self::find`] answers, with every link's reasons. The policies are really asked.
    pub fn explain_find(&self, sid: &str, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        self.look(sid, roster, loads, request, true)
    }

    /// What [`Self::balance`] answers, with every link's reasons. The policies are really asked.
    pub fn explain(&self, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        self.decide(roster, loads, request, true)
    }

    fn decide(&self, roster: &Roster, loads: &[u32], request: &mut Request, listening: bool) -> Answer {
        debug_assert_eq!(loads.len(), roster.workers.len(), "one load per worker");
        if roster.workers.is_empty() {
            return self.nobody();
        }
        let asked = Asked { question: Question::Balance, roster, loads, listening };
        let mut answer = self.ask(&asked, request);
        if answer.decision == Decision::Defer {
            let links = self.links.now();
            let mut last = lock(&links.last);
            let decision = last.balance(roster, loads);
            if listening {
                let (link, decision) = (last.built_in().to_string(), Some(decision.clone()));
                answer.steps.push(Step { link, generation: 0, decision, explanation: None });
            }
            answer = Answer { decision, link: LinkName::Last, ..answer };
        }
        answer
    }

    /// Asks policies that keep their own books for the worker of session `sid`. Any other defers at
    /// once and at no cost.
    pub fn find(&self, sid: &str, roster: &Roster, loads: &[u32], request: &mut Request) -> Answer {
        self.look(sid, roster, loads, request, self.is_listening())
    }

    fn look(
        &self,
        sid: &str,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
        listening: bool,
    ) -> Answer {
        if roster.workers.is_empty() {
            return self.nobody();
        }
        self.ask(&Asked { question: Question::Find(sid), roster, loads, listening }, request)
    }

    /// Asks one link after another until one decides. A [`Decision::Defer`] is the last answer there
    /// was, or of the last link when nobody could be asked.
    fn ask(&self, asked: &Asked<'_>, request: &mut Request) -> Answer {
        let mut answer = self.nobody();
        for (place, link) in self.links.now().links.iter().enumerate() {
            let Some(reply) = link.ask(asked, request) else { continue };
            if place == 0 && reply.generation > 0 {
                answer.generation = reply.generation;
            }
            if asked.listening {
                answer.steps.push(Step {
                    link: link.name().to_owned(),
                    generation: reply.generation,
                    decision: reply.decision.clone(),
                    explanation: reply.explanation.clone(),
                });
            }
            answer.explanation = reply.explanation.or(answer.explanation);
            match reply.decision {
                None => {}
                Some(Decision::Defer) => answer.link = LinkName::Link(place),
                Some(decision) => {
                    answer.decision = decision;
                    answer.generation = reply.generation;
                    answer.link = LinkName::Link(place);
                    return answer;
                }
            }
        }
        answer
    }

    /// Tells the policies that export `events` what happened.
    pub fn notice(&self, event: Event<'_>) {
        for link in &self.links.now().links {
            if let Link::Component(slot) = link {
                slot.notice(event);
            }
        }
    }

    /// Turns the keeping of explanations on or off. Off at first, since a text costs more than most
    /// decisions.
    pub fn listen(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// Loads another version and puts it in the place of a link's, the first link's when none is
    /// named. Takes as long as compiling does; decisions go on meanwhile, and wait for microseconds at
    /// the end.
    ///
    /// # Errors
    /// One line that says why it was not taken. The version before stays, with its state.
    pub fn replace(&self, link: Option<&str>, replacement: &Replacement) -> Result<Swapped, SwapError> {
        let slot = self.slot(link)?;
        let Replacement { link, discard_state, forgive } = replacement;
        if let PolicySource::Native(_) = link.source {
            return Err(SwapError::Native(link.source.to_string()));
        }
        load::read(link)
            .map_err(|problem| not_loaded(link, problem))
            .and_then(|read| self.swap_in(&slot, read, *discard_state, *forgive))
            .inspect_err(|_| slot.refused())
    }

    /// Loads what was read and puts it in a link's place.
    fn swap_in(
        &self,
        slot: &Slot,
        read: Read,
        discard_state: bool,
        forgive: bool,
    ) -> Result<Swapped, SwapError> {
        let (policy, digest) = (read.link.source.to_string(), read.digest);
        let kept = || format!("generation {} ({})", slot.generation(), slot.link().source);
        let problem = |problem| SwapError::Problem { policy: policy.clone(), problem, kept: kept() };
        if !forgive && slot.was_quarantined(digest) {
            return Err(problem(SwapProblem::Quarantined(digest)));
        }
        let load_error = |problem| SwapError::Load(LoadError { policy: policy.clone(), problem });
        let (version, instance) = load::load(read, slot.around()).map_err(load_error)?;
        let swapped = slot
            .exchange(version, instance, discard_state, self.links.now().settings.trial)
            .map_err(problem)?;
        let Swapped { link, policy, digest, generation, state } = &swapped;
        tracing::info!(link, policy, %digest, generation, state = state.words(), "policy replaced");
        Ok(swapped)
    }

    /// Puts a link's version before back.
    ///
    /// # Errors
    /// When there is none.
    pub fn roll_back(&self, link: Option<&str>) -> Result<Swapped, SwapError> {
        let slot = self.slot(link)?;
        let swapped = slot.roll_back().ok_or_else(|| SwapError::NothingBefore(slot.name().to_owned()))?;
        let Swapped { link, policy, generation, .. } = &swapped;
        tracing::info!(link, policy, generation, "policy rolled back as asked");
        Ok(swapped)
    }

    /// Loads a link's file again. None when its content is that of the live version.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn reload(&self, link: &str) -> Result<Option<Swapped>, SwapError> {
        let slot = self.slot(Some(link))?;
        let link = slot.link();
        let read = load::read(&link).map_err(|problem| not_loaded(&link, problem));
        if read.as_ref().is_ok_and(|read| read.digest == slot.digest()) {
            return Ok(None);
        }
        read.and_then(|read| self.swap_in(&slot, read, false, false))
            .map(Some)
            .inspect_err(|_| slot.refused())
    }

    /// The links that come from files, by name.
    #[must_use]
    pub fn files(&self) -> Vec<(String, std::path::PathBuf)> {
        let file = |link: &Link| match link {
            Link::Component(slot) => match slot.link().source {
                PolicySource::File(path) => Some((slot.name().to_owned(), path)),
                _ => None,
            },
            Link::Native { .. } => None,
        };
        self.links.now().links.iter().filter_map(file).collect()
    }

    /// The link of that name, or the first one that can be replaced.
    fn slot(&self, wanted: Option<&str>) -> Result<Arc<Slot>, SwapError> {
        let Links { links, last, .. } = &*self.links.now();
        let found = match wanted {
            Some(name) => links.iter().find(|link| link.name() == name),
            None => links.iter().find(|link| matches!(link, Link::Component(_))).or_else(|| links.first()),
        };
        match found {
            Some(Link::Component(slot)) => Ok(Arc::clone(slot)),
            Some(Link::Native { name, .. }) => Err(SwapError::Native(name.clone())),
            None => {
                let links: Vec<_> = links.iter().map(Link::name).collect();
                let last = lock(last).built_in();
                let links = if links.is_empty() { format!("{last} (native)") } else { links.join(", ") };
                Err(SwapError::NoLink { wanted: wanted.unwrap_or("1").to_owned(), links })
            }
        }
    }

    /// All links' counters together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let Links { links, last, .. } = &*self.links.now();
        for link in links {
            match link {
                Link::Component(slot) => counts = counts.plus(slot.counts()),
                Link::Native { twin, .. } => counts.native_calls += lock(twin).calls,
            }
        }
        counts.native_calls += lock(last).calls;
        counts
    }

    #[must_use]
    pub fn describe(&self) -> Description {
        let Links { links, last, .. } = &*self.links.now();
        let links = links.iter().map(Link::status).collect();
        let last = lock(last);
        Description { links, fallback: last.built_in(), fallback_calls: last.calls }
    }

    /// The answer of the first policy by itself, without the rest of the chain; none when it failed.
    /// For test vectors.
    pub(super) fn first(
        &self,
        question: Question<'_>,
        roster: &Roster,
        loads: &[u32],
        request: &mut Request,
    ) -> Option<Decision> {
        let asked = Asked { question, roster, loads, listening: false };
        let Links { links, last, .. } = &*self.links.now();
        match links.first() {
            Some(link) => link.ask(&asked, request).map_or(Some(Decision::Defer), |reply| reply.decision),
            None => Some(lock(last).ask(question, roster, loads, request)),
        }
    }

    /// Starts a new instance of the first link, with the state of the old one. For test vectors.
    pub(super) fn renew(&self, roster: &Roster) -> Result<(), String> {
        let Links { links, last, .. } = &*self.links.now();
        match links.first() {
            Some(Link::Component(slot)) => slot.renew().map_err(|fault| fault.to_string()),
            Some(Link::Native { twin, .. }) => lock(twin).renew(roster),
            None => lock(last).renew(roster),
        }
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Nobody has decided yet.
    fn nobody(&self) -> Answer {
        let generation = match self.links.now().links.first() {
            Some(Link::Component(slot)) => slot.generation(),
            _ => 1,
        };
        Answer {
            decision: Decision::Defer,
            generation,
            link: LinkName::Last,
            explanation: None,
            steps: Vec::new(),
        }
    }
}

fn not_loaded(link: &PolicyLink, problem: LoadProblem) -> SwapError {
    SwapError::Load(LoadError { policy: link.source.to_string(), problem })
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.describe()).finish()
    }
}
