//! What came of comparing. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{Latencies, Routing};
use crate::types::{Decision, Refusal};

/// What the shadow would have done with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// A worker, by its own choice or because the session lives there; or a refusal.
    Decided(Decision),
    /// Left it to whoever comes next.
    Deferred,
    /// A fault or a bad answer.
    Failed,
}

/// Figures since its version came.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub agreed: u64,
    pub differed: u64,
    pub deferred: u64,
    pub failed: u64,
    /// New connections by worker's name: those that went there, and those that would have.
    pub spread: BTreeMap<String, (u64, u64)>,
    /// What the chain took for the same connections.
    pub live: Latencies,
    pub shadow: Latencies,
}

impl Tally {
    /// Connections it was asked about.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.agreed + self.differed + self.deferred + self.failed
    }

    /// The part of those it decided in which it agreed; none when it decided none.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        let decided = self.agreed + self.differed;
        (decided > 0).then(|| self.agreed as f64 / decided as f64)
    }

    pub(super) fn note(&mut self, routing: &Routing, compared: &Compared, took: Duration) {
        self.live.note(routing.took);
        self.shadow.note(took);
        match compared {
            Compared::Deferred => self.deferred += 1,
            Compared::Failed => self.failed += 1,
            Compared::Decided(decision) if agrees(routing, decision) => self.agreed += 1,
            Compared::Decided(_) => self.differed += 1,
        }
        // Sessions that are somewhere already say nothing about balance.
        if routing.balanced.is_none() {
            return;
        }
        if let Ok(worker) = routing.outcome {
            self.spread.entry(routing.name(worker)).or_default().0 += 1;
        }
        if let Compared::Decided(Decision::Worker(worker)) = compared {
            self.spread.entry(routing.name(*worker)).or_default().1 += 1;
        }
    }
}

fn agrees(routing: &Routing, decision: &Decision) -> bool {
    match (&routing.outcome, decision) {
        (Ok(worker), Decision::Worker(other)) => worker == other,
        (Err(Refusal { status, .. }), Decision::Refuse(other)) => *status == other.status,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::{Answer, LinkName, Request};
    use crate::types::{Roster, WorkerId, WorkerInfo};

    fn routing(worker: u32) -> Routing {
        let workers: Arc<[WorkerInfo]> = (0..2)
            .map(|id| WorkerInfo {
                id: WorkerId(id),
                name: format!("w{id}"),
                weight: 1,
                draining: false,
                labels: vec![],
            })
            .collect();
        let answer = Answer {
            decision: Decision::Worker(WorkerId(worker)),
            generation: 1,
            link: LinkName::Link(0),
            explanation: None,
            steps: vec![],
        };
        Routing {
            request: Request::default(),
            roster: Roster { version: 1, workers },
            loads: vec![0, 0],
            found: None,
            owner: None,
            balanced: Some(answer),
            outcome: Ok(WorkerId(worker)),
            took: Duration::from_micros(1),
            began: std::time::Instant::now(),
            calls: vec![],
            by_hand: false,
        }
    }

    #[test]
    fn answers_are_compared_and_spread() {
        let worker = |id| Compared::Decided(Decision::Worker(WorkerId(id)));
        let mut tally = Tally::default();
        assert_eq!(tally.agreement(), None);
        for compared in [worker(0), worker(0), worker(1), Compared::Deferred, Compared::Failed, worker(7)] {
            tally.note(&routing(0), &compared, Duration::from_micros(2));
        }
        assert_eq!((tally.agreed, tally.differed, tally.deferred, tally.failed), (2, 2, 1, 1));
        assert_eq!((tally.asked(), tally.agreement()), (6, Some(0.5)));
        let spread: Vec<_> = tally.spread.into_iter().collect();
        assert_eq!(
            spread,
            [("w0".into(), (6, 2)), ("w1".into(), (0, 1)), ("worker 7".into(), (0, 1))] as [(String, _); 3]
        );
        assert_eq!(tally.shadow.percentile(50).map(|time| time.as_micros()), Some(2));
    }

    #[test]
    fn refusals_agree_when_their_status_does_and_known_sessions_are_no_spread() {
        let refusal = |status| Refusal { status, retry_after: None, reason: String::new() };
        let mut routing = routing(0);
        routing.outcome = Err(refusal(503));
        let mut tally = Tally::default();
        for status in [503, 429] {
            tally.note(&routing, &Compared::Decided(Decision::Refuse(refusal(status))), Duration::ZERO);
        }
        routing.balanced = None;
        tally.note(&routing, &Compared::Decided(Decision::Worker(WorkerId(1))), Duration::ZERO);
        assert_eq!((tally.agreed, tally.differed, tally.spread.len()), (1, 2, 0));
    }
}
