//! How a call into a policy can fail, and when a policy has failed too often.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use wasmtime::Trap;

use super::host::HostState;
use super::one_line;

/// A call that ended its instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} {kind}")]
pub struct Fault {
    /// The function that was called, such as `balance`.
    pub call: &'static str,
    pub kind: FaultKind,
}

/// What went wrong in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// It executed more instructions, or had the host work longer, than its budget allows.
    Fuel,
    /// It took longer than the backstop although it had fuel left.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// It handed over more data than one call may.
    Oversized,
    /// Anything else: a panic, an access out of bounds, endless recursion.
    Trap(String),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fuel => f.write_str("used up its budget"),
            Self::Deadline => f.write_str("took too long"),
            Self::Memory => f.write_str("wanted more memory than it may have"),
            Self::Oversized => f.write_str("handed over too much data"),
            Self::Trap(text) => write!(f, "trapped: {text}"),
        }
    }
}

impl Fault {
    /// Reads an error of wasmtime's; `state` knows what the error does not say.
    pub(super) fn new(call: &'static str, error: &wasmtime::Error, state: &HostState) -> Self {
        let kind = match error.downcast_ref::<Trap>() {
            _ if state.memory_refused => FaultKind::Memory,
            _ if state.host_budget_spent => FaultKind::Fuel,
            Some(Trap::OutOfFuel) => FaultKind::Fuel,
            Some(Trap::Interrupt) => FaultKind::Deadline,
            Some(Trap::UnreachableCodeReached) if state.last_error.is_some() => {
                FaultKind::Trap(state.last_error.clone().unwrap_or_default())
            }
            _ => {
                let text = format!("{error:#}");
                // wasmtime has no type for this one.
                if text.contains("too much data is being copied") {
                    FaultKind::Oversized
                } else {
                    FaultKind::Trap(one_line(&text))
                }
            }
        };
        Self { call, kind }
    }
}

/// The moments of a version's last faults.
#[derive(Debug, Default)]
pub(super) struct FaultWindow(VecDeque<Instant>);

impl FaultWindow {
    /// Notes a fault; true when it is the `limit`th within `window`.
    pub(super) fn note(&mut self, now: Instant, limit: usize, window: Duration) -> bool {
        while self.0.front().is_some_and(|&first| now.saturating_duration_since(first) > window) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_close_together_count() {
        let start = Instant::now();
        let window = Duration::from_secs(10);
        let mut faults = FaultWindow::default();
        for second in 0..100 {
            assert!(!faults.note(start + Duration::from_secs(second * 3), 5, window), "one every 3 s");
        }
        let later = start + Duration::from_secs(1000);
        let noted: Vec<_> = (0..5).map(|_| faults.note(later, 5, window)).collect();
        assert_eq!(noted, [false, false, false, false, true]);
    }
}
