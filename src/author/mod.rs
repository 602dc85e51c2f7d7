//! Tools for whoever writes a policy. Nobody needs to run for them, and no worker either.
//!
//! [`check`] asks a policy by itself whether it behaves, whatever it is meant to do.

mod check;
mod ground;
mod print;

pub use check::Check;

/// What an author wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Check(Check),
}

/// Does it and prints what came of it. False when the policy is not as it should be.
///
/// # Errors
/// When it cannot be done; in words.
pub fn perform(task: &Task) -> Result<bool, String> {
    match task {
        Task::Check(check) => check.perform(),
    }
}
