//! The questions of a recording, asked of other policies.
//!
//! Everything a policy can see comes from the recording: requests, rosters, sessions, the time. Random
//! numbers come from a generator with a given seed. So the same recording and the same policies give the
//! same outcome each time.

use std::collections::{HashMap, VecDeque};
use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sidetrack_policy::native::{Script, scripted};

use super::format::{self, Beginning, Decision, Entry, Link, Said};
use super::loads::Shifted;
use super::read::{LogError, Problem, Reader};
use super::report::{Change, Report};
use crate::observe::Latencies;
use crate::policy::{
    Chain, Clock, Event, Limits, LinkState, LoadError, PolicyLink, Role, SessionOwner, Settings, States, lock,
};
use crate::types::{self, Head, Request, Roster, WorkerId, WorkerInfo};

/// A session that is announced longer than this after a connection was not opened by it, in
/// microseconds.
const OPENS_WITHIN: u64 = 10_000_000;
/// Connections to one worker that may still open a session.
const OPENING: usize = 64;
/// Changes that are told one by one.
const TOLD: usize = 20;

/// Which loads policies are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loads {
    /// As they would have been with the replayed decisions.
    #[default]
    Follow,
    /// As they were.
    Recorded,
}

/// A replay that could not be.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Load(#[from] LoadError),
}

/// How to replay.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The policies to ask.
    pub chain: Vec<PolicyLink>,
    /// Compare with these policies, asked the same, rather than with what was recorded.
    pub against: Option<Vec<PolicyLink>>,
    pub loads: Loads,
    /// Of the random numbers.
    pub seed: u64,
    /// For a decision of the policies.
    pub limits: Limits,
    /// Keep compiled policies.
    pub cache: bool,
}

impl Replay {
    /// Asks the policies everything that the recording holds.
    ///
    /// # Errors
    /// When the recording is broken or a policy cannot be loaded.
    pub fn run<R: BufRead>(&self, mut log: Reader<R>) -> Result<Report, ReplayError> {
        let states = states(log.beginning())
            .map_err(|said| log.error(Problem::Entry(said)))
            .map_err(ReplayError::Log)?;
        let mut after = World::new(&self.chain, self, &states)?;
        let mut before = match &self.against {
            Some(chain) => Some(World::new(chain, self, &states)?),
            None => None,
        };
        let texts = |chain: &Vec<PolicyLink>| chain.iter().map(ToString::to_string).collect();
        let mut report = Report {
            beginning: log.beginning().clone(),
            chain: texts(&self.chain),
            against: self.against.as_ref().map(texts),
            ..Report::default()
        };
        let mut stage = Stage::default();
        while let Some(entry) = log.entry()? {
            report.time = Duration::from_micros(entry.time());
            match entry {
                Entry::Roster(new) => stage.follow(new.roster),
                Entry::Decision(decision) => {
                    let request =
                        request(&decision, &stage).map_err(|said| log.error(Problem::Entry(said)))?;
                    let to = after.decide(&decision, &stage, &request);
                    let from = match &mut before {
                        Some(world) => world.decide(&decision, &stage, &request),
                        None => Went::recorded(&decision),
                    };
                    if decision.hand {
                        continue;
                    }
                    report.latency.1.note(Duration::from_nanos(decision.took.unwrap_or(0)));
                    note(&mut report, &stage, &decision, from, to);
                }
                Entry::Opened(opened) => {
                    let to = after.opened(&opened);
                    let from = before.as_mut().map_or(Some(opened.w), |world| world.opened(&opened));
                    if let (Some(from), Some(to)) = (from, to) {
                        report.sessions.note(from != to);
                    }
                }
                Entry::Closed(closed) => {
                    for world in [Some(&mut after), before.as_mut()].into_iter().flatten() {
                        world.closed(&closed);
                    }
                }
                Entry::Failed(failed) => {
                    for world in [Some(&mut after), before.as_mut()].into_iter().flatten() {
                        world.failed(failed.failed);
                    }
                }
                Entry::Gap(gap) => report.lost += gap.gap,
                Entry::End(_) => {}
            }
        }
        report.cut = log.cut();
        report.adopted = after.adopted;
        report.counts = after.chain.counts();
        report.latency.0 = after.latency;
        report.spent = after.spent;
        Ok(report)
    }
}

