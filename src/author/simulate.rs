//! `sidetrack policy simulate`: sessions that come, last and go, and how policies spread them.
//!
//! Every policy gets the very same clients at the same times with sessions of the same lengths, so that
//! what differs is the policy's doing. Time is the simulation's own: an hour takes a moment.

mod course;
mod picture;
mod traffic;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use sidetrack_policy::native::{Script, scripted};

use super::ground;
use super::world::World;
use crate::cli::print;
use crate::policy::{PolicyLink, Settings};
use crate::types::WorkerInfo;
use course::{Course, Evenness, Running};
use traffic::Traffic;

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
    /// A recording whose workers and sessions to take in place of made-up ones.
    pub log: Option<PathBuf>,
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

impl Simulate {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let traffic = match &self.log {
            Some(path) => Traffic::recorded(path)?,
            None => self.made_up()?,
        };
        let mut courses = Vec::new();
        for policy in &self.policies {
            let script = Script { seed: self.seed, ..Script::default() };
            let (course, _) = scripted(script, || self.run(policy, &traffic));
            courses.push(course?);
        }
        if let Some(path) = &self.svg {
            picture::draw(path, &courses, traffic.time)
                .map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
        }
        print(&if self.json { self.machine(&traffic, &courses) } else { human(&traffic, &courses) });
        Ok(courses.iter().all(|course| course.faults == 0))
    }

    fn made_up(&self) -> Result<Traffic, String> {
        let sessions = self.arrivals * self.time.as_secs_f64();
        if sessions > MOST_SESSIONS {
            return Err(format!(
                "{:.0} sessions a second for {} make {sessions:.0} sessions; more than {MOST_SESSIONS:.0} take too long: lower --arrivals or --for",
                self.arrivals,
                humantime::format_duration(self.time),
            ));
        }
        let mut workers: Vec<WorkerInfo> = (0..self.workers).map(ground::worker).collect();
        for (name, weight) in &self.weights {
            match workers.iter().position(|worker| worker.name == *name) {
                Some(at) => workers[at].weight = *weight,
                None => return Err(no_worker(name, &workers)),
            }
        }
        let arrivals = traffic::made_up(self);
        Ok(Traffic { workers, arrivals, time: self.time })
    }

    fn run(&self, policy: &PolicyLink, traffic: &Traffic) -> Result<Course, String> {
        let known = |name: &str| traffic.workers.iter().any(|worker| worker.name == name);
        if let Some((name, _)) = self.kills.iter().find(|(name, _)| !known(name)) {
            return Err(no_worker(name, &traffic.workers));
        }
        let settings = Settings { cache: false, ..Settings::default() };
        let world = World::new(std::slice::from_ref(policy), traffic.workers.clone(), &settings)
            .map_err(|error| error.to_string())?;
        let mut running = Running::new(policy.to_string(), world);
        let mut kills = self.kills.clone();
        kills.sort_by_key(|(_, at)| Reverse(*at));
        for arrival in &traffic.arrivals {
            running.pass(&mut kills, arrival.at, traffic.time);
            running.arrive(arrival);
        }
        running.pass(&mut kills, traffic.time, traffic.time);
        Ok(running.ended())
    }

    fn machine(&self, traffic: &Traffic, courses: &[Course]) -> String {
        let value = json!({
            "workers": traffic.workers.len(),
            "seed": self.seed,
            "seconds": traffic.time.as_secs_f64(),
            "policies": courses.iter().map(Course::value).collect::<Vec<_>>(),
        });
        format!("{value:#}\n")
    }
}

fn human(traffic: &Traffic, courses: &[Course]) -> String {
    let mut out = String::new();
    let opened: u64 = courses.first().map_or(0, |course| course.opened.iter().sum());
    let _ = writeln!(
        out,
        "{opened} sessions on {} workers within {}, {} long on average\n",
        traffic.workers.len(),
        humantime::format_duration(traffic.time),
        humantime::format_duration(traffic.mean_length()),
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

fn no_worker(name: &str, workers: &[WorkerInfo]) -> String {
    let known: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
    format!("there is no worker `{name}`: there are {}", known.join(", "))
}
