//! What sidetrack lends to a policy. Nothing here blocks.

use crate::WorkerId;

#[cfg(target_arch = "wasm32")]
use crate::guest::host as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::native as backend;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// The worker that owns a session, by sidetrack's session table.
#[must_use]
pub fn session_owner(sid: &str) -> Option<WorkerId> {
    backend::session_owner(sid)
}

/// 64 random bits from a fast generator. Not for secrets.
#[must_use]
pub fn random_u64() -> u64 {
    backend::random_u64()
}

/// A random number below `bound`, each equally likely to within `bound` parts in 2⁶⁴. Zero when
/// `bound` is.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the high half is below `bound`, which fits")]
pub fn random_below(bound: usize) -> usize {
    // The high half of the product: the good bits choose, and nothing is divided. Lemire's rejection
    // step would remove the last of the bias, and nobody could measure the difference.
    let product = u128::from(random_u64()) * bound as u128;
    (product >> 64) as usize
}

/// Nanoseconds on a clock that never goes back. Only differences mean something.
#[must_use]
pub fn now() -> u64 {
    backend::now()
}

/// Writes a line to sidetrack's log. Cut to 512 characters and rate-limited there.
pub fn log(level: Level, text: &str) {
    backend::log(level, text);
}

/// Says why the running call decides as it does, for whoever traces this connection.
pub fn explain(text: &str) {
    backend::explain(text);
}
