//! Canary: a small share of what is new goes to the workers that try something out.
//!
//! Options:
//!
//! - `share`, which must be given: from 0 to 1, such as `{"share": 0.05}`. 0 is nothing at all and 1
//!   everything, exactly;
//! - `label`: which workers are the canary, by default `"track=canary"`: a label's key and value;
//! - `key`: makes it stick. `{"share": 0.05, "key": "cookie:user"}` puts 5 % of the users into the
//!   canary rather than 5 % of the connections. Where the key is: `query:NAME`, `header:NAME`,
//!   `cookie:NAME`, `path:N` (counted from 1), `path` or `session`. When the share grows, those who
//!   were in stay in. A request without the key is decided by chance.
//!
//! Within the canary, and within the others, the worker with the lowest load is taken, equals in turn.
//! Draining workers are passed over and weights ignored, as `least-connection` does it.
//!
//! What follows from it for those who operate one:
//!
//! - Only what is new is decided here. A session stays where it is, whatever the share becomes.
//! - A session nobody knows any more, since its worker is gone, is decided by its id: however often it
//!   is asked for, it is in or out.
//! - **No error page for lack of a canary.** When nobody of the group that was drawn may be chosen
//!   (the canary crashed, is draining or was never started, or it is the only one left), this defers,
//!   and the next policy of the chain chooses among all workers. The share is a wish, service comes
//!   first: a canary that is down costs nobody a connection, and one that is alone gets them all. Nothing
//!   is made up for later.
//!
//! Whose turn it is among equals is all that is remembered between calls.

use policy_common::{Group, Key, Options, Value};
use sidetrack_policy::{Decision, Policy, Worker, export, host, request};

/// The label when none is configured.
const LABEL: (&str, &str) = ("track", "canary");

/// See the crate's documentation.
#[derive(Debug)]
pub struct Canary {
    /// Of 2^64 numbers, so many are the canary's.
    share: u128,
    label: (String, String),
    key: Option<Key>,
    canary: Group,
    others: Group,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            share: 0,
            label: (LABEL.0.to_owned(), LABEL.1.to_owned()),
            key: None,
            canary: Group::default(),
            others: Group::default(),
        }
    }
}

impl Policy for Canary {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let options = Options::parse(json, &["share", "label", "key"])?;
        self.share = options.required("share", "a number from 0 to 1", share)?;
        if let Some(label) = options.optional("label", "KEY=VALUE, such as track=canary", label)? {
            self.label = label;
        }
        self.key = options.optional("key", Key::EXPECTED, |value| value.as_str()?.parse().ok())?;
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        let is_canary = |worker: &Worker| worker.labels.contains(&self.label);
        self.canary.set_workers(workers, is_canary);
        self.others.set_workers(workers, |worker| !is_canary(worker));
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        let by_session = || Some(request::session_hash()).filter(|&hash| hash != 0);
        let draw = self.key.as_ref().and_then(Key::hash).or_else(by_session).unwrap_or_else(host::random_u64);
        let group = if u128::from(draw) < self.share { &mut self.canary } else { &mut self.others };
        group.least(loads).map_or(Decision::Defer, Decision::Worker)
    }
}

/// A share as the number of 64-bit numbers that make it up. Scaling by a power of two is exact, so
/// nothing is rounded but the decimal fraction itself, and 1 is all of them.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^64")]
fn share(value: &Value) -> Option<u128> {
    const ALL: f64 = 18_446_744_073_709_551_616.0;
    value.as_f64().filter(|share| (0.0..=1.0).contains(share)).map(|share| (share * ALL) as u128)
}

fn label(value: &Value) -> Option<(String, String)> {
    let (key, value) = value.as_str()?.split_once('=').filter(|(key, _)| !key.is_empty())?;
    Some((key.to_owned(), value.to_owned()))
}

export!(Canary);

#[cfg(test)]
mod tests {
    use super::*;
    use sidetrack_policy::native::{Script, scripted};

    const CALLS: usize = 20_000;

