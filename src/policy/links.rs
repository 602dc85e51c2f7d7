//! The links of a chain: made at start, and made anew with as much of what was there as fits.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::cache::Cache;
use super::counts::Counts;
use super::engine::Engine;
use super::instance::{Instance, Question, Surroundings};
use super::load::{self, LoadError, LoadProblem};
use super::native::NativeLink;
use super::slot::{self, Asked, Reply, Slot};
use super::store::Store;
use super::swap::{LinkStatus, SwapError, SwapProblem};
use super::version::Version;
use super::{BuiltIn, PolicyLink, PolicySource, Request, SessionOwner, Settings, lock};

/// All links, and what they were made from.
pub(super) struct Links {
    pub(super) links: Vec<Link>,
    /// The native one behind all others.
    pub(super) last: Arc<Mutex<NativeLink>>,
    pub(super) settings: Settings,
    /// What each link was configured as, in their order.
    pub(super) configured: Vec<PolicyLink>,
    /// Numbers the versions of the whole chain.
    pub(super) generations: Arc<AtomicU64>,
    pub(super) shared: Option<(Arc<Engine>, Arc<Cache>)>,
}

#[derive(Clone)]
pub(super) enum Link {
    Component(Arc<Slot>),
    /// For measuring what a component costs.
    Native {
        name: String,
        twin: Arc<Mutex<NativeLink>>,
    },
}

/// Another set of links, loaded and tried.
pub struct Prepared {
    links: Links,
    /// Links that stay and get another version: other options for the same policy.
    changed: Vec<Changed>,
    /// New links, and those whose place they take.
    follows: Vec<(Arc<Slot>, Arc<Slot>)>,
}

struct Changed {
    slot: Arc<Slot>,
    version: Arc<Version>,
    instance: Instance,
}

impl Links {
    /// Nothing was there before.
    pub(super) fn build(
        links: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadError> {
        let (_, known, options) = split(links, settings);
        let last =
            Arc::new(Mutex::new(native(known, options).map_err(|problem| not_loaded(&known, problem))?));
        let before = Self {
            links: Vec::new(),
            last,
            settings: settings.clone(),
            configured: Vec::new(),
            generations: Arc::default(),
            shared: None,
        };
        Prepared::load(&before, links, settings, sessions).map(|prepared| prepared.links)
    }

    /// The engine and the cache of all links.
    fn shared(&mut self) -> Result<(Arc<Engine>, Arc<Cache>), LoadProblem> {
        if let Some(both) = &self.shared {
            return Ok(both.clone());
        }
        let engine = Engine::new().map_err(LoadProblem::Engine)?;
        let cache = if self.settings.cache { Cache::open() } else { Cache::none() };
        Ok(self.shared.insert((Arc::new(engine), Arc::new(cache))).clone())
    }

    /// What a link is made with.
    pub(super) fn around(
        &mut self,
        sessions: &Arc<dyn SessionOwner>,
        store: Arc<Mutex<Store>>,
    ) -> Result<Surroundings, LoadProblem> {
        let (engine, cache) = self.shared()?;
        let Settings { clock, limits, role, .. } = &self.settings;
        let (sessions, clock, limits, role) = (Arc::clone(sessions), clock.clone(), *limits, *role);
        Ok(Surroundings { engine, cache, sessions, store, clock, limits, role })
    }
}

impl Prepared {
    /// Loads what is new; what is the same stays in service. With other limits everything is made anew.
    pub(super) fn load(
        before: &Links,
        wanted: &[PolicyLink],
        settings: &Settings,
        sessions: &Arc<dyn SessionOwner>,
    ) -> Result<Self, LoadError> {
        let (wanted, known, options) = split(wanted, settings);
        let last = {
            let last = lock(&before.last);
            (last.built_in() == known && last.options() == options).then(|| Arc::clone(&before.last))
        };
        let last = match last {
            Some(last) => last,
            None => {
                let twin = native(known, options).map_err(|problem| not_loaded(&known, problem))?;
                Arc::new(Mutex::new(twin))
            }
        };
        let same_limits =
            before.settings.limits == settings.limits && before.settings.cache == settings.cache;
        let mut links = Links {
            links: Vec::with_capacity(wanted.len()),
            last,
            settings: settings.clone(),
            configured: wanted.to_vec(),
            generations: Arc::clone(&before.generations),
            shared: before.shared.clone().filter(|_| same_limits),
        };
        let places = places(&before.configured, wanted);
        let kept = wanted.iter().zip(&places).filter_map(|(link, old)| {
            let old = (*old)?;
            (before.configured[old].source == link.source).then(|| before.links[old].name().to_owned())
        });
        let kept: Vec<String> = kept.collect();
        let (mut changed, mut follows) = (Vec::new(), Vec::new());
        for (place, link) in wanted.iter().enumerate() {
            let problem = |problem| LoadError { policy: link.source.to_string(), problem };
            let old =
                places[place].and_then(|old| Some((before.links.get(old)?, before.configured.get(old)?)));
            if let Some((old, configured)) = old
                && same_limits
                && configured == link
            {
                links.links.push(old.clone());
                continue;
            }
            let same_source = old.is_some_and(|(_, configured)| configured.source == link.source);
            let name = match old {
                Some((old, _)) if same_source => old.name().to_owned(),
                _ => free_name(link.source.name(), &links.links, &kept),
            };
            if let PolicySource::Native(known) = link.source {
                let twin = native(known, &link.options).map_err(problem)?;
                links.links.push(Link::Native { name, twin: Arc::new(Mutex::new(twin)) });
                continue;
            }
            let old = match old {
                Some((Link::Component(slot), _)) => Some(slot),
                _ => None,
            };
            let read = load::read(link).map_err(problem)?;
            match old {
                Some(slot) if same_source && same_limits => {
                    let (version, instance) = load::load(read, slot.around()).map_err(problem)?;
                    changed.push(Changed { slot: Arc::clone(slot), version, instance });
                    links.links.push(Link::Component(Arc::clone(slot)));
                }
                _ => {
                    // What a policy has stored is its own, whatever its limits.
                    let store = old.filter(|_| same_source).map(|slot| Arc::clone(&slot.around().store));
                    let around = links.around(sessions, store.unwrap_or_default()).map_err(problem)?;
                    let (version, instance) = load::load(read, &around).map_err(problem)?;
                    let generations = Arc::clone(&links.generations);
                    let generation = slot::next(&generations);
                    let slot = Slot::new(name, around, version, instance, generations, generation);
                    let slot = Arc::new(slot);
                    follows.extend(old.map(|old| (Arc::clone(&slot), Arc::clone(old))));
                    links.links.push(Link::Component(slot));
                }
            }
        }
        Ok(Self { links, changed, follows })
    }

