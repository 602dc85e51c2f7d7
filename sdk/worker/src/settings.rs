//! What a worker is told about its surroundings.

use std::env;
use std::fmt;
use std::str::FromStr;

use crate::session_key::SessionKey;
use crate::wire;

/// A worker's surroundings, as sidetrack describes them in its environment or when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The worker's slot: `w0`, `w1`, …
    pub slot: Option<String>,
    /// Where requests name their session. Without it no connection is handed back: a sidetrack that
    /// does not say would not take one.
    pub session_key: Option<SessionKey>,
    /// What becomes of a connection after a response.
    pub keepalive: Keepalive,
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
    /// Reads `SIDETRACK_SLOT`, `SIDETRACK_SESSION_KEY` and `SIDETRACK_KEEPALIVE`.
    ///
    /// # Errors
    /// When one of them holds what no sidetrack would put there.
    pub fn from_env() -> Result<Self, SettingError> {
        let value = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::new(value(wire::SLOT), value(wire::SESSION_KEY), value(wire::KEEPALIVE))
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
        })
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
    fn a_setting_that_is_not_understood_is_named() {
        let message = settings(Some("sid"), None).unwrap_err().to_string();
        assert!(message.contains("SIDETRACK_SESSION_KEY=sid: expected query:NAME"), "{message}");
        let message = settings(None, Some("never")).unwrap_err().to_string();
        assert!(message.contains("SIDETRACK_KEEPALIVE=never: expected hand-back, close"), "{message}");
    }
}