/// What policies remembered when the recording began.
fn states(beginning: &Beginning) -> Result<States, String> {
    let state = |link: &Link| {
        let state = link.state.as_ref().map(|state| STANDARD.decode(state)).transpose();
        Ok::<_, String>(LinkState {
            name: link.link.clone(),
            policy: link.policy.clone(),
            options: link.options.clone().unwrap_or_else(|| "{}".to_owned()),
            generation: link.generation,
            digest: link.digest.clone(),
            form: link.form.clone(),
            state: state.map_err(|error| format!("the state of `{}` is not base64: {error}", link.link))?,
        })
    };
    let links = beginning.chain.iter().map(state).collect::<Result<_, _>>()?;
    Ok(States { links, last: state(&beginning.last)? })
}

/// The workers as they are at a moment of the recording.
#[derive(Debug)]
struct Stage {
    roster: Roster,
    ids: Vec<u32>,
    /// Of all workers so far.
    names: HashMap<u32, String>,
}

impl Default for Stage {
    fn default() -> Self {
        let roster = Roster { version: 0, workers: Arc::new([]) };
        Self { roster, ids: Vec::new(), names: HashMap::new() }
    }
}

impl Stage {
    fn follow(&mut self, workers: Vec<format::Worker>) {
        self.ids = workers.iter().map(|worker| worker.id).collect();
        self.names.extend(workers.iter().map(|worker| (worker.id, worker.name.clone())));
        let workers = workers.into_iter().map(WorkerInfo::from).collect();
        self.roster = Roster { version: self.roster.version + 1, workers };
    }

    fn name(&self, went: Went) -> String {
        match went {
            Went::Worker(id) => self.names.get(&id).cloned().unwrap_or_else(|| format!("worker {id}")),
            Went::Refused(status) => format!("refused {status}"),
        }
    }
}

fn request(decision: &Decision, stage: &Stage) -> Result<Request, String> {
    if decision.loads.len() != stage.ids.len() {
        return Err(format!(
            "{} loads (`l`) for the {} workers of the roster before it",
            decision.loads.len(),
            stage.ids.len()
        ));
    }
    let head = Head::compose(&decision.method, &decision.target, &decision.headers)
        .map_err(|text| format!("no request: {text:?}"))?;
    let peer = decision.peer.map(|ip| (ip, 0).into());
    Ok(Request { head, peer, session: decision.session.clone(), attempt: decision.attempt })
}

/// Where a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Worker(u32),
    Refused(u16),
}

impl Went {
    fn recorded(decision: &Decision) -> Self {
        match (decision.worker, &decision.refused) {
            (Some(worker), _) => Self::Worker(worker),
            (None, refused) => Self::Refused(refused.as_ref().map_or(503, |refused| refused.refuse)),
        }
    }
}

fn note(report: &mut Report, stage: &Stage, decision: &Decision, from: Went, to: Went) {
    let changed = from != to;
    let (before, after) = (stage.name(from), stage.name(to));
    if changed && report.changes.len() < TOLD {
        report.changes.push(Change {
            t: decision.t,
            target: decision.target.clone(),
            session: decision.session.clone(),
            from: before.clone(),
            to: after.clone(),
        });
    }
    if decision.balanced.is_none() {
        return report.known.note(changed);
    }
    report.new.note(changed);
    if decision.session.is_some() {
        // Named by its client, it begins here.
        report.sessions.note(changed);
    }
    report.spread.entry(before.clone()).or_default().before += 1;
    report.spread.entry(after.clone()).or_default().after += 1;
    *report.table.entry((before, after)).or_default() += 1;
}

/// Who has which session, for `session-owner`.
#[derive(Debug, Default)]
struct Owners(Mutex<HashMap<String, u32>>);

impl Owners {
    fn with<T>(&self, body: impl FnOnce(&mut HashMap<String, u32>) -> T) -> T {
        body(&mut lock(&self.0))
    }
}

