//! Has a connection become dearer? Counted, not timed: instructions and system calls of the thread that
//! routes, by Valgrind, so that neither the clock nor a busy machine has a say.
//!
//!     cargo bench --bench guard               # fails when either is more than 10 % above guard.json
//!     cargo bench --bench guard -- --accept   # writes what it has counted to guard.json
//!
//! Connections come one after the other, each to a Node worker that answers and closes. Two runs with a few
//! and with many of them, and the difference is divided by the connections between: what starting costs cancels
//! out. Of several attempts the least counts, since waking up at another moment, or compiling a policy that is
//! not in the cache yet, only ever adds.
//!
//! Instructions are those of the program and its libraries, not the kernel's: for these stand the system
//! calls. Clock readings are not counted as such: outside Valgrind they are none.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::arguments::{self, switch};
use support::peers::{Process, SIDETRACK, file, serving, wait};

const FEW: u32 = 200;
const MANY: u32 = 1_200;
/// Between two connections: of those that follow more closely several may be taken at once, which is
/// cheaper, and how many depends on the machine.
const PAUSE: Duration = Duration::from_millis(5);
const ATTEMPTS: usize = 3;
/// What may come on top before it counts as dearer.
const TOLERANCE: f64 = 1.1;
const WORKERS: usize = 2;

/// For each connection.
#[derive(Debug, Clone, Copy)]
struct Cost {
    instructions: f64,
    calls: f64,
}

fn main() -> ExitCode {
    let asked = arguments::read(
        "Instructions and system calls of a connection; fails when either is more than 10 % above guard.json",
        [switch("accept", "Write what has been counted to guard.json instead")],
    );
    let path = file("guard.json");
    let least = cost();
    println!("a connection costs {:.0} instructions and {:.1} system calls", least.instructions, least.calls);
    if asked.get_flag("accept") {
        let known = json!({ "instructions": least.instructions.round(), "system_calls": (least.calls * 10.0).round() / 10.0 });
        fs::write(&path, format!("{known:#}\n")).expect("guard.json can be written");
        println!("{} says so from now on", path.display());
        return ExitCode::SUCCESS;
    }
    let known: Value = serde_json::from_str(&fs::read_to_string(&path).expect("guard.json is there"))
        .expect("guard.json is JSON");
    let mut dearer = false;
    for (what, now) in [("instructions", least.instructions), ("system_calls", least.calls)] {
        let before = known[what].as_f64().expect("guard.json has both figures");
        println!("{what}: {:.2} times what guard.json has, {before}", now / before);
        dearer |= now > before * TOLERANCE;
    }
    if dearer {
        println!(
            "a connection has become more than 10 % dearer. If that is the price of something worth it, accept it:\n\
             cargo bench --bench guard -- --accept"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn cost() -> Cost {
    let (mut few, mut many) = ((u64::MAX, u64::MAX), (u64::MAX, u64::MAX));
    for _ in 0..ATTEMPTS {
        for (least, connections) in [(&mut few, FEW), (&mut many, MANY)] {
            let (instructions, calls) = count(connections);
            *least = (least.0.min(instructions), least.1.min(calls));
        }
    }
    let each = |few: u64, many: u64| (many as f64 - few as f64) / f64::from(MANY - FEW);
    Cost { instructions: each(few.0, many.0), calls: each(few.1, many.1) }
}

/// Instructions and system calls of the first thread for this many connections.
fn count(connections: u32) -> (u64, u64) {
    let folder = tempfile::tempdir().expect("a folder for the figures");
    let at = |name: &str| folder.path().join(name);
    let child = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--trace-syscalls=yes"])
        .arg(format!("--callgrind-out-file={}", at("profile").display()))
        .arg(format!("--log-file={}", at("calls").display()))
        .arg(SIDETRACK)
        .args(["run", "--listen", "127.0.0.1:0", "--log", "warn", "--workers", &WORKERS.to_string()])
        .arg("--ready-file")
        .arg(at("ready"))
        .args(["--", "node"])
        .arg(file("workers/tiny.js"))
        .stdout(Stdio::null())
        .spawn()
        .expect("valgrind starts (Debian's package valgrind)");
    let running = Process(child);
    let address = wait(|| serving(&at("ready"), WORKERS));
    for _ in 0..connections {
        ask(address);
        thread::sleep(PAUSE);
    }
    // It ends in peace, and Valgrind writes down what it has counted.
    drop(running);
    let profile = fs::read_to_string(at("profile-01")).expect("the first thread's profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let calls = fs::read_to_string(at("calls")).expect("the list of system calls");
    let of_first =
        |line: &&str| line.starts_with("SYSCALL[") && line.contains(",1](") && line.contains("sys_");
    let calls = calls.lines().filter(of_first).filter(|line| !line.contains("sys_clock_gettime")).count();
    (total.expect("a sum of instructions"), calls as u64)
}

fn ask(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("sidetrack accepts");
    let request =
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("the request goes out");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer comes");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
