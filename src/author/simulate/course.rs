//! One policy's traffic, as it goes and as it went.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use serde_json::{Value, json};

use super::traffic::Arrival;
use crate::author::world::{Outcome, World};
use crate::types::WorkerId;

/// Moments at which the loads are looked at.
const MOMENTS: u32 = 240;

/// What became of one policy's traffic.
pub(super) struct Course {
    pub(super) policy: String,
    /// The loads of each moment, worker by worker.
    pub(super) moments: Vec<Vec<u32>>,
    pub(super) weights: Vec<u32>,
    pub(super) opened: Vec<u64>,
    pub(super) refused: u64,
    /// Sessions that died with their worker.
    pub(super) lost: u64,
    pub(super) deferred: u64,
    pub(super) faults: u64,
    pub(super) names: Vec<String>,
}

/// How even a course was. All are of the busiest worker's load for its weight, against the mean.
pub(super) struct Evenness {
    pub(super) mean: f64,
    pub(super) p99: f64,
    pub(super) worst: f64,
}

/// One policy's traffic, under way.
pub(super) struct Running {
    world: World,
    course: Course,
    /// When sessions end.
    ends: BinaryHeap<Reverse<(Duration, String)>>,
}

impl Running {
    pub(super) fn new(policy: String, world: World) -> Self {
        let names: Vec<String> = world.workers().iter().map(|worker| worker.name.clone()).collect();
        let course = Course {
            policy,
            moments: Vec::new(),
            weights: world.workers().iter().map(|worker| worker.weight).collect(),
            opened: vec![0; names.len()],
            refused: 0,
            lost: 0,
            deferred: 0,
            faults: 0,
            names,
        };
        Self { world, course, ends: BinaryHeap::new() }
    }

    /// Lets time pass until `until`: sessions end, workers die, and every moment of the `whole` is noted.
    pub(super) fn pass(&mut self, kills: &mut Vec<(String, Duration)>, until: Duration, whole: Duration) {
        loop {
            let number = u32::try_from(self.course.moments.len() + 1).unwrap_or(u32::MAX);
            let moment = whole * number / MOMENTS;
            let end = self.ends.peek().map(|Reverse((at, _))| *at);
            let kill = kills.last().map(|(_, at)| *at);
            let next = [Some(moment), end, kill].into_iter().flatten().min().unwrap_or(moment);
            if next > until || number > MOMENTS {
                return;
            }
            self.world.set_time(next);
            if end == Some(next) {
                if let Some(Reverse((_, sid))) = self.ends.pop() {
                    self.world.close(&sid);
                }
            } else if kill == Some(next) {
                if let Some((name, _)) = kills.pop() {
                    self.restart(&name);
                }
            } else {
                self.note();
            }
        }
    }

    /// What became of it.
    pub(super) fn ended(mut self) -> Course {
        self.course.faults = self.world.chain().counts().faults.total();
        self.course
    }

    pub(super) fn arrive(&mut self, arrival: &Arrival) {
        self.world.set_time(arrival.at);
        let placed = self.world.route(&mut arrival.request());
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
    pub(super) fn ratios(&self) -> Vec<f64> {
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

    pub(super) fn evenness(&self) -> Evenness {
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
    pub(super) fn extremes(&self) -> (u64, u64) {
        let least = self.opened.iter().min().copied().unwrap_or(0);
        (least, self.opened.iter().max().copied().unwrap_or(0))
    }

    pub(super) fn value(&self) -> Value {
        let Evenness { mean, p99, worst } = self.evenness();
        json!({
            "policy": self.policy,
            "busiest_to_mean": { "mean": mean, "p99": p99, "worst": worst },
            "opened": self.names.iter().zip(&self.opened).collect::<BTreeMap<_, _>>(),
            "refused": self.refused,
            "lost": self.lost,
            "deferred": self.deferred,
            "faults": self.faults,
            "loads": self.moments,
        })
    }
}