impl SessionOwner for Owners {
    fn owner(&self, sid: &str) -> Option<WorkerId> {
        self.with(|owners| owners.get(sid).copied().map(WorkerId))
    }
}

/// Policies, and what has come of their decisions so far.
struct World {
    chain: Chain,
    clock: Clock,
    script: Script,
    owners: Arc<Owners>,
    loads: Option<Shifted>,
    /// By the worker that got them in the recording: when connections without a session came, and where
    /// they are in this world.
    opening: HashMap<u32, VecDeque<(u64, u32)>>,
    adopted: Vec<String>,
    latency: Latencies,
    spent: Duration,
}

impl World {
    fn new(links: &[PolicyLink], replay: &Replay, states: &States) -> Result<Self, LoadError> {
        let (owners, clock) = (Arc::<Owners>::default(), Clock::scripted());
        let settings = Settings {
            // Every fault counts, and none ends the service: when it would is a matter of time.
            limits: Limits { faults: usize::MAX, ..replay.limits },
            trial: Duration::ZERO,
            cache: replay.cache,
            clock: clock.clone(),
            role: Role::Shadow,
            ..Settings::default()
        };
        let owner: Arc<dyn SessionOwner> = Arc::clone(&owners) as _;
        let chain = Chain::build(links, &settings, &owner)?;
        let adopted = chain.adopt(states);
        Ok(Self {
            chain,
            clock,
            script: Script { seed: replay.seed, ..Script::default() },
            owners,
            loads: (replay.loads == Loads::Follow).then(Shifted::default),
            opening: HashMap::new(),
            adopted,
            latency: Latencies::default(),
            spent: Duration::ZERO,
        })
    }

    /// Where a connection would have gone.
    fn decide(&mut self, decision: &Decision, stage: &Stage, request: &Request) -> Went {
        let recorded = Went::recorded(decision);
        let loads = match &mut self.loads {
            Some(shifted) => shifted.follow(&stage.ids, &decision.loads),
            None => decision.loads.clone(),
        };
        let went = self.ask(decision, stage, &loads, &mut request.clone(), recorded);
        if let (Went::Worker(was), Went::Worker(is), false) = (recorded, went, decision.hand) {
            if let Some(shifted) = &mut self.loads {
                shifted.decided(was, is);
            }
            match &decision.session {
                Some(sid) => drop(self.owners.with(|owners| owners.insert(sid.clone(), is))),
                None => {
                    let opening = self.opening.entry(was).or_default();
                    opening.push_back((decision.t, is));
                    if opening.len() > OPENING {
                        opening.pop_front();
                    }
                }
            }
        }
        went
    }

    fn ask(
        &mut self,
        decision: &Decision,
        stage: &Stage,
        loads: &[u32],
        request: &mut Request,
        recorded: Went,
    ) -> Went {
        let roster = &stage.roster;
        let now = decision.t.saturating_mul(1000);
        if let Some(sid) = &decision.session {
            let owner = self.owners.with(|owners| match decision.owner {
                // Older than the recording, or gone unseen.
                Some(owner) => Some(*owners.entry(sid.clone()).or_insert(owner)),
                None => owners.get(sid).copied().filter(|_| decision.balanced.is_none()),
            });
            let said = self.time(now, |chain| chain.find(sid, roster, loads, request).decision);
            if let Some(went) = settled(&said, decision.found.as_ref(), recorded) {
                return went;
            }
            if let Some(owner) = owner {
                return Went::Worker(owner);
            }
        }
        let said = self.time(now, |chain| chain.balance(roster, loads, request).decision);
        settled(&said, decision.balanced.as_ref(), recorded).unwrap_or_else(|| {
            // All defer: as routing does, the least loaded.
            let least = stage.ids.iter().zip(loads).min_by_key(|(_, load)| **load);
            least.map_or(Went::Refused(503), |(id, _)| Went::Worker(*id))
        })
    }

    fn time<T>(&mut self, now: u64, ask: impl FnOnce(&Chain) -> T) -> T {
        self.clock.set(now);
        self.script.now = now;
        let (chain, script) = (&self.chain, std::mem::take(&mut self.script));
        let ((answer, took), script) = scripted(script, || {
            let began = Instant::now();
            let answer = ask(chain);
            (answer, began.elapsed())
        });
        self.script = script;
        self.latency.note(took);
        self.spent += took;
        answer
    }

