//! What a run is told: flags and file to one [`Config`] whose values cannot be wrong.
//!
//! Every setting is declared once, in [`KEYS`]: its flag, its key in the file, its
//! help, its default and its meaning all come from that declaration. Problems are collected, not
//! thrown: whoever made five mistakes reads five lines.

mod check;
mod diff;
mod keys;
mod pool;
mod problem;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sidetrack_worker::Keepalive;

pub use diff::{Diff, Line, Overrides};
pub use keys::{Change, KEYS, Key, Kind};
pub use pool::PoolConfig;
pub use problem::{Problem, Problems};
pub use value::Given;

use crate::listener::Listen;
use crate::policy::PolicyLink;
use crate::pool::DEFAULT;
use crate::record::Keep;
use crate::sys::account::{Account, AccountError};
use crate::telemetry::trace::Format;
use crate::types::Opening;
use crate::worker::JoinSettings;
use crate::{access_log, front, peek, policy, route, worker};

/// A whole run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The pools besides the one that is described here.
    pub pools: Vec<PoolConfig>,
    /// The worker's command and its arguments.
    pub command: Vec<String>,
    pub workers: usize,
    /// Whom workers run as.
    pub user: Option<String>,
    pub group: Option<String>,
    /// Where they run.
    pub folder: Option<PathBuf>,
    /// What they find in their environment besides what is in ours.
    pub environment: Vec<(String, String)>,
    /// The chain, without its native last link.
    pub policy: Vec<PolicyLink>,
    policy_config: Option<String>,
    /// Asked beside the chain and never heeded.
    pub shadow: Option<PolicyLink>,
    pub policy_settings: policy::Settings,
    /// Load policy files again when they change.
    pub policy_watch: bool,
    pub admin: Admin,
    /// Where the admin interface is on TCP, too.
    pub admin_listen: Option<SocketAddr>,
    pub admin_token_file: Option<PathBuf>,
    /// Workers begin new session ids with their slot's name.
    pub tagged_sids: bool,
    pub listen: Vec<Listen>,
    /// What connections begin with where an address does not say.
    pub opening: Opening,
    pub front: front::Settings,
    pub shim: bool,
    pub ready_file: Option<PathBuf>,
    pub log: String,
    pub log_format: Format,
    /// Where traces are sent.
    pub otlp_endpoint: Option<String>,
    /// Of all connections, from 0 to 1.
    pub otlp_sample: f64,
    pub access_log: Option<PathBuf>,
    /// Of all decisions, from 0 to 1.
    pub access_log_sample: f64,
    pub access_log_keep: Vec<Keep>,
    pub peek: peek::Settings,
    pub route: route::Settings,
    pub worker: worker::Settings,
    /// How long a worker that is followed by another, or not wanted any more, keeps what it has.
    pub retire_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_pending: usize,
    pub max_sessions: usize,
    pub session_idle: Duration,
    pub keepalive: Keepalive,
    /// Where workers from outside join.
    pub join_socket: Option<PathBuf>,
    /// Who may, besides this user.
    pub join_group: Option<String>,
    /// Restart workers when files below these paths change; below the command's own folder when there are none.
    pub watch: Option<Vec<PathBuf>>,
    /// Every setting that was given, as it was written.
    pub written: BTreeMap<&'static str, Setting>,
}

/// How long a worker keeps what it has when its code has changed and nobody says otherwise: whoever
/// changes code wants to see the new one.
const WATCHED_RETIRE: Duration = Duration::from_secs(5);

/// Where the admin interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// Where the commands look by themselves.
    Default,
    At(PathBuf),
    Off,
}

/// One setting as somebody gave it.
#[derive(Debug, Clone)]
pub struct Setting {
    pub key: String,
    pub given: Given,
    /// `--workers`, or `sidetrack.toml: workers`.
    pub origin: String,
}

/// Where a run's configuration comes from: what it is read from again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// What goes without saying; whatever is said wins.
    pub unsaid: Vec<Setting>,
    pub file: Option<PathBuf>,
    /// From the command line; they win.
    pub flags: Vec<Setting>,
}

impl Source {
    /// File and flags together.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(&self) -> Result<Config, Problems> {
        let mut settings = self.unsaid.clone();
        if let Some(path) = &self.file {
            settings.extend(read(path)?);
        }
        settings.extend(self.flags.iter().cloned());
        Config::new(&settings)
    }
}

