//! What a worker is told about its surroundings.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::matches::Matches;
use crate::session_key::SessionKey;
use crate::wire;

/// A worker's surroundings, as sidetrack describes them in its environment or when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The worker's slot: `w0`, `w1`, …
    pub slot: Option<String>,
    /// Where requests name their session. Without it no connection is handed back: a sidetrack that
    /// does not say would not take one.
    pub session_key: Option<SessionKey>,
    /// What becomes of a connection after a response.
    pub keepalive: Keepalive,
    /// How long a session whose end nobody announces is remembered after it was last used; half an
    /// hour by default.
    pub session_idle: Duration,
    /// What the ids of new sessions are to begin with, followed by a dot; none by default.
    pub sid_tag: Option<String>,
    /// Which requests are for this worker's pool, where there are several pools.
    pub matches: Option<Matches>,
}

/// Half an hour, as sidetrack's own.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

impl Default for Settings {
    fn default() -> Self {
        Self {
            slot: None,
            session_key: None,
            keepalive: Keepalive::default(),
            session_idle: SESSION_IDLE,
            sid_tag: None,
            matches: None,
        }
    }
}

/// What becomes of a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keepalive {
    /// It stays open, and is handed back when the next request on it is another worker's.
    #[default]
    HandBack,
    /// It is closed: every request comes to sidetrack first.
    Close,
    /// It stays open and is left alone: whatever comes is this worker's.
    Worker,
}

/// Why a keep-alive mode is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected hand-back, close or worker, found \"{0}\"")]
pub struct KeepaliveError(String);

/// A setting that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: expected {expected}; sidetrack says it, and nothing else needs to")]
pub struct SettingError {
    /// Its name, as in the environment.
    pub name: &'static str,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub expected: &'static str,
}

impl Settings {
    /// Reads `SIDETRACK_SLOT`, `SIDETRACK_SESSION_KEY`, `SIDETRACK_KEEPALIVE`,
    /// `SIDETRACK_SESSION_IDLE`, `SIDETRACK_SID_TAG` and `SIDETRACK_MATCHES`.
    ///
    /// An idle time that makes no sense is logged, and the default taken.
    ///
    /// # Errors
    /// When the session key, the keep-alive mode or a match is none that a sidetrack would put there.
    pub fn from_env() -> Result<Self, SettingError> {
        let value = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let settings = Self::new(value(wire::SLOT), value(wire::SESSION_KEY), value(wire::KEEPALIVE))?;
        settings
            .with_sessions(value(wire::SESSION_IDLE).and_then(|text| seconds(&text)), value(wire::SID_TAG))
            .with_matches(value(wire::MATCHES))
    }

    pub(crate) fn new(
        slot: Option<String>,
        session_key: Option<String>,
        keepalive: Option<String>,
    ) -> Result<Self, SettingError> {
        const KEY: &str = "query:NAME, cookie:NAME, header:NAME or path:N";
        Ok(Self {
            slot,
            session_key: session_key.map(|value| parse(wire::SESSION_KEY, value, KEY)).transpose()?,
            keepalive: keepalive
                .map(|value| parse(wire::KEEPALIVE, value, "hand-back, close or worker"))
                .transpose()?
                .unwrap_or_default(),
            ..Self::default()
        })
    }

    /// With what sidetrack says about sessions, if it does.
    pub(crate) fn with_sessions(mut self, idle_seconds: Option<u64>, sid_tag: Option<String>) -> Self {
        self.session_idle = idle_seconds.map_or(SESSION_IDLE, Duration::from_secs);
        self.sid_tag = sid_tag.filter(|tag| !tag.is_empty());
        self
    }

    /// With what sidetrack says about other pools, if there are any.
    pub(crate) fn with_matches(mut self, matches: Option<String>) -> Result<Self, SettingError> {
        const WORDS: &str = "matches, each behind a + or a -";
        self.matches = matches
            .filter(|text| !text.is_empty())
            .map(|value| parse(wire::MATCHES, value, WORDS))
            .transpose()?;
        Ok(self)
    }

