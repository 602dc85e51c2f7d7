//! What is different between the configuration that runs and another one. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::{Change, KEYS, Key};
use super::{Config, Given, PoolConfig, Setting, pool};
use crate::pool::{DEFAULT, place};

/// All differences: in the order of the help, pool by pool.
#[derive(Debug, Clone, Default)]
pub struct Diff {
    pub lines: Vec<Line>,
}

/// A setting that is another one.
#[derive(Debug, Clone)]
pub struct Line {
    pub pool: Arc<str>,
    pub name: &'static str,
    pub change: Change,
    /// As somebody wrote them, or their defaults; none where a setting is not there and has none.
    pub old: Option<Given>,
    pub new: Option<Given>,
}

/// Settings that were changed while sidetrack runs, by other ways than its configuration; by their places.
pub type Overrides = BTreeMap<String, Given>;

impl Line {
    /// Where it is in the configuration.
    #[must_use]
    pub fn path(&self) -> String {
        place(&self.pool, self.name)
    }
}

impl Diff {
    /// Compares by meaning: a default that is written down is no difference. A setting that somebody has
    /// changed by hand counts as it runs, and only when the configuration itself has changed it.
    #[must_use]
    pub fn between(old: &Config, new: &Config, by_hand: &Overrides) -> Self {
        let mut lines = compared(&DEFAULT.into(), (old, new), by_hand, |_| true);
        let named = |config: &Config, name: &str| config.pools.iter().position(|pool| &*pool.name == name);
        for before in &old.pools {
            match named(new, &before.name).map(|place| &new.pools[place]) {
                Some(after) => {
                    lines.extend(structure(&before.name, "match", matches(before), matches(after)));
                    let both = (&before.config, &after.config);
                    lines.extend(compared(&before.name, both, by_hand, pool::has));
                }
                None => lines.extend(structure(&before.name, "name", Some(text(&before.name)), None)),
            }
        }
        for fresh in new.pools.iter().filter(|pool| named(old, &pool.name).is_none()) {
            lines.extend(structure(&fresh.name, "name", None, Some(text(&fresh.name))));
        }
        Self { lines }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What is about one pool; of the default one also what is about the whole run.
    #[must_use]
    pub fn of(&self, pool: &str) -> Self {
        Self { lines: self.lines.iter().filter(|line| &*line.pool == pool).cloned().collect() }
    }

    /// Whether a setting is among them and takes effect now.
    #[must_use]
    pub fn changes(&self, names: &[&str]) -> bool {
        self.lines.iter().any(|line| line.change != Change::Restart && names.contains(&line.name))
    }

    /// Those that take a restart of sidetrack itself.
    #[must_use]
    pub fn postponed(&self) -> Vec<String> {
        self.lines.iter().filter(|line| line.change == Change::Restart).map(Line::path).collect()
    }

    /// Whether workers must be followed by new ones.
    #[must_use]
    pub fn rolls(&self) -> bool {
        self.lines.iter().any(|line| line.change == Change::Rolling)
    }
}

fn compared(
    pool: &Arc<str>,
    (old, new): (&Config, &Config),
    by_hand: &Overrides,
    concerned: impl Fn(&str) -> bool,
) -> Vec<Line> {
    let line = |key: &'static Key| {
        let (old, new) = (written(old, key), written(new, key));
        if key.means_the_same(old.as_ref(), new.as_ref()) {
            return None;
        }
        let old = by_hand.get(&place(pool, key.name)).cloned().or(old);
        let differs = !key.means_the_same(old.as_ref(), new.as_ref());
        let (pool, name, change) = (Arc::clone(pool), key.name, key.change);
        differs.then_some(Line { pool, name, change, old, new })
    };
    KEYS.iter().filter(|key| concerned(key.name)).filter_map(line).collect()
}

/// What makes a pool, which only a start can.
fn structure(pool: &Arc<str>, name: &'static str, old: Option<Given>, new: Option<Given>) -> Option<Line> {
    let told = |given: &Option<Given>| given.as_ref().map(ToString::to_string);
    let differs = told(&old) != told(&new);
    differs.then(|| Line { pool: Arc::clone(pool), name, change: Change::Restart, old, new })
}

fn matches(pool: &PoolConfig) -> Option<Given> {
    let list: Vec<String> = pool.matches.iter().map(ToString::to_string).collect();
    (!list.is_empty()).then_some(Given::List(list))
}

fn text(name: &str) -> Given {
    Given::Text(name.to_owned())
}

