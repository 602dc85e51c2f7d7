//! What a setting is; [`KEYS`] is every one of them, once.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use sidetrack_worker::Keepalive;

pub use table::KEYS;

use super::{Admin, Config, Given};
use crate::session::SessionKey;
use crate::telemetry::trace;
use crate::types::Opening;
use crate::worker::{self, Restarts};
use crate::{front, peek, policy, route};

/// A setting: a flag `--name` and a key `name` in the file.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// The flag without its dashes: the name, unless the flag turns something off.
    pub flag: &'static str,
    /// What stands for the value in the help.
    pub value: &'static str,
    pub help: &'static str,
    /// As a user would write it; empty for none.
    pub default: &'static str,
    /// The heading under which the help shows it.
    pub group: &'static str,
    pub kind: Kind,
    /// What a change takes while sidetrack runs.
    pub change: Change,
    apply: fn(&mut Config, &Given) -> Result<(), String>,
}

/// How a setting is written as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--name VALUE`
    One,
    /// `--name VALUE`, any number of times.
    Many,
    /// `--name`, with any number of values.
    Optional,
    /// `--no-name` turns it off.
    Off,
    /// Everything behind `--`.
    Rest,
}

/// What it takes for a changed setting to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It holds at once.
    Hot,
    /// Workers are told of it when they start: they are followed by new ones, one after another.
    Rolling,
    /// sidetrack itself must start anew.
    Restart,
}

impl Key {
    /// The setting of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether two ways to write it mean the same.
    #[must_use]
    pub fn means_the_same(&self, one: Option<&Given>, other: Option<&Given>) -> bool {
        let meaning = |given: Option<&Given>| {
            let mut config = Config::unset();
            let default = (!self.default.is_empty()).then(|| Given::Text(self.default.to_owned()));
            if let Some(given) = given.or(default.as_ref()) {
                // What cannot be set means nothing, as what is not there.
                let _ = self.set(&mut config, given);
            }
            format!("{config:?}")
        };
        meaning(one) == meaning(other)
    }

    /// Sets it.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn set(&self, config: &mut Config, given: &Given) -> Result<(), String> {
        (self.apply)(config, given)
    }
}

impl Config {
    /// Before any setting. What is here and has a default is overwritten by it.
    pub(super) fn unset() -> Self {
        let zero = Duration::ZERO;
        Self {
            pools: Vec::new(),
            command: Vec::new(),
            user: None,
            group: None,
            folder: None,
            environment: Vec::new(),
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            policy: Vec::new(),
            policy_config: None,
            shadow: None,
            policy_settings: policy::Settings::default(),
            policy_watch: true,
            admin: Admin::Default,
            admin_listen: None,
            admin_token_file: None,
            tagged_sids: false,
            listen: Vec::new(),
            opening: Opening::Request,
            front: front::Settings::default(),
            watch: None,
            shim: true,
            ready_file: None,
            log: String::new(),
            log_format: trace::Format::Human,
            otlp_endpoint: None,
            otlp_sample: 0.0,
            access_log: None,
            access_log_sample: 0.0,
            access_log_keep: Vec::new(),
            peek: peek::Settings { limit: 0, timeout: zero },
            route: route::Settings {
                session_key: SessionKey::Query("sid".to_owned()),
                hold: zero,
                worker_wait: zero,
            },
            worker: worker::Settings {
                facts: BTreeMap::new(),
                window: 1,
                queue: 0,
                queue_wait: zero,
                unresponsive_after: zero,
                replace_after: zero,
                start_timeout: zero,
                restarts: Restarts {
                    first: Duration::from_millis(100),
                    longest: Duration::from_secs(10),
                    budget: 0,
                    budget_untried: 0,
                    settled: Duration::from_secs(10),
                },
            },
            retire_timeout: zero,
            drain_timeout: zero,
            written: BTreeMap::new(),
            max_pending: 1,
            max_sessions: 1,
            session_idle: zero,
            join_socket: None,
            join_group: None,
            keepalive: Keepalive::HandBack,
        }
    }
}

/// What to say about a key that does not exist.
pub(super) fn unknown(name: &str) -> String {
    let close = |key: &&Key| distance(key.name, name) <= 3.min(name.len() / 2 + 1);
    let nearest = KEYS.iter().filter(close).min_by_key(|key| distance(key.name, name));
    let hint = nearest.map_or_else(String::new, |key| format!("; did you mean \"{}\"?", key.name));
    format!("there is no such setting{hint}")
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
