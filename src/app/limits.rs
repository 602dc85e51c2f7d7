//! The limits a run meets on this machine, said at start.

use crate::config::Config;
use crate::sys::limits::{Descriptors, raise_descriptors};

/// Descriptors that are not connections: standard ones, listeners, policies, the runtime's.
const SPARE: u64 = 64;
/// Descriptors for each worker: its channel, a probe, what watches it.
const EACH_WORKER: u64 = 4;

/// Raises what can be raised, and says what there is and what it allows.
pub fn report(config: &Config) {
    let descriptors = match raise_descriptors() {
        Ok(descriptors) => descriptors,
        Err(error) => return tracing::warn!(%error, "the limit of open descriptors is not known"),
    };
    let Descriptors { before, now, hard } = descriptors;
    let workers = config.each().map(|(_, pool)| pool.workers as u64).sum();
    let wanted = config.max_pending as u64;
    let allowed = pending(now, workers);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tracing::info!(
        before,
        now,
        hard,
        pending = wanted.min(allowed),
        cores,
        "limits: descriptors, connections on their way, cores"
    );
    if allowed < wanted {
        tracing::warn!(
            allowed,
            max_pending = wanted,
            "fewer descriptors than max-pending may need: connections will wait in the kernel; raise the hard \
             limit to {} (LimitNOFILE= in the unit, `ulimit -Hn`, --ulimit nofile=) or lower --max-pending",
            wanted + SPARE + workers * EACH_WORKER,
        );
    }
}

/// How many connections may be on their way.
const fn pending(limit: u64, workers: u64) -> u64 {
    limit.saturating_sub(SPARE + workers * EACH_WORKER)
}

#[cfg(test)]
mod tests {
    use super::pending;

    #[test]
    fn what_is_no_connection_comes_first() {
        assert_eq!(pending(1024, 4), 1024 - 64 - 16);
        assert_eq!(pending(64, 4), 0);
    }
}
