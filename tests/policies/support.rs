//! What a chain is asked with, and the hostile policy in one.

use std::sync::Arc;

use sidetrack::policy::{Answer, Chain, Limits, PolicySource, Request, Settings};
use sidetrack::types::{Decision, Head, Progress, Roster, WorkerId, WorkerInfo};

pub use crate::guests::{guest, guest_of, root, run};

pub fn worker(id: u32) -> WorkerInfo {
    WorkerInfo { id: WorkerId(id), name: format!("w{id}"), weight: 1, draining: false, labels: vec![] }
}

pub fn roster(version: u64, ids: impl IntoIterator<Item = u32>) -> Roster {
    Roster { version, workers: ids.into_iter().map(worker).collect() }
}

pub fn request(head: &str) -> Request {
    match Head::parse(head.as_bytes()) {
        Ok(Progress::Complete(head)) => Request { head, ..Request::default() },
        other => panic!("not a head: {other:?}"),
    }
}

/// The hostile policy in a chain, and workers 5 and 6.
pub struct Hostile {
    pub chain: Chain,
    pub roster: Roster,
}

impl Hostile {
    pub fn new(limits: Limits) -> Self {
        let settings = Settings { limits, ..Settings::default() };
        let owner = |sid: &str| (sid == "s-1").then_some(WorkerId(6));
        let source = PolicySource::File(guest("policy_hostile"));
        let chain = Chain::load(&source, &settings, Arc::new(owner)).expect("the hostile policy loads");
        Self { chain, roster: roster(1, [5, 6]) }
    }

    /// Limits under which any number of faults is forgiven.
    pub fn patient() -> Self {
        Self::new(Limits { faults: usize::MAX, ..Limits::default() })
    }

    pub fn ask(&self, path: &str) -> Answer {
        let mut request = request(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        let before = request.clone();
        let answer = self.chain.balance(&self.roster, &vec![0; self.roster.workers.len()], &mut request);
        assert_eq!(format!("{request:?}"), format!("{before:?}"), "the request comes back");
        answer
    }

    /// The text of a refusal.
    pub fn text(&self, path: &str) -> String {
        match self.ask(path).decision {
            Decision::Refuse(refusal) => refusal.reason,
            other => panic!("expected a refusal at {path}, got {other:?}"),
        }
    }
}
