//! When to start a worker again, and when to stop trying. Pure: no clock, no randomness.

use std::time::Duration;

/// How often and how fast a worker is started again.
#[derive(Debug, Clone)]
pub struct Restarts {
    /// The wait before the first restart. It doubles with each further one.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Restarts in a row before the slot is given up.
    pub budget: u32,
    /// The same while nothing has ever become ready: then the program itself is at fault.
    pub budget_untried: u32,
    /// A worker that was ready for this long has proved itself: the count starts anew.
    pub settled: Duration,
}

/// The restarts of one slot.
#[derive(Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// A worker has ended after being ready for `ready_for`. Returns how long to wait before the
    /// next start, or nothing when the budget is spent.
    ///
    /// `jitter`, from 0 to 1, spreads the waits over their upper half, so that workers that died
    /// together do not start together. `proven` says whether any worker was ever ready.
    pub fn ended(
        &mut self,
        settings: &Restarts,
        ready_for: Option<Duration>,
        proven: bool,
        jitter: f64,
    ) -> Option<Duration> {
        if ready_for.is_some_and(|time| time >= settings.settled) {
            self.attempt = 0;
        }
        let budget = if proven { settings.budget } else { settings.budget_untried };
        if self.attempt >= budget {
            return None;
        }
        let factor = 2_u32.saturating_pow(self.attempt);
        self.attempt += 1;
        let wait = settings.first.saturating_mul(factor).min(settings.longest);
        Some(wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: Duration = Duration::from_millis(1);

    const SETTINGS: Restarts = Restarts {
        first: Duration::from_millis(100),
        longest: Duration::from_millis(500),
        budget: 4,
        budget_untried: 2,
        settled: Duration::from_secs(10),
    };

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_budget() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> =
            std::iter::from_fn(|| backoff.ended(&SETTINGS, Some(MILLIS), true, 1.0)).collect();
        assert_eq!(waits, [100 * MILLIS, 200 * MILLIS, 400 * MILLIS, 500 * MILLIS]);
    }

    #[test]
    fn a_program_that_never_worked_is_given_up_sooner() {
        let mut backoff = Backoff::default();
        assert_eq!(std::iter::from_fn(|| backoff.ended(&SETTINGS, None, false, 0.0)).count(), 2);
    }

    #[test]
    fn a_worker_that_proved_itself_starts_the_count_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..3 {
            backoff.ended(&SETTINGS, Some(MILLIS), true, 0.0);
        }
        assert_eq!(backoff.ended(&SETTINGS, Some(Duration::from_secs(11)), true, 0.0), Some(50 * MILLIS));
    }
}