    /// A worker announced a session. Where it is in this world, unless that was known.
    fn opened(&mut self, opened: &format::Opened) -> Option<u32> {
        let format::Opened { t, open: sid, w } = opened;
        let place = match self.owners.with(|owners| owners.get(sid).copied()) {
            Some(place) => (place, false),
            None => {
                let latest = self.opening.get_mut(w).and_then(VecDeque::pop_back);
                let place = latest.filter(|(then, _)| t.saturating_sub(*then) < OPENS_WITHIN);
                (place.map_or(*w, |(_, place)| place), true)
            }
        };
        let (place, new) = place;
        self.owners.with(|owners| owners.insert(sid.clone(), place));
        self.notice(*t, Event::SessionOpened { sid, worker: WorkerId(place) });
        new.then_some(place)
    }

    fn closed(&mut self, closed: &format::Closed) {
        let place = self.owners.with(|owners| owners.remove(&closed.close)).unwrap_or(closed.w);
        self.notice(closed.t, Event::SessionClosed { sid: &closed.close, worker: WorkerId(place) });
    }

    fn failed(&mut self, worker: u32) {
        self.owners.with(|owners| owners.retain(|_, owner| *owner != worker));
        self.opening.remove(&worker);
        if let Some(shifted) = &mut self.loads {
            shifted.failed(worker);
        }
        let now = self.script.now;
        self.notice(now / 1000, Event::WorkerFailed { worker: WorkerId(worker) });
    }

    fn notice(&mut self, t: u64, event: Event<'_>) {
        let now = t.saturating_mul(1000);
        self.clock.set(now);
        self.script.now = now;
        let (chain, script) = (&self.chain, std::mem::take(&mut self.script));
        self.script = scripted(script, || chain.notice(event)).1;
    }
}