    /// Puts other versions in their places, and hands states over.
    pub(super) fn take_over(self) -> Result<Links, SwapError> {
        let Self { links, changed, follows } = self;
        let trial = links.settings.trial;
        let mut done: Vec<Arc<Slot>> = Vec::new();
        for Changed { slot, version, instance } in changed {
            let with_state = slot.exchange(Arc::clone(&version), instance, false, trial);
            let taken = match with_state {
                Err(SwapProblem::Form { .. } | SwapProblem::State(_)) => {
                    tracing::warn!(
                        link = slot.name(),
                        "the policy does not take its state over to the new options, and begins without"
                    );
                    let fuel = slot.around().limits.setup_fuel;
                    let fresh = Instance::start(&version, slot.around(), fuel);
                    fresh
                        .map_err(LoadProblem::from)
                        .map_err(|problem| SwapError::Load(not_loaded(&version.link.source, problem)))
                        .and_then(|instance| {
                            slot.exchange(Arc::clone(&version), instance, true, trial)
                                .map_err(|problem| refused(&slot, &version, problem))
                        })
                }
                taken => taken.map_err(|problem| refused(&slot, &version, problem)),
            };
            if let Err(error) = taken {
                for slot in done {
                    slot.roll_back();
                }
                return Err(error);
            }
            done.push(slot);
        }
        for (slot, old) in follows {
            slot.adopt(&old.state());
        }
        Ok(links)
    }
}

fn refused(slot: &Slot, version: &Version, problem: SwapProblem) -> SwapError {
    let kept = format!("generation {} ({})", slot.generation(), slot.link().source);
    SwapError::Problem { policy: version.link.source.to_string(), problem, kept }
}

/// The links that are asked as they are, and the native one behind them. A policy at the end that always
/// answers has its own twin there; a native one is that last link itself.
pub(super) fn split<'a>(
    links: &'a [PolicyLink],
    settings: &Settings,
) -> (&'a [PolicyLink], BuiltIn, &'a str) {
    let fallback = settings.fallback.unwrap_or(BuiltIn::LeastConnection);
    match links.split_last() {
        Some((PolicyLink { source: PolicySource::Native(known), options }, before))
            if known.always_answers() && settings.fallback.is_none() =>
        {
            (before, *known, options)
        }
        Some((PolicyLink { source: PolicySource::BuiltIn(known), options }, _))
            if known.always_answers() && settings.fallback.is_none() =>
        {
            (links, *known, options)
        }
        _ => (links, fallback, "{}"),
    }
}

