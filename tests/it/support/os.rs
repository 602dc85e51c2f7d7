//! Processes, as /proc shows them.

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::{self as nix_signal, Signal};
use nix::unistd::Pid;

/// The variable that marks everything a test has started.
pub const MARK: &str = "SIDETRACK_TEST";

fn id(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}

/// Sends a signal to one process.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    nix_signal::kill(id(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// `kill -9`.
#[track_caller]
pub fn kill(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// `kill -9` for a process that may be gone already.
pub fn end(pid: u32) {
    let _ = nix_signal::kill(id(pid), Signal::SIGKILL);
}

/// True while the process runs; a zombie does not.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// The processes that carry this mark in their environment.
pub fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    processes()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .filter(|pid| alive(*pid))
        .collect()
}

/// The children of a process, zombies included: one that is not waited for is a leak too.
pub fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(1) == Some(parent.as_str())
    };
    processes().filter(child).collect()
}

/// What a process has open, each as its number and what it is.
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let describe = |entry: fs::DirEntry| {
        let target =
            fs::read_link(entry.path()).map_or_else(|_| "?".into(), |path| path.display().to_string());
        format!("{} {target}", entry.file_name().display())
    };
    folder.filter_map(Result::ok).map(describe).collect()
}

/// How many sockets a process has.
pub fn sockets(pid: u32) -> usize {
    descriptors(pid).iter().filter(|descriptor| descriptor.contains(" socket:")).count()
}

fn processes() -> impl Iterator<Item = u32> {
    let folder = fs::read_dir("/proc").expect("/proc");
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A port nobody has: good until somebody else gets it, which takes a while.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}