fn written(config: &Config, key: &Key) -> Option<Given> {
    let default = || Some(Given::Text(key.default.to_owned())).filter(|_| !key.default.is_empty());
    config.written.get(key.name).map(|setting| setting.given.clone()).or_else(default)
}

impl Config {
    /// The settings as they were written, some of them as in another configuration, which also says what
    /// pools there are.
    #[must_use]
    pub fn with(&self, other: &Self, others: impl Fn(&Key) -> bool) -> Vec<Setting> {
        let from = |key: &Key| if others(key) { other } else { self };
        let mut settings: Vec<Setting> =
            KEYS.iter().filter_map(|key| from(key).written.get(key.name).cloned()).collect();
        settings.extend(other.written.get(pool::KEY).map(|setting| {
            let own = self.written.get(pool::KEY);
            Setting { given: blended(own.map(|own| &own.given), &setting.given, &others), ..setting.clone() }
        }));
        settings
    }

    /// Changes one setting of a configuration that holds, at its place. A value that is none changes nothing.
    pub fn put(&mut self, pool: &str, name: &str, given: &Given) {
        let config = match self.pools.iter_mut().find(|other| &*other.name == pool) {
            Some(pool) => &mut pool.config,
            None => self,
        };
        if let Some(key) = Key::named(name) {
            // The error would say what is wrong with it; whoever needs to know has asked before.
            let _ = key.set(config, given);
        }
    }

    /// The settings of a pool.
    #[must_use]
    pub fn of(&self, pool: &str) -> &Self {
        self.pools.iter().find(|other| &*other.name == pool).map_or(self, |pool| &pool.config)
    }
}

