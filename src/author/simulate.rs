//! `sidetrack policy simulate`: sessions that come, last and go, and how policies spread them.
//!
//! Every policy gets the very same clients at the same times with sessions of the same lengths, so that
//! what differs is the policy's doing. Time is the simulation's own: an hour takes a moment.

mod picture;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sidetrack_policy::native::{Script, scripted};

use super::ground;
use super::print::print;
use super::world::{Outcome, World};
use crate::policy::{PolicyLink, Settings};
use crate::types::{WorkerId, WorkerInfo};

/// Moments at which the loads are looked at.
const MOMENTS: u32 = 240;
/// Sessions beyond which a simulation is likely a slip of the pen.
const MOST_SESSIONS: f64 = 20e6;

/// `sidetrack policy simulate`.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulate {
    pub policies: Vec<PolicyLink>,
    pub workers: u32,
    /// Of workers by name; 1 for the others.
    pub weights: Vec<(String, u32)>,
    /// New sessions a second, on average, by chance.
    pub arrivals: f64,
    /// Their mean length.
    pub session: Duration,
    pub lengths: Lengths,
    /// How long it goes on.
    pub time: Duration,
    /// Different clients there are; each comes again and again.
    pub clients: u32,
    /// Workers that die and come back at once, without their sessions.
    pub kills: Vec<(String, Duration)>,
    pub seed: u64,
    pub svg: Option<PathBuf>,
    pub json: bool,
}

/// How the lengths of sessions are distributed around their mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    Fixed,
    /// As if each ended by chance at any moment.
    Exponential,
    /// Many short ones, and a few that hardly end (Pareto, with exponent 1.5).
    HeavyTailed,
}

/// A session to come: who, when, for how long.
struct Arrival {
    at: Duration,
    client: u32,
    length: Duration,
}

/// What became of one policy's traffic.
struct Course {
    policy: String,
    /// The loads of each moment, worker by worker.
    moments: Vec<Vec<u32>>,
    weights: Vec<u32>,
    opened: Vec<u64>,
    refused: u64,
    /// Sessions that died with their worker.
    lost: u64,
    deferred: u64,
    faults: u64,
    names: Vec<String>,
}

/// How even a course was. All are of the busiest worker's load for its weight, against the mean.
struct Evenness {
    mean: f64,
    p99: f64,
    worst: f64,
}

