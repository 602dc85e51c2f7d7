//! `sidetrack policy test`: what happens to a policy, step by step, and what must hold meanwhile.
//!
//! The host is a made-up one: workers, sessions, clock and random numbers are the scenario's, so a run
//! comes out the same each time. After every answer three things are checked, whatever the scenario is
//! about: the policy did not fail, the worker it named is there, and a session that is known stays
//! where it is.

mod file;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sidetrack_policy::native::{Script, scripted};

use super::world::{Outcome, World};
use crate::cli::print;
use crate::policy::{PolicyLink, Settings, Vectors};
use crate::types::WorkerId;
use file::{Action, Scenario, Step};

/// `sidetrack policy test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// A scenario in TOML, or test vectors in JSON.
    pub file: PathBuf,
    /// In place of the scenario's own.
    pub policies: Vec<PolicyLink>,
    pub seed: Option<u64>,
    pub json: bool,
}

/// What came of a step.
struct Report {
    step: usize,
    what: String,
    /// How many of the step's answers each worker got, by name.
    got: BTreeMap<String, u64>,
    refused: u64,
    deferred: u64,
    /// What does not hold; the first of each kind.
    wrong: Vec<String>,
}

/// A scenario being played.
struct Play {
    world: World,
    random: fastrand::Rng,
    clock: Duration,
    /// All sessions that clients have, those that their worker took along included.
    sessions: Vec<String>,
    clients: u64,
    folder: PathBuf,
    answers: u64,
}

impl Test {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| format!("cannot read {}: {error}", self.file.display()))?;
        if self.file.extension().is_some_and(|extension| extension == "json") {
            return self.vectors(&text);
        }
        let scenario = Scenario::parse(&text).map_err(|error| format!("{}: {error}", self.file.display()))?;
        let folder = self.file.parent().map(Path::to_owned).unwrap_or_default();
        let policies = self.policies(&scenario, &folder)?;
        let seed = self.seed.or(scenario.seed).unwrap_or(1);
        let script = Script { seed, ..Script::default() };
        let (played, _) = scripted(script, || play(&scenario, &policies, folder, seed));
        let (reports, answers) = played?;
        let good = reports.iter().all(|report| report.wrong.is_empty());
        let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
        let shown = if self.json {
            let value = json!({
                "policies": names,
                "seed": seed,
                "verdict": if good { "ok" } else { "failed" },
                "answers": answers,
                "steps": reports.iter().map(Report::value).collect::<Vec<_>>(),
            });
            format!("{value:#}\n")
        } else {
            let mut out: String = reports.iter().map(ToString::to_string).collect();
            let failed = reports.iter().filter(|report| !report.wrong.is_empty()).count();
            let _ = writeln!(
                out,
                "{}: {} steps, {answers} answers, seed {seed}: {}",
                names.join(", "),
                reports.len(),
                if good { "all holds".to_owned() } else { format!("{failed} steps FAILED") },
            );
            out
        };
        print(&shown);
        Ok(good)
    }

    /// The policies to ask: those named here, else the scenario's, whose paths begin at its folder.
    fn policies(&self, scenario: &Scenario, folder: &Path) -> Result<Vec<PolicyLink>, String> {
        if !self.policies.is_empty() {
            return Ok(self.policies.clone());
        }
        let named = scenario.policies();
        if named.is_empty() {
            return Err(format!(
                "{} names no policy: add `policy = \"…\"` to it, or use --policy",
                self.file.display()
            ));
        }
        named.iter().map(|text| file::link(text, folder)).collect()
    }

    /// Exact answers rather than properties.
    fn vectors(&self, text: &str) -> Result<bool, String> {
        let [policy] = self.policies.as_slice() else {
            return Err("test vectors are about one policy: name it with --policy".to_owned());
        };
        let vectors = Vectors::parse(text).map_err(|error| format!("{}: {error}", self.file.display()))?;
        let outcome = vectors.run(&policy.source, &Settings { cache: false, ..Settings::default() });
        let (good, said) = match outcome {
            Ok(compared) => (true, format!("{compared} answers as expected")),
            Err(error) => (false, error.to_string()),
        };
        print(&if self.json {
            let verdict = if good { "ok" } else { "failed" };
            format!("{:#}\n", json!({ "policies": [policy.to_string()], "verdict": verdict, "found": said }))
        } else {
            format!("{policy}: {said}\n")
        });
        Ok(good)
    }
}

fn play(
    scenario: &Scenario,
    policies: &[PolicyLink],
    folder: PathBuf,
    seed: u64,
) -> Result<(Vec<Report>, u64), String> {
    let settings = Settings { cache: false, ..Settings::default() };
    let world = World::new(policies, scenario.workers(), &settings).map_err(|error| error.to_string())?;
    world.chain().listen(true);
    let mut play = Play {
        world,
        random: fastrand::Rng::with_seed(seed),
        clock: Duration::ZERO,
        sessions: Vec::new(),
        clients: 0,
        folder,
        answers: 0,
    };
    let reports = (1..).zip(&scenario.step).map(|(number, step)| play.step(number, step)).collect();
    Ok((reports, play.answers))
}