    /// This id as that of a new session: with the tag in front, if there is one and it is not there.
    pub(crate) fn tagged(&self, id: &str) -> String {
        match &self.sid_tag {
            Some(tag) if !id.strip_prefix(tag.as_str()).is_some_and(|rest| rest.starts_with('.')) => {
                format!("{tag}.{id}")
            }
            _ => id.to_owned(),
        }
    }

    /// The key by which misplaced requests are found, if they are to be found.
    pub(crate) fn hands_back_by(&self) -> Option<&SessionKey> {
        self.session_key.as_ref().filter(|_| self.keepalive == Keepalive::HandBack)
    }
}

impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HandBack => "hand-back",
            Self::Close => "close",
            Self::Worker => "worker",
        })
    }
}

impl FromStr for Keepalive {
    type Err = KeepaliveError;

    fn from_str(text: &str) -> Result<Self, KeepaliveError> {
        [Self::HandBack, Self::Close, Self::Worker]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| KeepaliveError(text.to_owned()))
    }
}

/// Of a whole number above 0.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|&seconds| digits && seconds > 0);
    if seconds.is_none() && !text.is_empty() {
        tracing::warn!("{}={text}: expected a number of seconds; the default it is", wire::SESSION_IDLE);
    }
    seconds
}

fn parse<T: FromStr>(name: &'static str, value: String, expected: &'static str) -> Result<T, SettingError> {
    value.parse().map_err(|_| SettingError { name, value, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: Option<&str>, keepalive: Option<&str>) -> Result<Settings, SettingError> {
        Settings::new(None, key.map(str::to_owned), keepalive.map(str::to_owned))
    }

    #[test]
    fn connections_are_handed_back_only_where_both_sides_know_how() {
        let by = |key, keepalive| settings(key, keepalive).unwrap().hands_back_by().map(ToString::to_string);
        assert_eq!(by(Some("query:sid"), None).as_deref(), Some("query:sid"));
        assert_eq!(by(Some("path:3"), Some("hand-back")).as_deref(), Some("path:3"));
        assert_eq!(by(None, Some("hand-back")), None);
        assert_eq!(by(Some("query:sid"), Some("close")), None);
        assert_eq!(by(Some("query:sid"), Some("worker")), None);
    }

    #[test]
    fn an_idle_time_is_a_whole_number_of_seconds_or_the_default() {
        assert_eq!(seconds("120"), Some(120));
        for rubbish in ["", " ", "soon", "-1", "+1", "0", "1.5", "1e3", "99999999999999999999999"] {
            assert_eq!(seconds(rubbish), None, "{rubbish}");
        }
        let idle = |seconds| Settings::default().with_sessions(seconds, None).session_idle;
        assert_eq!(idle(Some(120)), Duration::from_secs(120));
        assert_eq!(idle(None), Duration::from_secs(1800));
    }

    #[test]
    fn an_id_is_tagged_once_and_only_where_that_is_wanted() {
        let tagged = |tag: Option<&str>, id| {
            Settings::default().with_sessions(None, tag.map(str::to_owned)).tagged(id)
        };
        for (id, expected) in [("a", "w2.a"), ("w2.a", "w2.a"), ("w2a", "w2.w2a"), ("w2", "w2.w2")] {
            assert_eq!(tagged(Some("w2"), id), expected);
            assert_eq!(tagged(None, id), id);
            assert_eq!(tagged(Some(""), id), id);
        }
    }

    #[test]
    fn a_setting_that_is_not_understood_is_named() {
        let message = settings(Some("sid"), None).unwrap_err().to_string();
        assert!(message.contains("SIDETRACK_SESSION_KEY=sid: expected query:NAME"), "{message}");
        let message = settings(None, Some("never")).unwrap_err().to_string();
        assert!(message.contains("SIDETRACK_KEEPALIVE=never: expected hand-back, close"), "{message}");
    }
}
