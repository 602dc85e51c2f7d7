//! Tagged session ids: the id itself says which worker the session lives on, so no table is needed.
//!
//! A session id is a worker's name, a separator and the rest: `w2.lv_VI97HAXpY6yY`. Option
//! `separator`, such as `{"separator": "-"}`, is 1 to 8 characters and `.` by default. Workers make
//! such ids themselves. The name is that of the slot: a worker that was restarted gets the requests of
//! its predecessor's sessions too, and can tell the client that they are gone.
//!
//! The worker named gets the connection, also when it is draining or weighs 0, since the session is
//! one that it already has. An id without a tag, or with the name of no worker, is somebody else's to
//! decide, and so is a connection without a session: the next policy of the chain balances those. So is
//! a name that two workers have, which happens while one follows the other in its slot: the host's own table
//! knows whose the session is.
//! When names contain the separator, the longest that fits counts. Nothing is remembered between calls.

use policy_common::Options;
use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export, request};

/// The longest separator, in characters.
const LONGEST: usize = 8;

/// See the crate's documentation.
#[derive(Debug)]
pub struct TaggedSid {
    separator: String,
    /// What the ids of each worker begin with, the longest first.
    tags: Vec<(String, WorkerId)>,
}

impl Default for TaggedSid {
    fn default() -> Self {
        Self { separator: ".".to_owned(), tags: Vec::new() }
    }
}

impl Policy for TaggedSid {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let options = Options::parse(json, &["separator"])?;
        let separator = options.optional("separator", "1 to 8 characters", |value| {
            value.as_str().filter(|text| (1..=LONGEST).contains(&text.chars().count())).map(str::to_owned)
        })?;
        self.separator = separator.unwrap_or_else(|| ".".to_owned());
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        let named = workers.iter().filter(|worker| !worker.name.is_empty());
        self.tags = named.map(|worker| (format!("{}{}", worker.name, self.separator), worker.id)).collect();
        self.tags.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        // While one worker follows another in its slot, the tag of both says nothing.
        let alone = self.tags.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() == 1);
        self.tags = alone.flatten().cloned().collect();
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        request::session().map_or(Decision::Defer, |sid| self.find(&sid, loads))
    }

    fn find(&mut self, sid: &str, _loads: &[u32]) -> Decision {
        self.tags
            .iter()
            .find(|(tag, _)| sid.starts_with(tag.as_str()))
            .map_or(Decision::Defer, |&(_, id)| Decision::Worker(id))
    }
}

export!(TaggedSid, sessions);

#[cfg(test)]
mod tests {
    use super::*;

    fn find(options: &str, names: &[&str], sid: &str) -> Decision {
        let mut policy = TaggedSid::default();
        policy.configure(options).unwrap();
        let workers: Vec<_> = (1..)
            .zip(names)
            .map(|(id, name)| Worker { id, name: (*name).into(), ..Worker::default() })
            .collect();
        policy.set_workers(&workers);
        policy.find(sid, &[])
    }

    #[test]
    fn the_longest_name_that_fits_counts() {
        for names in [["eu", "eu.1"], ["eu.1", "eu"]] {
            let of = |name| (1..).zip(names).find(|&(_, known)| known == name).map(|(id, _)| id).unwrap();
            assert_eq!(find("{}", &names, "eu.1.x"), Decision::Worker(of("eu.1")));
            assert_eq!(find("{}", &names, "eu.2.x"), Decision::Worker(of("eu")));
        }
    }

    #[test]
    fn one_name_is_not_taken_for_another() {
        assert_eq!(find("{}", &["w1", "w10"], "w10.a"), Decision::Worker(2));
        assert_eq!(find("{}", &["w1", "w10"], "w100.a"), Decision::Defer);
        assert_eq!(find("{}", &["", "w1"], ".a"), Decision::Defer);
    }

    #[test]
    fn options_are_checked() {
        let complaint = |options| TaggedSid::default().configure(options).unwrap_err();
        assert_eq!(complaint(r#"{"separator": ""}"#), r#"separator: expected 1 to 8 characters, found """#);
        assert_eq!(
            complaint(r#"{"separator": "123456789"}"#),
            r#"separator: expected 1 to 8 characters, found "123456789""#
        );
        assert_eq!(
            complaint(r#"{"seperator": "."}"#),
            r#"seperator: no such option (its value is "."): expected separator"#
        );
        assert_eq!(find(r#"{"separator": "éééééééé"}"#, &["w1"], "w1éééééééé2"), Decision::Worker(1));
    }
}