impl Simulate {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let sessions = self.arrivals * self.time.as_secs_f64();
        if sessions > MOST_SESSIONS {
            return Err(format!(
                "{:.0} sessions a second for {} make {sessions:.0} sessions; more than {MOST_SESSIONS:.0} take too long: lower --arrivals or --for",
                self.arrivals,
                humantime::format_duration(self.time),
            ));
        }
        let arrivals = self.arrivals();
        let mut courses = Vec::new();
        for policy in &self.policies {
            let script = Script { seed: self.seed, ..Script::default() };
            let (course, _) = scripted(script, || self.run(policy, &arrivals));
            courses.push(course?);
        }
        if let Some(path) = &self.svg {
            picture::draw(path, &courses, self.time)
                .map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
        }
        print(&if self.json { self.machine(&courses) } else { self.human(&courses) });
        Ok(courses.iter().all(|course| course.faults == 0))
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        // Never 0, whose logarithm is none.
        let uniform = |random: &mut fastrand::Rng| 1.0 - random.f64();
        loop {
            at += -uniform(&mut random).ln() / self.arrivals;
            if at >= self.time.as_secs_f64() {
                return arrivals;
            }
            let mean = self.session.as_secs_f64();
            let length = match self.lengths {
                Lengths::Fixed => mean,
                Lengths::Exponential => -uniform(&mut random).ln() * mean,
                // The mean of a Pareto distribution is its smallest value times a / (a - 1).
                Lengths::HeavyTailed => mean / 3.0 * uniform(&mut random).powf(-1.0 / 1.5),
            };
            // A tail has no end, and a duration has one.
            let length = Duration::from_secs_f64(length.min(self.time.as_secs_f64() * 2.0));
            let client = random.u32(..self.clients.max(1));
            arrivals.push(Arrival { at: Duration::from_secs_f64(at), client, length });
        }
    }

    fn run(&self, policy: &PolicyLink, arrivals: &[Arrival]) -> Result<Course, String> {
        let mut workers: Vec<WorkerInfo> = (0..self.workers).map(ground::worker).collect();
        for (name, weight) in &self.weights {
            let known = workers.iter_mut().find(|worker| worker.name == *name);
            known.ok_or_else(|| self.no_worker(name))?.weight = *weight;
        }
        let names: Vec<String> = workers.iter().map(|worker| worker.name.clone()).collect();
        if let Some((name, _)) = self.kills.iter().find(|(name, _)| !names.contains(name)) {
            return Err(self.no_worker(name));
        }
        let weights = workers.iter().map(|worker| worker.weight).collect();
        let settings = Settings { cache: false, ..Settings::default() };
        let world = World::new(std::slice::from_ref(policy), workers, &settings)
            .map_err(|error| error.to_string())?;
        let course = Course {
            policy: policy.to_string(),
            moments: Vec::new(),
            weights,
            opened: vec![0; names.len()],
            refused: 0,
            lost: 0,
            deferred: 0,
            faults: 0,
            names,
        };
        let mut running = Running { world, course, ends: BinaryHeap::new() };
        let mut kills = self.kills.clone();
        kills.sort_by_key(|(_, at)| Reverse(*at));
        for arrival in arrivals {
            self.pass(&mut running, &mut kills, arrival.at);
            running.arrive(arrival);
        }
        self.pass(&mut running, &mut kills, self.time);
        running.course.faults = running.world.chain().counts().faults.total();
        Ok(running.course)
    }

    fn no_worker(&self, name: &str) -> String {
        format!("there is no worker `{name}`: there are w0 to w{}", self.workers.saturating_sub(1))
    }

    /// Lets time pass until `until`: sessions end, workers die, and every moment is noted.
    fn pass(&self, running: &mut Running, kills: &mut Vec<(String, Duration)>, until: Duration) {
        loop {
            let moment =
                self.time * u32::try_from(running.course.moments.len() + 1).unwrap_or(u32::MAX) / MOMENTS;
            let end = running.ends.peek().map(|Reverse((at, _))| *at);
            let kill = kills.last().map(|(_, at)| *at);
            let next = [Some(moment), end, kill].into_iter().flatten().min().unwrap_or(moment);
            if next > until || running.course.moments.len() >= MOMENTS as usize {
                return;
            }
            running.world.set_time(next);
            if end == Some(next) {
                if let Some(Reverse((_, sid))) = running.ends.pop() {
                    running.world.close(&sid);
                }
            } else if kill == Some(next) {
                if let Some((name, _)) = kills.pop() {
                    running.restart(&name);
                }
            } else {
                running.note();
            }
        }
    }

    fn human(&self, courses: &[Course]) -> String {
        let mut out = String::new();
        let opened: u64 = courses.first().map_or(0, |course| course.opened.iter().sum());
        let _ = writeln!(
            out,
            "{opened} sessions on {} workers within {}, {} long on average\n",
            self.workers,
            humantime::format_duration(self.time),
            humantime::format_duration(self.session),
        );
        let wide = courses.iter().map(|course| course.policy.chars().count()).max().unwrap_or(0).max(6);
        let _ = writeln!(
            out,
            "{:<wide$}  {:>8} {:>8} {:>8}  {:>10} {:>10}  busiest / mean over time",
            "policy", "mean", "99 %", "worst", "least new", "most new"
        );
        let worst = courses.iter().flat_map(Course::ratios).fold(1.0, f64::max);
        for course in courses {
            let Evenness { mean, p99, worst: highest } = course.evenness();
            let (least, most) = course.extremes();
            let _ = writeln!(
                out,
                "{:<wide$}  {mean:>8.3} {p99:>8.3} {highest:>8.3}  {least:>10} {most:>10}  {}",
                course.policy,
                picture::line(&course.ratios(), worst),
            );
            let mut notes = Vec::new();
            for (count, what) in [
                (course.refused, "refused"),
                (course.lost, "lost with a worker"),
                (course.deferred, "left to least-connection behind it"),
                (course.faults, "FAULTS"),
            ] {
                if count > 0 {
                    notes.push(format!("{count} {what}"));
                }
            }
            if !notes.is_empty() {
                let _ = writeln!(out, "{:<wide$}  {}", "", notes.join(", "));
            }
        }
        let _ = writeln!(
            out,
            "\nmean, 99 %, worst: the busiest worker's load for its weight against the mean of all; 1 is even"
        );
        out
    }

    fn machine(&self, courses: &[Course]) -> String {
        let value = json!({
            "workers": self.workers,
            "seed": self.seed,
            "seconds": self.time.as_secs_f64(),
            "policies": courses.iter().map(Course::value).collect::<Vec<_>>(),
        });
        format!("{value:#}\n")
    }
}

