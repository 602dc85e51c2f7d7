//! Hash: whatever a request is about belongs to one worker, by rendezvous hashing.
//!
//! Option `key`, which must be given, says where it is: `{"key": "query:room"}`, `header:NAME`,
//! `cookie:NAME`, `path:N` (a segment, counted from 1), `path` or `session`. All players of a room or
//! all users of a tenant so meet at one worker. A request without the key is somebody else's to decide.
//!
//! The worker is found by its slot's name, so it keeps its keys when it is restarted; a worker more
//! moves its share of the keys to it and no others; weights count. Details are at
//! [`policy_common::Rendezvous`], and who may be chosen at
//! [`policy_common::Eligible`]. Nothing is remembered between calls.

use policy_common::{Key, Options, Rendezvous};
use sidetrack_policy::{Decision, Policy, Worker, export};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct Hash {
    /// None until configured.
    key: Option<Key>,
    rendezvous: Rendezvous,
}

impl Policy for Hash {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let options = Options::parse(json, &["key"])?;
        self.key = Some(options.required("key", Key::EXPECTED, |value| value.as_str()?.parse().ok())?);
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        self.rendezvous = Rendezvous::new(workers);
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        self.key
            .as_ref()
            .and_then(Key::hash)
            .and_then(|key| self.rendezvous.pick(key))
            .map_or(Decision::Defer, Decision::Worker)
    }
}

export!(Hash);

#[cfg(test)]
mod tests {
    use super::*;
    use sidetrack_policy::native::{Script, scripted};

    fn policy(options: &str, names: &[&str]) -> Hash {
        let mut policy = Hash::default();
        policy.configure(options).unwrap();
        let workers: Vec<_> = (0..)
            .zip(names)
            .map(|(id, name)| Worker { id, name: (*name).to_owned(), weight: 1, ..Worker::default() })
            .collect();
        policy.set_workers(&workers);
        policy
    }

    #[test]
    fn a_room_meets_at_one_worker_and_rooms_spread() {
        let mut policy = policy(r#"{"key": "query:room"}"#, &["w0", "w1", "w2", "w3"]);
        let mut rooms = [0; 4];
        for room in 0..4_000 {
            let mut ask = |path: &str| {
                let query = vec![("room".to_owned(), format!("room-{room}"))];
                let script = Script { path: path.into(), query, ..Script::default() };
                scripted(script, || policy.balance(&[])).0
            };
            let Decision::Worker(id) = ask("/") else { panic!("room {room} has no worker") };
            assert_eq!(ask("/elsewhere"), Decision::Worker(id));
            rooms[id as usize] += 1;
        }
        // Five standard deviations of a binomial with n = 4,000 and p = 1/4 are 137.
        assert!(rooms.iter().all(|rooms| (863..=1_137).contains(rooms)), "{rooms:?}");
    }

    #[test]
    fn options_are_checked() {
        let complaint = |options| Hash::default().configure(options).unwrap_err();
        let expected =
            "key: expected query:NAME, header:NAME, cookie:NAME, path:N (counted from 1), path or session";
        assert_eq!(complaint("{}"), format!("{expected}, found nothing"));
        assert_eq!(complaint(r#"{"key": "room"}"#), format!(r#"{expected}, found "room""#));
        assert_eq!(complaint(r#"{"key": 7}"#), format!("{expected}, found 7"));
        assert_eq!(complaint(r#"{"keys": 7}"#), "keys: no such option (its value is 7): expected key");
    }
}