/// Another configuration's pools, with those of their settings that are not `others`' as in `own`.
fn blended(own: Option<&Given>, other: &Given, others: &impl Fn(&Key) -> bool) -> Given {
    let tables = |given: &Given| match given {
        Given::Value(toml::Value::Array(values)) => values.clone(),
        _ => Vec::new(),
    };
    let own = own.map(&tables).unwrap_or_default();
    let blend = |theirs: toml::Value| {
        let ours = own.iter().find(|table| table.get("name") == theirs.get("name"));
        let (Some(ours), Some(theirs)) = (ours.and_then(toml::Value::as_table), theirs.as_table()) else {
            return theirs;
        };
        let kept = |name: &str| Key::named(name).is_none_or(others);
        let taken = ours.iter().filter(|(name, _)| !kept(name));
        let stays = theirs.iter().filter(|(name, _)| kept(name));
        let table: toml::Table =
            taken.chain(stays).map(|(name, value)| (name.clone(), value.clone())).collect();
        toml::Value::Table(table)
    };
    Given::Value(toml::Value::Array(tables(other).into_iter().map(blend).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let table: toml::Table = format!("command = \"true\"\n{text}").parse().unwrap();
        let setting = |(key, value): (String, toml::Value)| Setting {
            origin: key.clone(),
            key,
            given: Given::Value(value),
        };
        Config::new(&table.into_iter().map(setting).collect::<Vec<_>>()).unwrap()
    }

    fn between(old: &str, new: &str) -> Diff {
        Diff::between(&config(old), &config(new), &Overrides::new())
    }

    fn told(diff: &Diff) -> Vec<String> {
        let value =
            |given: &Option<Given>| given.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        diff.lines
            .iter()
            .map(|line| format!("{} {} {}", line.path(), value(&line.old), value(&line.new)))
            .collect()
    }

    #[test]
    fn what_means_the_same_is_no_difference() {
        assert!(between("", "head-limit = \"16KiB\"\nhead-timeout = \"10000ms\"\nlog = \"info\"").is_empty());
        assert!(between("head-limit = 8192", "head-limit = \"8KiB\"").is_empty());
        assert!(between("policy = \"hash\"", "policy = [\"hash\"]").is_empty());
        assert!(between("weight = [\"w0=2\", \"w1=3\"]", "weight = [\"w1=3\", \"w0=2\"]").is_empty());
    }

    #[test]
    fn each_difference_has_both_values_and_what_it_takes() {
        let diff = between(
            "workers = 2\njoin-socket = \"/tmp/a\"\nhold = \"1s\"",
            "workers = 3\nlisten = [\":80\"]\nkeepalive = \"close\"\njoin-socket = \"/tmp/b\"",
        );
        assert_eq!(
            told(&diff),
            [
                "workers 2 3",
                "listen - [\":80\"]",
                "keepalive \"hand-back\" \"close\"",
                "join-socket \"/tmp/a\" \"/tmp/b\"",
                "hold \"1s\" \"300ms\"",
            ]
        );
        assert_eq!(diff.postponed(), ["join-socket"]);
        assert!(diff.rolls() && diff.changes(&["hold"]) && !diff.changes(&["join-socket"]));
        assert!(!between("workers = 2", "workers = 3").rolls());
    }

    #[test]
    fn what_takes_a_restart_stays_as_it_is_and_is_told_again() {
        let (old, new) = (config("session-key = \"path:1\""), config("hold = \"1s\""));
        let merged = Config::new(&new.with(&old, |key| key.change == Change::Restart)).unwrap();
        assert_eq!(
            (merged.route.session_key.to_string(), merged.route.hold.as_secs()),
            ("path:1".to_owned(), 1)
        );
        let again = Diff::between(&merged, &new, &Overrides::new());
        assert_eq!(told(&again), ["session-key \"path:1\" \"query:sid\""]);
    }

    #[test]
    fn pools_are_compared_by_name_and_made_only_by_a_start() {
        let pools = |hold: &str, api: &str, more: &str| {
            format!(
                "listen = \":0\"\nhold = \"{hold}\"\n[[pool]]\nname = \"api\"\nmatch = \"/api\"\ncommand = \"true\"\n{api}{more}"
            )
        };
        let old = config(&pools("1s", "workers = 2\n", ""));
        let chat = "[[pool]]\nname = \"chat\"\nmatch = \"/chat\"\ncommand = \"true\"\n";
        let new = config(&pools("2s", "workers = 3\nsession-key = \"path:1\"\n", chat));
        let diff = Diff::between(&old, &new, &Overrides::new());
        assert_eq!(
            told(&diff),
            [
                "hold \"1s\" \"2s\"",
                "pool.api.workers 2 3",
                "pool.api.session-key \"query:sid\" \"path:1\"",
                "pool.api.hold \"1s\" \"2s\"",
                "pool.chat.name - \"chat\"",
            ]
        );
        assert_eq!(diff.postponed(), ["pool.api.session-key", "pool.chat.name"]);
        let merged = Config::new(&new.with(&old, |key| key.change == Change::Restart)).unwrap();
        assert_eq!((merged.pools.len(), merged.of("api").workers), (1, 3));
        assert_eq!(merged.of("api").route.session_key.to_string(), "query:sid");
        let again = Diff::between(&merged, &new, &Overrides::new());
        assert_eq!(again.postponed(), diff.postponed());
        assert_eq!(again.lines.len(), 2);
    }

    #[test]
    fn what_was_changed_by_hand_stays_unless_the_configuration_changes_it() {
        let by_hand = Overrides::from([("workers".to_owned(), Given::Text("5".to_owned()))]);
        let between = |old: &str, new: &str| told(&Diff::between(&config(old), &config(new), &by_hand));
        assert!(between("workers = 2", "workers = 2\nlog = \"info\"").is_empty());
        assert_eq!(between("workers = 2", "workers = 3"), ["workers \"5\" 3"]);
        assert!(between("workers = 2", "workers = 5").is_empty(), "it runs so already");
    }

    #[test]
    fn the_manual_says_what_each_setting_takes() {
        let manual = include_str!("../../docs/operations.md");
        for key in KEYS {
            let row = match key.change {
                Change::Hot => "| hot |",
                Change::Rolling => "| rolling restart |",
                Change::Restart => "| needs restart |",
            };
            let row = manual.lines().find(|line| line.starts_with(row)).unwrap();
            assert!(row.contains(&format!("`{}`", key.name)), "{} is not in: {row}", key.name);
        }
    }

    #[test]
    fn every_setting_is_compared() {
        // Two values that mean different things, for each.
        for key in KEYS {
            let differs = |one: &str, other: &str| {
                let text = |text: &str| Given::Text(text.to_owned());
                !key.means_the_same(Some(&text(one)), Some(&text(other)))
            };
            let pairs = [
                ("1", "2"),
                ("3s", "4s"),
                ("5m", "6m"),
                ("8KiB", "9KiB"),
                ("65536", "65537"),
                ("1000", "2000"),
                ("true", "false"),
                ("random", "hash"),
                ("query:a", "query:b"),
                ("close", "worker"),
                ("w0=2", "w0=3"),
                ("w0:a=b", "w0:a=c"),
                ("info", "debug"),
                ("human", "json"),
                (":1", ":2"),
                ("/a", "/b"),
                ("10.0.0.0/8", "10.0.0.0/9"),
                ("forwarded", "x-forwarded-for"),
                ("1/s", "2/s"),
                ("127.0.0.1:1", "127.0.0.1:2"),
            ];
            assert!(pairs.iter().any(|(one, other)| differs(one, other)), "{}", key.name);
        }
    }
}