/// One policy's traffic, under way.
struct Running {
    world: World,
    course: Course,
    /// When sessions end.
    ends: BinaryHeap<Reverse<(Duration, String)>>,
}

impl Running {
    fn arrive(&mut self, arrival: &Arrival) {
        self.world.set_time(arrival.at);
        let placed = self.world.route(&mut ground::client(arrival.client));
        match placed.outcome {
            Outcome::Worker { id, by_policy } => {
                self.course.deferred += u64::from(!by_policy);
                if let Some(count) = self.place(id).and_then(|at| self.course.opened.get_mut(at)) {
                    *count += 1;
                }
                let sid = self.world.open(id);
                self.ends.push(Reverse((arrival.at + arrival.length, sid)));
            }
            Outcome::Refused(_) | Outcome::Nobody => self.course.refused += 1,
        }
    }

    /// The place of a worker among all that there ever are: by name, since a restarted one is another.
    fn place(&self, id: WorkerId) -> Option<usize> {
        let name = self.world.name(id);
        self.course.names.iter().position(|known| known == name)
    }

    fn restart(&mut self, name: &str) {
        let Some(worker) = self.world.workers().iter().find(|worker| worker.name == name).cloned() else {
            return;
        };
        self.course.lost += self.world.kill(name).unwrap_or(0) as u64;
        self.world.start(worker);
    }

    fn note(&mut self) {
        let mut loads = vec![0; self.course.names.len()];
        for (worker, load) in self.world.workers().iter().zip(self.world.loads()) {
            if let Some(place) = self.place(worker.id) {
                loads[place] = *load;
            }
        }
        self.course.moments.push(loads);
    }
}

impl Course {
    /// Busiest against mean, moment by moment; nothing while there is next to no load.
    fn ratios(&self) -> Vec<f64> {
        let weights: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        self.moments
            .iter()
            .map(|loads| {
                let total: f64 = loads.iter().map(|load| f64::from(*load)).sum();
                let busiest = loads
                    .iter()
                    .zip(&self.weights)
                    .map(|(load, weight)| f64::from(*load) / f64::from((*weight).max(1)))
                    .fold(0.0, f64::max);
                // A handful of sessions cannot be spread evenly by anybody.
                if total < loads.len() as f64 { 1.0 } else { busiest * weights / total }
            })
            .collect()
    }

    fn evenness(&self) -> Evenness {
        let mut ratios = self.ratios();
        ratios.sort_by(f64::total_cmp);
        let at = |share: usize| ratios.get((ratios.len() * share / 100).min(ratios.len().saturating_sub(1)));
        Evenness {
            mean: ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
            p99: at(99).copied().unwrap_or(1.0),
            worst: ratios.last().copied().unwrap_or(1.0),
        }
    }

    /// The fewest and the most new sessions that a worker got.
    fn extremes(&self) -> (u64, u64) {
        let least = self.opened.iter().min().copied().unwrap_or(0);
        (least, self.opened.iter().max().copied().unwrap_or(0))
    }

    fn value(&self) -> Value {
        let Evenness { mean, p99, worst } = self.evenness();
        json!({
            "policy": self.policy,
            "busiest_to_mean": { "mean": mean, "p99": p99, "worst": worst },
            "opened": self.names.iter().zip(&self.opened).collect::<std::collections::BTreeMap<_, _>>(),
            "refused": self.refused,
            "lost": self.lost,
            "deferred": self.deferred,
            "faults": self.faults,
            "loads": self.moments,
        })
    }
}
