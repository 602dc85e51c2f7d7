//! What the figures were taken on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::cores;

pub fn describe() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (servers, clients) = cores::describe();
    json!({
        "processor": processor,
        "cores_of_servers": servers,
        "cores_of_clients": clients,
        "memory_mib": memory.map(|kib| kib / 1024),
        "kernel": kernel.trim(),
        "load_before": load.split(' ').next(),
        "versions": {
            "sidetrack": env!("CARGO_PKG_VERSION"),
            "commit": said("git", &["rev-parse", "--short", "HEAD"]),
            "node": said("node", &["--version"]),
            "haproxy": said("haproxy", &["-v"]),
            "nginx": said("nginx", &["-v"]),
        },
    })
}

/// The first line of what a program says of itself, wherever it says it.
fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}
