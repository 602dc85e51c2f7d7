//! The time after a replacement in which the new version has to prove itself. Pure: no clock.
//!
//! Faults are noticed at any time; a trial also notices a version that works and does harm: one that
//! is slow, or that piles connections on few workers.

use std::fmt;

/// Decisions before anything is concluded.
const SAMPLE: u32 = 200;
/// The most a decision may cost on average, as a part of its budget.
const DEAREST: f64 = 0.25;
/// How many times the mean load the busiest worker may have.
const STEEPEST: f64 = 4.0;
/// … and by how much it has to be steeper than at the beginning.
const STEEPER: f64 = 2.0;
/// Below this mean load a slope means nothing.
const LEAST_MEAN: f64 = 5.0;

/// What a trial has seen.
#[derive(Debug, Default)]
pub(super) struct Trial {
    decisions: u32,
    fuel: u64,
    /// How steep the loads were when it began.
    before: Option<f64>,
}

/// Why a version failed its trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Failure {
    /// The mean cost, as a part of the budget.
    Dear(f64),
    /// The highest load, in mean loads.
    Steep(f64),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dear(part) => {
                write!(
                    f,
                    "its decisions take {:.0} % of their budget on average, more than {:.0} %",
                    part * 100.0,
                    DEAREST * 100.0
                )
            }
            Self::Steep(slope) => {
                write!(
                    f,
                    "the busiest worker has {slope:.1} times the mean load, more than {STEEPEST:.0} times"
                )
            }
        }
    }
}

impl Trial {
    /// Notes a decision: what it cost of what budget, and the loads it was made from.
    pub(super) fn note(&mut self, fuel: u64, budget: u64, loads: &[u32]) -> Option<Failure> {
        self.decisions += 1;
        self.fuel = self.fuel.saturating_add(fuel);
        let slope = slope(loads);
        let before = *self.before.get_or_insert_with(|| slope.unwrap_or(1.0));
        if self.decisions < SAMPLE {
            return None;
        }
        let part = self.fuel as f64 / f64::from(self.decisions) / budget.max(1) as f64;
        if part > DEAREST {
            return Some(Failure::Dear(part));
        }
        slope.filter(|&slope| slope > STEEPEST && slope > before * STEEPER).map(Failure::Steep)
    }
}

/// The highest load in mean loads; none where that says nothing.
fn slope(loads: &[u32]) -> Option<f64> {
    let most = f64::from(*loads.iter().max()?);
    let mean = loads.iter().copied().map(f64::from).sum::<f64>() / loads.len() as f64;
    (mean >= LEAST_MEAN).then(|| most / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fuel: u64, loads: impl Fn(u32) -> Vec<u32>) -> Option<Failure> {
        let mut trial = Trial::default();
        (0..1000).find_map(|call| trial.note(fuel, 1000, &loads(call)))
    }

    #[test]
    fn a_good_version_passes() {
        assert_eq!(run(10, |_| vec![10; 8]), None);
        assert_eq!(run(249, |call| vec![call, 0]), None, "two workers cannot be four times apart");
        assert_eq!(run(10, |_| vec![3, 0, 0, 0, 0, 0, 0, 0]), None, "hardly any load");
    }

    #[test]
    fn a_slow_one_fails() {
        let failure = run(300, |_| vec![1, 1]).unwrap();
        assert_eq!(failure, Failure::Dear(0.3));
        assert!(failure.to_string().contains("30 %"), "{failure}");
    }

    #[test]
    fn one_that_piles_up_fails_unless_it_found_the_pile() {
        let failure = run(10, |call| vec![10 + call, 10, 10, 10, 10, 10, 10, 10]).unwrap();
        assert!(matches!(failure, Failure::Steep(slope) if slope > 4.0), "{failure}");
        assert_eq!(run(10, |_| vec![100, 1, 1, 1, 1, 1, 1, 1]), None);
    }
}
