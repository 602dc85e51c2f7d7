//! Mixed requests over few keep-alive connections, with workers killed meanwhile: is any request
//! routed wrongly, lost or altered, does anything hang?
//!
//!     cargo test --release --test torture -- --requests 100000 --seed 7
//!
//! Every client has a few connections and a few Socket.IO sessions on different workers, and sends
//! each request over any of its connections, so most are misplaced at first. What is sent follows
//! from the seed, and so does what the workers are; how the clients interleave does not. `--log FILE`
//! keeps what sidetrack and its workers say. Without arguments it is one of the tests: a short run with
//! Node workers and one with workers of every language.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::print_stdout, reason = "a program of its own, which reports what it has counted")]

mod client;
mod ledger;
mod request;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use client::Client;
use ledger::Ledger;
use support::{every_language, kill, sidetrack, worker};

/// What a plain `cargo test` runs: Node alone, and every language.
const SEEDS: [u64; 2] = [1, 3];

const CLIENTS: u64 = 12;
const WORKERS: usize = 4;

/// As long as one worker needs to be back.
const SHORTEST_PEACE: Duration = Duration::from_millis(700);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // What `cargo test NAME` and `--list` pass on concerns the other tests.
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let text = |name: &str| {
        let place = words.iter().position(|word| word == name)?;
        Some(words.get(place + 1).unwrap_or_else(|| panic!("{name} WHAT?")))
    };
    let number = |name: &str| text(name).map(|word| word.parse().unwrap_or_else(|_| panic!("{name} NUMBER")));
    let requests = number("--requests").unwrap_or(4000);
    let kills = number("--kills").unwrap_or_else(|| (requests / 5000).max(2));
    let log = text("--log").map(Path::new);
    let seeds = number("--seed").map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    if seeds.into_iter().all(|seed| holds(requests, seed, kills, log)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One run; true when nothing went wrong.
fn holds(requests: u64, seed: u64, kills: u64, log: Option<&Path>) -> bool {
    let (kind, command) = match seed % 3 {
        0 => ("Node, Python and Rust", every_language()),
        1 => ("listen.js", worker("listen.js")),
        _ => ("sticky2.js", worker("sticky2.js")),
    };

    println!("{requests} requests of {CLIENTS} clients to {WORKERS} × {kind}, {kills} kills, seed {seed}");
    let level = if log.is_some() { "debug" } else { "info" };
    let running =
        sidetrack(command).workers(WORKERS).with(&["--restarts", "100000", "--log", level]).alone().start();
    let (address, start) = (running.address(), Instant::now());
    let ledger = Arc::new(Ledger::new(requests));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || Client::new(address, seed, number, ledger).run())
        })
        .collect();

    let mut random = fastrand::Rng::with_seed(seed);
    for number in 1..=kills {
        let due = requests * number / (kills + 1);
        let mut last = Instant::now();
        while ledger.done() < due && !ledger.finished() || last.elapsed() < SHORTEST_PEACE {
            thread::sleep(Duration::from_millis(5));
            if ledger.finished() {
                last -= SHORTEST_PEACE;
            }
        }
        let workers = running.workers();
        if let Some(victim) = random.choice(&workers) {
            ledger.dies(*victim);
            kill(*victim);
        }
    }
    for client in clients {
        client.join().unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let stopped = running.terminate();
    let counts = ["accepted", "handed_back", "rerouted", "refused", "channel_errors", "workers_lost"];
    let counts: Vec<_> = counts.iter().map(|name| format!("{name} {}", stopped.count(name))).collect();
    println!("{ledger}\n{seconds:.1} s; sidetrack counted: {}", counts.join(", "));
    if let Some(log) = log {
        std::fs::write(log, &stopped.log).unwrap();
    }
    let failures = ledger.failures();
    for failure in failures.iter().take(20) {
        println!("FAILED {failure}");
    }
    if !failures.is_empty() {
        let count = failures.len();
        println!("{count} failures; repeat with: --requests {requests} --seed {seed} --kills {kills}");
    }
    failures.is_empty()
}
