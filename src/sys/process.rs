//! What this process uses, as the kernel tells it.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub descriptors: usize,
    /// The most there may be.
    pub descriptor_limit: u64,
    /// In user mode and in the kernel.
    pub cpu: Duration,
    /// Bytes of memory in use.
    pub resident: u64,
}

/// Reads it. What cannot be read is zero.
#[must_use]
pub fn usage() -> Usage {
    let cpu = getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |used| used.user_time().num_microseconds() + used.system_time().num_microseconds());
    Usage {
        // The listing has a descriptor of its own.
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1)),
        descriptor_limit: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        cpu: Duration::from_micros(u64::try_from(cpu).unwrap_or(0)),
        resident: resident().unwrap_or(0),
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let Usage { descriptors, descriptor_limit, cpu, resident } = usage();
        assert!(descriptors >= 3 && descriptor_limit >= descriptors as u64);
        assert!(cpu > Duration::ZERO && resident > 1 << 20);
    }
}
