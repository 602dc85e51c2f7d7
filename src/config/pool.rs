//! `[[pool]]`: other commands beside that of the top level, each with its part of the requests.
//!
//! A pool has every setting that the top level has and says what is different: what it does not say is as
//! it is there. Only what makes it a pool of its own (its command, addresses, place to join and facts
//! about its slots) it takes from nobody.

use std::sync::Arc;

use sidetrack_worker::matches::Match;

use super::keys::{self, KEYS};
use super::{Config, Given, Problems, Setting};
use crate::listener::ListenAddress;
use crate::pool::DEFAULT;

/// A pool besides the default one.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: Arc<str>,
    /// Its part of the requests at common addresses; empty for one with addresses of its own.
    pub matches: Vec<Match>,
    /// The settings of the top level with its own over them. Those of the whole run mean nothing here.
    pub config: Config,
}

/// What may differ between pools, besides their names and matches.
const SETTINGS: &[&str] = &[
    "command",
    "workers",
    "user",
    "group",
    "cwd",
    "env",
    "policy",
    "policy-config",
    "shadow",
    "shim",
    "listen",
    "session-key",
    "keepalive",
    "join-socket",
    "join-group",
    "hold",
    "worker-wait",
    "max-sessions",
    "session-idle",
    "weight",
    "label",
    "tagged-sids",
    "window",
    "queue",
    "queue-wait",
    "unresponsive-after",
    "replace-after",
    "start-timeout",
    "restarts",
    "policy-fuel",
    "policy-memory",
    "policy-trial",
    "policy-watch",
    "policy-cache",
];

/// Those that a pool has from nobody.
const OWN: &[&str] = &["command", "listen", "join-socket", "join-group", "weight", "label"];

/// Whether a setting may differ between pools.
pub(super) fn has(name: &str) -> bool {
    SETTINGS.contains(&name)
}

/// The key of all pools in the file.
pub(super) const KEY: &str = "pool";

/// The longest name: it begins every slot's.
const LONGEST_NAME: usize = 32;

/// Every worker is told all matches, in one variable and one line.
const LONGEST_MATCHES: usize = 2048;

/// Makes sense of `[[pool]]`. What is wrong is added to `problems`.
pub(super) fn read(top: &Config, setting: &Setting, problems: &mut Problems) -> Vec<PoolConfig> {
    let tables = match &setting.given {
        Given::Value(toml::Value::Array(values)) => values.iter().map(toml::Value::as_table).collect(),
        _ => None,
    };
    let Some(tables) = tables else {
        problems.add(
            &setting.origin,
            format!("expected tables, each under a line [[pool]], found {}", setting.given),
        );
        return Vec::new();
    };
    let tables: Vec<&toml::Table> = tables;
    tables
        .into_iter()
        .enumerate()
        .map(|(number, table)| one(top, &setting.origin, number, table, problems))
        .collect()
}

fn one(
    top: &Config,
    origin: &str,
    number: usize,
    table: &toml::Table,
    problems: &mut Problems,
) -> PoolConfig {
    let name = match table.get("name").and_then(toml::Value::as_str) {
        Some(name) => Arc::from(name),
        None => Arc::from(format!("#{}", number + 1)),
    };
    let place = |key: &str| format!("{origin}.{name}.{key}");
    match table.get("name") {
        None => problems.add(place("name"), "a pool needs a name, such as name = \"api\""),
        Some(toml::Value::String(name)) if is_name(name) => {}
        Some(toml::Value::String(name)) if name == DEFAULT => problems.add(
            place("name"),
            "that is the pool of the settings outside [[pool]]; give this one another name",
        ),
        Some(value) => problems.add(
            place("name"),
            format!("expected up to {LONGEST_NAME} letters, digits, - or _, found {value}"),
        ),
    }
    let mut matches = Vec::new();
    if let Some(value) = table.get("match") {
        match Given::Value(value.clone()).list() {
            Ok(list) => {
                for text in list {
                    match text.parse::<Match>() {
                        Ok(known) => matches.push(known),
                        Err(error) => problems.add(place("match"), error.to_string()),
                    }
                }
            }
            Err(error) => problems.add(place("match"), error),
        }
    }
    let mut config = heir(top, table);
    for (key, value) in table.iter().filter(|(key, _)| !["name", "match"].contains(&key.as_str())) {
        let known = KEYS.iter().find(|known| known.name == key);
        let set = match known {
            None => Err(keys::unknown(key)),
            Some(known) if !SETTINGS.contains(&known.name) => {
                Err("that is a setting of the whole run; say it outside [[pool]]".to_owned())
            }
            Some(known) => {
                let given = Given::Value(value.clone());
                let set = known.set(&mut config, &given);
                if set.is_ok() {
                    let (key, origin) = (key.clone(), place(key));
                    config.written.insert(known.name, Setting { key, given, origin });
                }
                set
            }
        };
        if let Err(error) = set {
            problems.add(place(key), error);
        }
    }
    config.settle_options(|error| problems.add(place("policy-config"), error));
    for listen in &mut config.listen {
        listen.pool = Some(Arc::clone(&name));
    }
    // Slots are named after their pool, in weights and labels with or without it.
    let prefix = format!("{name}.");
    let facts = std::mem::take(&mut config.worker.facts);
    let full = |slot: String| if slot.starts_with(&prefix) { slot } else { format!("{prefix}{slot}") };
    config.worker.facts = facts.into_iter().map(|(slot, facts)| (full(slot), facts)).collect();
    PoolConfig { name, matches, config }
}

