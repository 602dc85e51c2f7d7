//! The built-in policies compiled natively: the last link of every chain, which always answers.

use sidetrack_policy::{Policy, native};

use super::instance::Question;
use super::state::LinkState;
use super::{BuiltIn, Request};
use crate::types::{Decision, Refusal, Roster, WorkerId};
use crate::upgrade::state;

/// A [`Policy`] behind a pointer, for which the trait itself is not made (it knows how to begin).
trait Twin: Send {
    fn configure(&mut self, json: &str) -> Result<(), String>;
    fn set_workers(&mut self, workers: &[sidetrack_policy::Worker]);
    fn balance(&mut self, loads: &[u32]) -> sidetrack_policy::Decision;
    fn find(&mut self, sid: &str, loads: &[u32]) -> sidetrack_policy::Decision;
    fn save(&mut self) -> Vec<u8>;
    fn restore(&mut self, state: &[u8]) -> Result<(), String>;
}

impl<P: Policy + Send> Twin for P {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        Policy::configure(self, json)
    }

    fn set_workers(&mut self, workers: &[sidetrack_policy::Worker]) {
        Policy::set_workers(self, workers);
    }

    fn balance(&mut self, loads: &[u32]) -> sidetrack_policy::Decision {
        Policy::balance(self, loads)
    }

    fn find(&mut self, sid: &str, loads: &[u32]) -> sidetrack_policy::Decision {
        Policy::find(self, sid, loads)
    }

    fn save(&mut self) -> Vec<u8> {
        Policy::save(self)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        Policy::restore(self, state)
    }
}

/// A native twin and the roster it knows.
pub(super) struct NativeLink {
    built_in: BuiltIn,
    options: String,
    twin: Box<dyn Twin>,
    roster: Option<u64>,
    pub(super) calls: u64,
}

impl NativeLink {
    /// # Errors
    /// What the policy says to its options.
    pub(super) fn new(built_in: BuiltIn, options: &str) -> Result<Self, String> {
        let mut twin: Box<dyn Twin> = match built_in {
            BuiltIn::Canary => Box::<policy_canary::Canary>::default(),
            BuiltIn::Hash => Box::<policy_hash::Hash>::default(),
            BuiltIn::IpHash => Box::<policy_ip_hash::IpHash>::default(),
            BuiltIn::LeastConnection => Box::<policy_least_connection::LeastConnection>::default(),
            BuiltIn::PowerOfTwo => Box::<policy_power_of_two::PowerOfTwo>::default(),
            BuiltIn::Random => Box::<policy_random::Random>::default(),
            BuiltIn::RoundRobin => Box::<policy_round_robin::RoundRobin>::default(),
            BuiltIn::StickyCookie => Box::<policy_sticky_cookie::StickyCookie>::default(),
            BuiltIn::TaggedSid => Box::<policy_tagged_sid::TaggedSid>::default(),
            BuiltIn::Weighted => Box::<policy_weighted::Weighted>::default(),
        };
        twin.configure(options)?;
        Ok(Self { built_in, options: options.to_owned(), twin, roster: None, calls: 0 })
    }

    pub(super) const fn built_in(&self) -> BuiltIn {
        self.built_in
    }

    pub(super) fn options(&self) -> &str {
        &self.options
    }

    /// Asks with the request at hand, as a component is asked.
    pub(super) fn ask(
        &mut self,
        question: Question<'_>,
        roster: &Roster,
        loads: &[u32],
        request: &Request,
    ) -> Decision {
        let reads_request = self.built_in.reads_request();
        let mut answer = || match question {
            Question::Balance => self.balance(roster, loads),
            Question::Find(sid) => {
                self.follow(roster);
                self.calls += 1;
                plain(self.twin.find(sid, loads))
            }
        };
        if reads_request { native::with_request(described(request), answer) } else { answer() }
    }

    /// Asks one that looks at no request.
    pub(super) fn balance(&mut self, roster: &Roster, loads: &[u32]) -> Decision {
        self.follow(roster);
        self.calls += 1;
        plain(self.twin.balance(loads))
    }

    pub(super) fn state(&mut self, name: &str) -> LinkState {
        LinkState {
            name: name.to_owned(),
            policy: format!("native:{}", self.built_in),
            options: self.options.clone(),
            generation: 0,
            digest: None,
            form: None,
            state: Some(self.twin.save()),
        }
    }

    /// Goes on with a state of the same policy. False when it is another's, or not taken.
    pub(super) fn adopt(&mut self, from: &LinkState) -> bool {
        let same = from.policy == format!("native:{}", self.built_in) && from.options == self.options;
        from.state.as_ref().is_some_and(|state| same && self.twin.restore(state).is_ok())
    }

    /// What the next program goes on from.
    pub(super) fn carry(&mut self) -> state::Native {
        let policy = state::Policy { source: self.built_in.to_string(), options: self.options.clone() };
        state::Native { policy, state: state::Bytes(self.twin.save()), calls: self.calls }
    }

    /// Goes on from the same policy in the program before; from another one, only with its count.
    pub(super) fn resume(&mut self, carried: &state::Native, roster: &Roster) -> Result<(), String> {
        let state::Native { policy, state, calls } = carried;
        self.calls = *calls;
        if policy.source != self.built_in.name() || policy.options != self.options {
            return Ok(());
        }
        if !roster.workers.is_empty() {
            self.follow(roster);
        }
        self.twin.restore(&state.0)
    }

    /// Begins anew, carrying the state over as a new component instance would.
    pub(super) fn renew(&mut self, roster: &Roster) -> Result<(), String> {
        let state = self.twin.save();
        *self = Self::new(self.built_in, &self.options)?;
        self.follow(roster);
        self.twin.restore(&state)
    }

    fn follow(&mut self, roster: &Roster) {
        if self.roster == Some(roster.version) {
            return;
        }
        let workers: Vec<_> = roster
            .workers
            .iter()
            .map(|worker| sidetrack_policy::Worker {
                id: worker.id.0,
                name: worker.name.clone(),
                weight: worker.weight,
                draining: worker.draining,
                labels: worker.labels.clone(),
            })
            .collect();
        self.twin.set_workers(&workers);
        self.roster = Some(roster.version);
    }
}

fn plain(decision: sidetrack_policy::Decision) -> Decision {
    match decision {
        sidetrack_policy::Decision::Worker(id) => Decision::Worker(WorkerId(id)),
        sidetrack_policy::Decision::Defer => Decision::Defer,
        sidetrack_policy::Decision::Refuse(refusal) => Decision::Refuse(Refusal {
            status: refusal.status,
            retry_after: refusal.retry_after,
            reason: refusal.text,
        }),
    }
}

/// A request in the terms of the stand-in that answers native policies.
fn described(Request { head, peer, session, attempt }: &Request) -> native::Script {
    native::Script {
        method: head.method().to_owned(),
        path: head.path().to_owned(),
        query: form_urlencoded::parse(head.query().as_bytes()).into_owned().collect(),
        headers: head.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        peer: peer.map(|peer| peer.ip().to_canonical()),
        session: session.clone(),
        is_upgrade: head.is_upgrade(),
        attempt: *attempt,
        ..native::Script::default()
    }
}