/// Reads a configuration file into settings.
///
/// # Errors
/// When the file cannot be read or is not TOML.
pub fn read(path: &Path) -> Result<Vec<Setting>, Problems> {
    let problem = |text: String| Problems::one(path.display().to_string(), text);
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot read it: {error}")))?;
    parse(&text, &path.display().to_string())
}

/// Reads the text of such a file, by whatever name it goes, into settings.
///
/// # Errors
/// When it is not TOML.
pub fn parse(text: &str, name: &str) -> Result<Vec<Setting>, Problems> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Problems::one(name, error.to_string().trim().to_owned()))?;
    let setting = |(key, value): (String, toml::Value)| Setting {
        origin: format!("{name}: {key}"),
        key,
        given: Given::Value(value),
    };
    Ok(table.into_iter().map(setting).collect())
}

impl Config {
    /// Makes sense of settings; later ones win over earlier ones.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(settings: &[Setting]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut config = Self::unset();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            // A default is written as a user would write it. That all of them are valid is tested.
            if let Err(error) = key.set(&mut config, &Given::Text(key.default.to_owned())) {
                problems.add(key.name, error);
            }
        }
        let (pools, settings): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.key == "pool");
        for setting in settings {
            match Key::named(&setting.key) {
                // One that another overrides is looked at all the same.
                Some(key) => match key.set(&mut Self::unset(), &setting.given) {
                    Ok(()) => drop(config.written.insert(key.name, setting.clone())),
                    Err(error) => problems.add(&setting.origin, error),
                },
                None => problems.add(&setting.origin, keys::unknown(&setting.key)),
            }
        }
        for (name, Setting { given, .. }) in config.written.clone() {
            // It was valid a moment ago.
            let _ = Key::named(name).map(|key| key.set(&mut config, &given));
        }
        if config.watch.is_some() && !config.written.contains_key("retire-timeout") {
            config.retire_timeout = WATCHED_RETIRE;
        }
        config.settle_options(|error| problems.add("policy-config", error));
        for setting in pools {
            let pools = pool::read(&config, setting, &mut problems);
            config.pools.extend(pools);
            config.written.insert(pool::KEY, setting.clone());
        }
        config.check(&mut problems);
        problems.into_result(config)
    }

    /// Whether the settings outside `[[pool]]` are a pool's, too: the only one, or that of everything which
    /// is for no other.
    #[must_use]
    pub fn has_default_pool(&self) -> bool {
        self.pools.is_empty() || !self.command.is_empty() || self.join_socket.is_some()
    }

    /// The settings of each pool, the default one's first.
    pub fn each(&self) -> impl Iterator<Item = (Arc<str>, &Self)> {
        let default = self.has_default_pool().then(|| (DEFAULT.into(), self));
        let others = self.pools.iter().map(|pool| (Arc::clone(&pool.name), &pool.config));
        default.into_iter().chain(others)
    }

    /// Every address to listen on, for all pools.
    #[must_use]
    pub fn listens(&self) -> Vec<Listen> {
        let own = self.pools.iter().flat_map(|pool| &pool.config.listen);
        self.listen.iter().chain(own).cloned().collect()
    }

    /// Options that were given beside their policy.
    fn settle_options(&mut self, problem: impl FnOnce(String)) {
        match (self.policy_config.take(), self.policy.as_mut_slice()) {
            (None, _) => {}
            (Some(options), [link]) if link.options == "{}" => link.options = options,
            (Some(_), links) => problem(format!(
                "it is for a single policy without options of its own, and there are {}; write options right behind each policy, as in hash{{\"key\": \"path\"}}",
                links.len()
            )),
        }
    }

    /// Where and how workers from outside join, if they may.
    #[must_use]
    pub fn join(&self) -> Option<JoinSettings> {
        let path = self.join_socket.clone()?;
        Some(JoinSettings { path, group: self.join_group.clone() })
    }

    /// Whom workers run as, when it is not who we are.
    ///
    /// # Errors
    /// When there is nobody of that name, or workers cannot be started as somebody else.
    pub fn account(&self) -> Result<Option<Account>, AccountError> {
        Account::find(self.user.as_deref(), self.group.as_deref())
    }

    /// What the access log is to be, if there is to be one.
    #[must_use]
    pub fn access_log(&self) -> Option<access_log::Settings> {
        let path = self.access_log.clone()?;
        Some(access_log::Settings { path, share: self.access_log_sample, keep: self.access_log_keep.clone() })
    }

    /// Where traces are to be sent, if anywhere.
    ///
    /// # Errors
    /// When that is no collector; in words.
    #[cfg(feature = "otlp")]
    pub fn traces(&self) -> Result<Option<crate::traces::Settings>, String> {
        let settings = |url: &String| crate::traces::Settings::new(url, self.otlp_sample);
        self.otlp_endpoint.as_ref().map(settings).transpose()
    }

    /// Settings that stay as they are for as long as a process lives, whatever program runs in it: what was
    /// opened by them goes on.
    #[must_use]
    pub fn fixed(&self) -> BTreeMap<String, String> {
        let admin = match &self.admin {
            Admin::Default => "the usual place".to_owned(),
            Admin::At(path) => path.display().to_string(),
            Admin::Off => "off".to_owned(),
        };
        let admin_listen = self.admin_listen.as_ref().map(ToString::to_string);
        let mut fixed = BTreeMap::from(
            [
                ("admin", admin),
                ("admin-listen", admin_listen.unwrap_or_default()),
                ("proxy-protocol", (self.opening == Opening::Preamble).to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        for (pool, config) in self.each() {
            let listen = |listen: &Listen| match listen.opening {
                None => listen.to_string(),
                Some(Opening::Preamble) => format!("{listen} with a PROXY header"),
                Some(Opening::Request) => format!("{listen} without a PROXY header"),
            };
            let listen: Vec<_> = config.listen.iter().map(listen).collect();
            let join = config.join_socket.as_ref().map(|path| path.display().to_string());
            let own = [
                ("listen", listen.join(", ")),
                ("workers", config.workers.to_string()),
                ("join-socket", join.unwrap_or_default()),
                ("join-group", config.join_group.clone().unwrap_or_default()),
            ];
            fixed.extend(own.map(|(key, value)| (crate::pool::place(&pool, key), value)));
        }
        fixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &str, value: &str) -> Setting {
        Setting { key: key.into(), given: Given::Text(value.into()), origin: format!("--{key}") }
    }

    fn file(text: &str) -> Result<Config, Problems> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidetrack.toml");
        std::fs::write(&path, text).unwrap();
        Config::new(&read(&path)?)
    }

    #[test]
    fn defaults_are_valid_and_a_command_is_all_that_is_needed() {
        let config = Config::new(&[text("command", "true")]).unwrap();
        assert!(config.workers >= 1);
        assert_eq!(config.peek.limit, 16 * 1024);
        assert_eq!(config.route.hold, Duration::from_millis(300));
        assert_eq!(config.route.session_key.to_string(), "query:sid");
        assert!(config.shim);
    }

    #[test]
    fn later_settings_win() {
        let settings = [text("command", "true"), text("workers", "2"), text("workers", "3")];
        assert_eq!(Config::new(&settings).unwrap().workers, 3);
    }

    #[test]
    fn a_file_may_say_all_of_it() {
        let config = file(
            r#"
            command = ["sh", "-c", "true"]
            workers = 2
            policy = "round-robin"
            listen = ["127.0.0.1:0", "unix:/tmp/app.sock"]
            session-key = "cookie:io"
            shim = false
            head-timeout = "2s"
            head-limit = "8KiB"
            "#,
        )
        .unwrap();
        assert_eq!(config.command, ["sh", "-c", "true"]);
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.peek.limit, 8 * 1024);
        assert!(!config.shim);
    }

    #[test]
    fn a_shadow_is_one_policy_with_its_options() {
        let shadow = |text: &str| file(&format!("command = \"true\"\nshadow = {text}"));
        let config = shadow(r#"{ use = "hash", config = { key = "path" } }"#).unwrap();
        assert_eq!(config.shadow.map(|link| link.to_string()).as_deref(), Some(r#"hash{"key":"path"}"#));
        assert_eq!(shadow("\"random\"").unwrap().shadow.map(|link| link.options).as_deref(), Some("{}"));
        let problems = shadow(r#"["random", "hash"]"#).unwrap_err().to_string();
        assert!(problems.contains("expected a single policy, found [\"random\", \"hash\"]"), "{problems}");
        assert!(Config::new(&[text("command", "true")]).unwrap().shadow.is_none());
    }

    #[test]
    fn five_mistakes_are_five_problems_with_key_value_and_way_out() {
        let problems = file(
            r#"
            command = "no-such-program-anywhere"
            workers = "four"
            listne = [":80"]
            session-key = "sid"
            head-timeout = 5
            "#,
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "no-such-program-anywhere",
            "\"four\"",
            "listne",
            "did you mean \"listen\"",
            "query:NAME",
            "with a unit",
        ] {
            assert!(problems.contains(expected), "{expected} is missing in:\n{problems}");
        }
        assert_eq!(problems.lines().count(), 6, "{problems}");
    }
}
