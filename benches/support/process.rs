//! What the kernel knows of a process: its children, its processor time, its memory, its descriptors.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time of every thread of a process so far.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads.flatten().map(|thread| spent(&thread.path())).sum()
}

/// CPU time of its first thread so far: the one that routes, when it is sidetrack.
pub fn first_thread_cpu(pid: u32) -> Duration {
    spent(Path::new(&format!("/proc/{pid}/task/{pid}")))
}

/// CPU time of one thread so far; none when it has ended.
fn spent(thread: &Path) -> Duration {
    let line = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanos = line.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Processes started by this one.
pub fn children(pid: u32) -> Vec<u32> {
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let lists: Vec<String> = tasks.flatten().map(read).collect();
    lists.iter().flat_map(|list| list.split(' ')).filter_map(|word| word.parse().ok()).collect()
}

/// Memory in KiB: what it has now, and the most since the last [`forget_peak`].
pub fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
}

/// The peak begins anew from what there is now.
pub fn forget_peak(pid: u32) {
    // 5 is "reset the peak resident set size", proc_pid_clear_refs(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it is ours");
}

/// How many descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}