/// Where a decision leads; none when it leaves it to others. The same words lead where they led, also
/// where routing had its reasons to do otherwise.
fn settled(said: &types::Decision, before: Option<&Said>, recorded: Went) -> Option<Went> {
    let same = before == Some(&Said::from(said));
    match said {
        types::Decision::Defer => None,
        _ if same => Some(recorded),
        types::Decision::Worker(WorkerId(id)) => Some(Went::Worker(*id)),
        types::Decision::Refuse(refusal) => Some(Went::Refused(refusal.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Side, Spread};

    const FIRST: &str = r#"{"sidetrack":"decisions/1","began":"","program":"","session_key":"query:sid","form":"full","chain":[],"last":{"link":"random","policy":"native:random","generation":0}}"#;
    const ROSTER: &str = r#"{"t":0,"roster":[{"id":1,"name":"w0"},{"id":2,"name":"w1"}]}"#;

    fn replay(policy: &str) -> Replay {
        Replay {
            chain: vec![policy.parse().unwrap()],
            against: None,
            loads: Loads::Follow,
            seed: 0,
            limits: Limits::default(),
            cache: false,
        }
    }

    fn run(replay: &Replay, lines: &[&str]) -> Result<Report, ReplayError> {
        let text = [&[FIRST, ROSTER], lines].concat().join("\n");
        replay.run(Reader::new("log".into(), text.as_bytes())?)
    }

    #[test]
    fn a_session_lives_where_the_connection_went_that_opened_it() {
        // All went to w1; in the replay every other one goes to w0, and so do their sessions.
        let report = run(
            &replay("native:round-robin"),
            &[
                r#"{"t":1,"u":"/","l":[0,0],"b":2,"w":2}"#,
                r#"{"t":2,"open":"a","w":2}"#,
                r#"{"t":3,"u":"/","l":[0,2],"b":2,"w":2}"#,
                r#"{"t":4,"open":"b","w":2}"#,
                r#"{"t":5,"u":"/?sid=a","s":"a","o":2,"f":"defer","l":[0,4],"w":2}"#,
                r#"{"t":6,"u":"/?sid=b","s":"b","o":2,"f":"defer","l":[0,4],"w":2}"#,
                r#"{"t":7,"u":"/?sid=older","s":"older","o":2,"f":"defer","l":[0,4],"w":2}"#,
                r#"{"t":8,"close":"a","w":2}"#,
            ],
        )
        .unwrap();
        assert_eq!(report.new, Side { all: 2, changed: 1 });
        assert_eq!(report.sessions, Side { all: 2, changed: 1 });
        assert_eq!(report.known, Side { all: 3, changed: 1 });
        let told: Vec<_> =
            report.changes.iter().map(|change| (change.t, &*change.from, &*change.to)).collect();
        assert_eq!(told, [(1, "w1", "w0"), (5, "w1", "w0")]);
        let cell = |from: &str, to: &str| report.table.get(&(from.into(), to.into())).copied();
        assert_eq!((cell("w1", "w0"), cell("w1", "w1"), report.table.len()), (Some(1), Some(1), 2));
        assert_eq!(report.spread["w0"], Spread { before: 0, after: 1 });
    }

    #[test]
    fn loads_are_those_of_the_replay_unless_they_are_to_be_as_recorded() {
        // Everything was piled on w1, and stayed.
        let lines: Vec<String> =
            (0..10).map(|n| format!(r#"{{"t":{n},"u":"/","l":[0,{n}],"b":2,"w":2}}"#)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut replay = replay("native:least-connection");
        let after = |report: Report| report.spread.values().map(|spread| spread.after).collect::<Vec<_>>();
        assert_eq!(after(run(&replay, &lines).unwrap()), [5, 5]);
        replay.loads = Loads::Recorded;
        assert_eq!(after(run(&replay, &lines).unwrap()), [10, 0]);
    }

    #[test]
    fn asking_by_hand_takes_a_turn_and_is_no_connection() {
        let report = run(
            &replay("native:round-robin"),
            &[
                r#"{"t":1,"u":"/","l":[0,0],"b":1,"w":1,"hand":true}"#,
                r#"{"t":2,"u":"/","l":[0,0],"b":2,"w":2}"#,
                r#"{"t":3,"gap":5}"#,
            ],
        )
        .unwrap();
        assert_eq!((report.new, report.lost), (Side { all: 1, changed: 0 }, 5));
    }

    #[test]
    fn refusals_and_reasons_of_routing_are_no_change() {
        let report = run(
            &replay("native:round-robin"),
            &[
                // The policy said w0, which had no server for it.
                r#"{"t":1,"u":"/","l":[0,0],"b":1,"w":2}"#,
                r#"{"t":2,"u":"/","l":[0,0],"b":{"refuse":429,"text":"no"},"x":{"refuse":429,"text":"no"}}"#,
            ],
        )
        .unwrap();
        assert_eq!(report.new, Side { all: 2, changed: 1 });
        assert_eq!(report.table.get(&("refused 429".into(), "w1".into())), Some(&1));
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_line() {
        for (line, expected) in [
            (r#"{"t":1,"u":"/","l":[0],"b":1,"w":1}"#, "log, line 3: 1 loads (`l`) for the 2 workers"),
            (r#"{"t":1,"u":"not a target","l":[0,0],"w":1}"#, "log, line 3: no request"),
        ] {
            let error = run(&replay("native:random"), &[line]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let text = FIRST.replace(r#""generation":0"#, r#""generation":0,"state":"?""#);
        let log = Reader::new("log".into(), text.as_bytes()).unwrap();
        let error = replay("native:random").run(log).unwrap_err().to_string();
        assert!(error.contains("log, line 1: the state of `random` is not base64"), "{error}");
    }

    #[test]
    fn random_numbers_begin_from_the_seed() {
        let lines = [r#"{"t":1,"u":"/","l":[0,0],"b":1,"w":1}"#; 40];
        let table = |seed| {
            let replay = Replay { seed, ..replay("native:random") };
            run(&replay, &lines).unwrap().table
        };
        assert_eq!(table(1), table(1));
        let tables: std::collections::HashSet<_> =
            (0..8).map(|seed| table(seed).into_values().next()).collect();
        assert!(tables.len() > 1);
    }
}
