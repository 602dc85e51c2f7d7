//! A few decisions of many, for somebody who cannot read more.

use std::time::Instant;

use crate::observe::{Heard, What};

/// Lets so many decisions through in a second, those of a short rush together, and nothing else but how
/// many were left out.
#[derive(Debug)]
pub(super) struct Thin {
    /// In a second, and in a rush.
    rate: f64,
    /// What may pass now; it fills with time.
    room: f64,
    then: Instant,
    left_out: u64,
}

impl Thin {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self { rate: rate.into(), room: rate.into(), then: now, left_out: 0 }
    }

    /// What is left of what was heard.
    pub(super) fn out(&mut self, heard: Vec<Heard>) -> Vec<Heard> {
        let mut rest = Vec::new();
        for heard in heard {
            let observation = match &heard {
                Heard::Missed(missed) => {
                    self.left_out += missed;
                    continue;
                }
                Heard::Observation(observation) => observation,
            };
            if !matches!(observation.what, What::Routed(_)) {
                continue;
            }
            if self.admits(observation.at) {
                let left_out = std::mem::take(&mut self.left_out);
                rest.extend((left_out > 0).then_some(Heard::Missed(left_out)));
                rest.push(heard);
            } else {
                self.left_out += 1;
            }
        }
        rest
    }

    fn admits(&mut self, at: Instant) -> bool {
        let passed = at.saturating_duration_since(self.then).as_secs_f64();
        self.then = self.then.max(at);
        self.room = (self.room + passed * self.rate).min(self.rate);
        let room = self.room >= 1.0;
        if room {
            self.room -= 1.0;
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rush_passes_and_a_flood_does_not() {
        let start = Instant::now();
        let mut thin = Thin::new(20, start);
        assert!((0..20).all(|_| thin.admits(start)), "all of a rush");
        assert!(!thin.admits(start));
        let flood = (1..=10_000).filter(|number| thin.admits(start + Duration::from_millis(*number))).count();
        assert!((199..=201).contains(&flood), "20 in each of ten seconds: {flood}");
        // An older one, told later, is no reason to count time twice.
        assert!(!thin.admits(start));
        assert!(thin.admits(start + Duration::from_secs(60)));
    }

    #[test]
    fn what_was_lost_is_told_with_the_next() {
        let mut thin = Thin::new(1, Instant::now());
        assert!(thin.out(vec![Heard::Missed(3), Heard::Missed(4)]).is_empty());
        assert_eq!(thin.left_out, 7);
    }
}