impl Play {
    fn step(&mut self, number: usize, step: &Step) -> Report {
        let action = step.action();
        let mut report = Report {
            step: number,
            what: action.to_string(),
            got: BTreeMap::new(),
            refused: 0,
            deferred: 0,
            wrong: Vec::new(),
        };
        match &action {
            Action::Open(count) => {
                for _ in 0..*count {
                    self.open(step, &mut report);
                }
            }
            Action::Again(count) => {
                for _ in 0..*count {
                    self.again(step, &mut report);
                }
            }
            Action::Close(count) => {
                for _ in 0..*count {
                    if self.sessions.is_empty() {
                        report.wrong("there are no more sessions to close");
                        break;
                    }
                    let sid = self.sessions.swap_remove(self.random.usize(..self.sessions.len()));
                    self.world.close(&sid);
                }
            }
            Action::Kill(name) => match self.world.kill(name) {
                Some(lost) => report.what = format!("{action}, and {lost} sessions with it"),
                None => report.wrong(&format!("there is no worker `{name}`")),
            },
            Action::Start(worker) => self.world.start(worker.info(0)),
            Action::Drain(name, draining) => {
                if !self.world.alter(name, |worker| worker.draining = *draining) {
                    report.wrong(&format!("there is no worker `{name}`"));
                }
            }
            Action::Advance(time) => {
                self.clock += *time;
                self.world.set_time(self.clock);
            }
            Action::Swap(policy) => {
                let swapped = file::link(policy, &self.folder).and_then(|link| self.world.swap(link));
                if let Err(said) = swapped {
                    report.wrong(&said);
                }
            }
            Action::Nothing => {}
        }
        if let Some(bound) = step.spread {
            self.check_spread(bound, &mut report);
        }
        report
    }

    /// A client without a session, which gets one from the worker it comes to.
    fn open(&mut self, step: &Step, report: &mut Report) {
        let mut request = step.request(self.clients);
        self.clients += 1;
        if let Some(worker) = self.ask(step, &mut request, report) {
            let sid = self.world.open(worker);
            self.sessions.push(sid);
        }
    }

    /// A request of a session that some client has. Where its worker has died it begins anew.
    fn again(&mut self, step: &Step, report: &mut Report) {
        if self.sessions.is_empty() {
            return report.wrong("there are no sessions: `open` some before `again`");
        }
        let at = self.random.usize(..self.sessions.len());
        let sid = self.sessions[at].clone();
        let known = self.world.owner(&sid);
        let mut request = step.request(self.random.u64(..self.clients.max(1)));
        request.session = Some(sid);
        let Some(worker) = self.ask(step, &mut request, report) else { return };
        if known.is_none() {
            self.sessions[at] = self.world.open(worker);
        }
    }

    fn ask(
        &mut self,
        step: &Step,
        request: &mut crate::types::Request,
        report: &mut Report,
    ) -> Option<WorkerId> {
        let placed = self.world.route(request);
        self.answers += 1;
        if let Some(wrong) = placed.wrong {
            report.wrong(&wrong);
        }
        let found = match &placed.outcome {
            Outcome::Worker { id, by_policy } => {
                report.deferred += u64::from(!by_policy && request.session.is_none());
                let name = self.world.name(*id).to_owned();
                *report.got.entry(name.clone()).or_default() += 1;
                name
            }
            Outcome::Refused(refusal) => {
                report.refused += 1;
                format!("a refusal with {} `{}`", refusal.status, refusal.reason)
            }
            Outcome::Nobody => "nobody: there is no worker".to_owned(),
        };
        if let Some(expected) = &step.expect
            && !expected.is(&placed.outcome, &found)
        {
            report.wrong(&format!("expected {expected}, found {found}"));
        }
        match placed.outcome {
            Outcome::Worker { id, .. } => Some(id),
            Outcome::Refused(_) | Outcome::Nobody => None,
        }
    }

    /// Whether every worker that takes new sessions got its weight's share, give or take `bound`.
    fn check_spread(&self, bound: f64, report: &mut Report) {
        let takers = || self.world.workers().iter().filter(|worker| !worker.draining);
        let weights: f64 = takers().map(|worker| f64::from(worker.weight)).sum();
        let total: u64 = takers().filter_map(|worker| report.got.get(&worker.name)).sum();
        let got = |name: &str| report.got.get(name).copied().unwrap_or(0);
        let off: Vec<String> = takers()
            .filter_map(|worker| {
                let fair = total as f64 * f64::from(worker.weight) / weights.max(1.0);
                let off = (got(&worker.name) as f64 - fair).abs() > bound * fair + 1.0;
                off.then(|| {
                    format!("{} got {} where {fair:.0} would be fair", worker.name, got(&worker.name))
                })
            })
            .collect();
        for said in off {
            report.wrong(&format!("spread: {said}, give or take {:.0} %", bound * 100.0));
        }
    }
}

impl Report {
    /// Notes what does not hold. Of many alike the first few do.
    fn wrong(&mut self, text: &str) {
        const SHOWN: usize = 5;
        if self.wrong.len() < SHOWN && !self.wrong.iter().any(|known| known == text) {
            self.wrong.push(text.to_owned());
        }
    }

    fn value(&self) -> Value {
        json!({
            "step": self.step,
            "action": self.what,
            "workers": self.got,
            "refused": self.refused,
            "deferred": self.deferred,
            "wrong": self.wrong,
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.wrong.is_empty() { "ok" } else { "FAILED" };
        write!(f, "{word:<8} {:>3}  {}", self.step, self.what)?;
        let mut parts: Vec<String> = self.got.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if self.refused > 0 {
            parts.push(format!("{} refused", self.refused));
        }
        if self.deferred > 0 {
            parts.push(format!("{} left to the last link", self.deferred));
        }
        if !parts.is_empty() {
            write!(f, ": {}", parts.join(", "))?;
        }
        writeln!(f)?;
        self.wrong.iter().try_for_each(|text| writeln!(f, "              {text}"))
    }
}