/// Which link before each link follows: the same one, else one of the same policy, else the one in its
/// place. No link is followed twice.
fn places(before: &[PolicyLink], wanted: &[PolicyLink]) -> Vec<Option<usize>> {
    let mut free: Vec<bool> = vec![true; before.len()];
    let mut places = vec![None; wanted.len()];
    let fits: [&dyn Fn(usize, usize) -> bool; 3] = [
        &|old, new| before[old] == wanted[new],
        &|old, new| before[old].source == wanted[new].source,
        &|old, new| old == new,
    ];
    for fits in fits {
        for (new, place) in places.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            *place = (0..before.len()).find(|old| free[*old] && fits(*old, new));
            if let Some(old) = *place {
                free[old] = false;
            }
        }
    }
    places
}

pub(super) fn native(known: BuiltIn, options: &str) -> Result<NativeLink, LoadProblem> {
    NativeLink::new(known, options).map_err(LoadProblem::Options)
}

pub(super) fn not_loaded(policy: &impl ToString, problem: LoadProblem) -> LoadError {
    LoadError { policy: policy.to_string(), problem }
}

/// A name no other link has.
pub(super) fn free_name(name: String, links: &[Link], others: &[String]) -> String {
    let taken =
        |name: &str| links.iter().any(|link| link.name() == name) || others.iter().any(|other| other == name);
    if !taken(&name) {
        return name;
    }
    (2..).map(|number| format!("{name}-{number}")).find(|name| !taken(name)).unwrap_or(name)
}

impl Link {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Component(slot) => slot.name(),
            Self::Native { name, .. } => name,
        }
    }

    /// None when it has nothing to say to such questions.
    pub(super) fn ask(&self, asked: &Asked<'_>, request: &mut Request) -> Option<Reply> {
        match self {
            Self::Component(slot) => {
                let concerned = matches!(asked.question, Question::Balance) || slot.has_sessions();
                concerned.then(|| slot.ask(asked, request))
            }
            Self::Native { twin, .. } => {
                let decision = lock(twin).ask(asked.question, asked.roster, asked.loads, request);
                Some(Reply { decision: Some(decision), generation: 0, explanation: None })
            }
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        match self {
            Self::Component(slot) => slot.status(),
            Self::Native { name, twin } => {
                let twin = lock(twin);
                LinkStatus {
                    name: name.clone(),
                    policy: format!("native:{}", twin.built_in()),
                    script: false,
                    options: twin.options().to_owned(),
                    generation: 0,
                    digest: None,
                    interfaces: vec![],
                    in_service: true,
                    since: SystemTime::UNIX_EPOCH,
                    trial: None,
                    counts: Counts { native_calls: twin.calls, ..Counts::default() },
                    versions: vec![],
                    stored: (0, 0),
                    history: vec![],
                }
            }
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.configured).finish()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Prepared").field(&self.links).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_follows_itself_before_its_like_and_its_like_before_its_place() {
        let links =
            |texts: &[&str]| -> Vec<PolicyLink> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let places = |before: &[&str], wanted: &[&str]| places(&links(before), &links(wanted));
        assert_eq!(places(&["random"], &["random"]), [Some(0)]);
        assert_eq!(places(&["random"], &["sticky-cookie", "random"]), [None, Some(0)]);
        let other = r#"hash{"key":"path"}"#;
        assert_eq!(places(&["hash", other], &[other, "hash{}", "random"]), [Some(1), Some(0), None]);
        assert_eq!(places(&["random"], &["weighted"]), [Some(0)]);
        assert_eq!(places(&["hash", "random"], &[r#"hash{"key":"query:a"}"#]), [Some(0)]);
    }
}