/// The settings that a pool begins with.
fn heir(top: &Config, own: &toml::Table) -> Config {
    let mut config = top.clone();
    config.pools.clear();
    config.command.clear();
    config.listen.clear();
    config.join_socket = None;
    config.join_group = None;
    config.worker.facts.clear();
    // What is no pool's setting is the top level's to tell of.
    config.written.retain(|name, _| SETTINGS.contains(name) && !OWN.contains(name));
    if own.contains_key("policy-config") && !own.contains_key("policy") {
        // Options over those that the top level has given to the same policy.
        if let [link] = config.policy.as_mut_slice() {
            link.options = "{}".to_owned();
        }
    }
    config
}

fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(sound) && name != DEFAULT
}

/// Whatever concerns more than one pool.
pub(super) fn check(top: &Config, problems: &mut Problems) {
    let pools = &top.pools;
    let default = top.has_default_pool();
    for (place, pool) in pools.iter().enumerate() {
        let key = |key: &str| format!("pool.{}.{key}", pool.name);
        let before = &pools[..place];
        if before.iter().any(|other| other.name == pool.name) {
            problems.add(key("name"), "another pool has that name; every pool needs one of its own");
        }
        match (pool.matches.is_empty(), pool.config.listen.is_empty()) {
            (true, true) => problems.add(
                key("match"),
                "no request would ever come to it; say which do, such as match = \"/api\" or match = \"api.example.com\", or where it listens alone, with listen",
            ),
            (false, false) => problems.add(
                key("listen"),
                "it has a match already: a pool has its part of the common addresses, or addresses that are its own; make two pools of it",
            ),
            _ => {}
        }
        for (at, known) in pool.matches.iter().enumerate() {
            if pool.matches[..at].contains(known) {
                problems.add(key("match"), format!("\"{known}\" is there twice"));
            }
            if let Some(other) = before.iter().find(|other| other.matches.contains(known)) {
                problems.add(key("match"), format!("\"{known}\" is pool {}'s already", other.name));
            }
            if default && *known == Match::any() {
                let text = "\"/\" leaves nothing for the default pool; leave it out, or the command outside [[pool]]";
                problems.add(key("match"), text);
            }
        }
        let others = before.iter().map(|other| &other.config.listen).chain([&top.listen]).flatten();
        for listen in &pool.config.listen {
            let free = matches!(listen.address, ListenAddress::Tcp { port: 0, .. });
            if !free && others.clone().any(|other| other.address == listen.address) {
                problems.add(key("listen"), format!("{} is listened on for others already", listen.address));
            }
        }
        let how = "command = [\"node\", \"server.js\"]";
        problems.append(&format!("pool.{}.", pool.name), pool.config.check_workers(how));
        // What is wrong at the top level is not said again for each pool that has it from there.
        if pool.config.patience() != top.patience() {
            problems.append(&format!("pool.{}.", pool.name), pool.config.check_patience());
        }
    }
    let shared = default || pools.iter().any(|pool| !pool.matches.is_empty());
    if !pools.is_empty() && shared && top.listen.is_empty() {
        problems.add(
            "listen",
            "with [[pool]] it has to be said where to listen, such as listen = \":3000\": the servers of several pools may ask for several places",
        );
    }
    let length: usize =
        pools.iter().flat_map(|pool| &pool.matches).map(|known| known.to_string().len() + 2).sum();
    if length > LONGEST_MATCHES {
        problems.add(
            "pool",
            format!("all matches together are {length} characters long; {LONGEST_MATCHES} is the most"),
        );
    }
}