    /// Worker 1 is the canary, 2 and 3 are not.
    fn policy(options: &str) -> Canary {
        let mut policy = Canary::default();
        policy.configure(options).unwrap();
        let track = |track: &str| vec![("track".to_owned(), track.to_owned())];
        policy.set_workers(&[
            Worker { id: 1, labels: track("canary"), ..Worker::default() },
            Worker { id: 2, labels: track("stable"), ..Worker::default() },
            Worker { id: 3, ..Worker::default() },
        ]);
        policy
    }

    /// How many of `CALLS` connections, user by user, are the canary's.
    fn canaries(options: &str, user: impl Fn(usize) -> Option<String>) -> Vec<bool> {
        let mut policy = policy(options);
        let script = |call, seed| {
            let headers = user(call).map(|user| ("Cookie".to_owned(), format!("user={user}")));
            Script { headers: headers.into_iter().collect(), seed, ..Script::default() }
        };
        (0..CALLS)
            .map(|call| {
                let seed = u64::try_from(call).unwrap().wrapping_mul(0x1234_5678_9abc_def1);
                scripted(script(call, seed), || policy.balance(&[0, 0, 0])).0 == Decision::Worker(1)
            })
            .collect()
    }

    fn count(canaries: &[bool]) -> usize {
        canaries.iter().filter(|&&canary| canary).count()
    }

    #[test]
    fn the_share_is_kept() {
        // Five standard deviations of a binomial with n = 20,000 and p = 1/20 are 154.
        let by_chance = count(&canaries(r#"{"share": 0.05}"#, |_| None));
        assert!((846..=1_154).contains(&by_chance), "{by_chance}");
        let by_user =
            count(&canaries(r#"{"share": 0.05, "key": "cookie:user"}"#, |call| Some(call.to_string())));
        assert!((846..=1_154).contains(&by_user), "{by_user}");
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        assert_eq!(count(&canaries(r#"{"share": 0}"#, |_| None)), 0);
        assert_eq!(count(&canaries(r#"{"share": 1}"#, |_| None)), CALLS);
        assert_eq!(share(&0.into()), Some(0));
        assert_eq!(share(&1.into()), Some(1 << 64));
        assert_eq!(share(&0.25.into()), Some(1 << 62));
    }

    #[test]
    fn a_user_is_in_or_out_and_stays_in_when_the_share_grows() {
        let user = |call: usize| Some((call % 2_000).to_string());
        let small = canaries(r#"{"share": 0.05, "key": "cookie:user"}"#, user);
        assert!(small.chunks(2_000).all(|round| round == &small[..2_000]));
        let large = canaries(r#"{"share": 0.2, "key": "cookie:user"}"#, user);
        assert!(small.iter().zip(&large).all(|(small, large)| !small || *large));
        assert!(count(&large) > count(&small));
    }

    #[test]
    fn an_unknown_session_is_in_or_out() {
        let mut policy = policy(r#"{"share": 0.5}"#);
        let mut inside = 0;
        for session in 0..1_000 {
            let mut ask = || {
                let script = Script { session: Some(format!("s-{session}")), ..Script::default() };
                scripted(script, || policy.balance(&[0, 0, 0])).0 == Decision::Worker(1)
            };
            let first = ask();
            assert_eq!(ask(), first);
            inside += usize::from(first);
        }
        // Five standard deviations of a binomial with n = 1,000 and p = 1/2 are 79.
        assert!((421..=579).contains(&inside), "{inside}");
    }

    #[test]
    fn options_are_checked() {
        let complaint = |options| Canary::default().configure(options).unwrap_err();
        for (options, expected) in [
            ("{}", "share: expected a number from 0 to 1, found nothing"),
            (r#"{"share": 5}"#, "share: expected a number from 0 to 1, found 5"),
            (r#"{"share": "5%"}"#, r#"share: expected a number from 0 to 1, found "5%""#),
            (
                r#"{"share": 0.1, "label": "canary"}"#,
                r#"label: expected KEY=VALUE, such as track=canary, found "canary""#,
            ),
        ] {
            assert_eq!(complaint(options), expected);
        }
        assert!(complaint(r#"{"share": 0.1, "key": "user"}"#).starts_with("key: expected query:NAME, "));
    }
}
