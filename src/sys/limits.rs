//! Process limits.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many descriptors may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The soft limit as it was found.
    pub before: u64,
    /// The soft limit in force.
    pub now: u64,
    pub hard: u64,
}

/// The limit of open descriptors, with the soft one raised to the hard one.
///
/// Sockets in flight to workers count against the *sender's* soft limit (`ETOOMANYREFS` in
/// `unix(7)`), so the default of 1,024 would be felt under load.
///
/// # Errors
/// As `getrlimit(2)`. When it cannot be raised it stays as it is.
pub fn raise_descriptors() -> nix::Result<Descriptors> {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = before < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Ok(Descriptors { before, now: if raised { hard } else { before }, hard })
}
