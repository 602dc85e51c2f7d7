//! What a policy costs in the real path: natively, as a component, as a script, while it is swapped, and
//! when it turns out to be hostile.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Effort;
use crate::scenarios::connections_through;
use crate::support::peers::{Peer, SIDETRACK};
use crate::table::Table;

/// Between two swaps.
const PAUSE: Duration = Duration::from_millis(100);

/// Behaves until it is trusted, then never answers.
const HOSTILE: &str = "let calls = 0;
export function balance(loads) {
  calls += 1;
  while (calls > 500) {}
  return calls % loads.length;
}
";

pub fn policies(effort: Effort) -> Table {
    let folder = tempfile::tempdir().expect("a folder for policies");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policies/script/round-robin.js");
    let hostile = folder.path().join("hostile.js");
    fs::write(&hostile, HOSTILE).expect("a policy");
    let hostile = hostile.display().to_string();
    let admin = folder.path().join("admin.sock");
    let socket = admin.display().to_string();
    let with = |name: &str, words: &[&str]| Peer::sidetrack(name, 2, words);
    let peers = [
        with("native round-robin", &["--policy", "native:round-robin"]),
        with("round-robin", &["--policy", "round-robin"]),
        with("least-connection", &["--policy", "least-connection"]),
        with("round-robin.js, a script", &["--policy", script]),
        with("swapped 10 times a second", &["--policy", "round-robin", "--admin", &socket]),
        with("a script that never answers", &["--policy", &hostile]),
    ];
    let over = AtomicBool::new(false);
    let mut swaps = 0;
    let mut table = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_u32;
            while !over.load(Ordering::Relaxed) {
                swap(&admin, if swaps.is_multiple_of(2) { "least-connection" } else { "round-robin" });
                swaps += 1;
                std::thread::sleep(PAUSE);
            }
            swaps
        });
        let table = connections_through("New connections by policy, 2 workers, 64 clients", &peers, effort);
        over.store(true, Ordering::Relaxed);
        swaps = swapping.join().expect("the swaps succeed");
        table
    });
    table.notes.push(format!("{swaps} swaps, all of them taken; errors count what clients saw."));
    table
}

fn swap(admin: &Path, policy: &str) {
    let status = Command::new(SIDETRACK)
        .args(["policy", "set", policy, "--admin"])
        .arg(admin)
        .stdout(Stdio::null())
        .status()
        .expect("the command starts");
    assert!(status.success(), "the swap to {policy} is taken");
}
