//! sidetrack beside everything that stands in the same place: one run, the same server, the same load.
//!
//!     cargo bench --bench compare                        # everything, about 17 minutes
//!     cargo bench --bench compare -- --quick             # everything, shorter and less certain
//!     cargo bench --bench compare -- --only echo,idle    # some scenarios
//!     cargo bench --bench compare -- --rounds 30 --round 1000    # more rounds, longer ones (in milliseconds)
//!     cargo bench --bench compare -- --out docs/results  # a page, results.json and pictures go there
//!
//! The peers of a scenario all run; short rounds go around among them, so that a noisy moment meets all,
//! and what is reported is the median over the rounds: of the figures, and of their ratios to the
//! first peer's in the same round. Servers have one half of the cores to themselves and clients the other.
//! CPU time per connection or request is what a process has been charged by the kernel.
//!
//! Needs Node and `npm ci` in tests/node (the tests do it). nginx and HAProxy are left out, and that
//! is said, where they are not installed.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod load;
mod machine;
mod memory;
mod page;
mod picture;
mod policies;
mod roster;
mod scaling;
mod scenarios;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::value_parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use support::arguments::{self, switch, word};
use support::cores;
use table::Table;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds for each peer.
    pub rounds: usize,
    pub round: Duration,
    /// Idle WebSockets.
    pub idle: usize,
}

type Scenario = (&'static str, fn(Effort) -> Table);

const SCENARIOS: [Scenario; 12] = [
    ("connections", scenarios::connections),
    ("arrivals", scenarios::arrivals),
    ("get", scenarios::get),
    ("post", scenarios::post),
    ("large-post", scenarios::large_post),
    ("handshakes", scenarios::handshakes),
    ("echo", scenarios::echo),
    ("idle", memory::idle),
    ("upload", memory::upload),
    ("policies", policies::policies),
    ("scaling", scaling::scaling),
    ("roster", roster::roster),
];

fn main() {
    let names = PossibleValuesParser::new(SCENARIOS.map(|(name, _)| name));
    let asked = arguments::read(
        "sidetrack beside everything that stands in the same place, all scenarios in about 17 minutes",
        [
            switch("quick", "Fewer and shorter rounds, and less certain figures"),
            word("only", "SCENARIOS", "Some of them, with commas between")
                .value_delimiter(',')
                .value_parser(names),
            word("rounds", "N", "Rounds of each peer [default: 15, quick: 3]")
                .value_parser(value_parser!(usize)),
            word("round", "MS", "How long a round is [default: 500, quick: 300]")
                .value_parser(value_parser!(u64)),
            word("idle", "N", "Idle WebSockets [default: 10000, quick: 2000]")
                .value_parser(value_parser!(usize)),
            word("out", "FOLDER", "Write a page, results.json and pictures there"),
        ],
    );
    let effort = if asked.get_flag("quick") {
        Effort { rounds: 3, round: Duration::from_millis(300), idle: 2_000 }
    } else {
        Effort { rounds: 15, round: Duration::from_millis(500), idle: 10_000 }
    };
    let effort = Effort {
        rounds: asked.get_one("rounds").copied().unwrap_or(effort.rounds),
        round: asked.get_one("round").copied().map_or(effort.round, Duration::from_millis),
        idle: asked.get_one("idle").copied().unwrap_or(effort.idle),
    };
    let only: Option<Vec<&String>> = asked.get_many("only").map(Iterator::collect);
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|word| *word == name));
    room();
    cores::of_servers();

    let machine = machine::describe();
    println!("{machine:#}\n");
    let begin = Instant::now();
    let mut tables = Vec::new();
    for (name, run) in SCENARIOS.into_iter().filter(|(name, _)| wanted(name)) {
        let table = run(effort);
        println!("{}", table.text());
        tables.push((name, table));
    }
    println!("{:.0} s", begin.elapsed().as_secs_f64());

    let Some(folder) = asked.get_one::<String>("out").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("the folder for the results");
    let scenarios: serde_json::Map<_, _> =
        tables.iter().map(|(name, table)| ((*name).to_owned(), table.value())).collect();
    let results = json!({
        "machine": machine,
        "rounds": effort.rounds,
        "round_ms": effort.round.as_millis(),
        "scenarios": scenarios,
    });
    std::fs::write(folder.join("results.json"), format!("{results:#}\n")).expect("results.json");
    for (name, table) in &tables {
        picture::draw(&folder.join(name).with_extension("svg"), table).expect("a picture");
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let command = format!("cargo bench --bench compare -- {}", words.join(" "));
    std::fs::write(folder.join("README.md"), page::text(&command, &machine, effort, &tables))
        .expect("the page");
    println!("results are in {}", folder.display());
}

/// A proxy that stays in the data path needs two descriptors for each connection: enough for everybody, as
/// far as this user may.
fn room() {
    const ENOUGH: u64 = 65_536;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let more = hard.max(ENOUGH);
    if setrlimit(Resource::RLIMIT_NOFILE, more, more).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may use what it is allowed");
    }
}
