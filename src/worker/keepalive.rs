//! What a worker does with a request that belongs to another one.

use std::fmt;
use std::str::FromStr;

/// A keep-alive connection belongs to one worker, its requests may not: browsers share connections
/// among tabs, and proxies among users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// The connection moves to the worker that owns the next request.
    HandBack,
    /// Every connection ends after one response, so that the next request is routed anew.
    Close,
    /// The worker answers whatever comes, as if there were no others.
    Worker,
}

/// Why a mode is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected hand-back, close or worker, found \"{0}\"")]
pub struct KeepAliveError(String);

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HandBack => "hand-back",
            Self::Close => "close",
            Self::Worker => "worker",
        })
    }
}

impl FromStr for KeepAlive {
    type Err = KeepAliveError;

    fn from_str(text: &str) -> Result<Self, KeepAliveError> {
        [Self::HandBack, Self::Close, Self::Worker]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| KeepAliveError(text.to_owned()))
    }
}
