//! `sidetrack policy …`: the verbs for whoever writes one.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::time::some_time;
use crate::author::{Bench, Check, Dev, Language, Lengths, New, Simulate, Task, Test};
use crate::policy::{Limits, PolicyLink};

pub(super) fn commands() -> [Command; 6] {
    [new(), check(), test(), bench(), simulate(), dev()]
}

fn check() -> Command {
    Command::new("check")
        .about("Does a policy behave, whatever it is for? Contract, limits, and what a bad day brings")
        .long_about(
            "Does a policy behave, whatever it is for?\n\nLoads it as `run` would, then asks it by itself about \
             odd workers, requests, sessions, states and loads. Nothing needs to run. The exit code is 0 when it \
             is fit for use and 1 when it is not.",
        )
        .after_help(
            "Examples:\n  sidetrack policy check ./mine.wasm\n  sidetrack policy check 'hash{\"key\": \
             \"query:room\"}' --strict\n  sidetrack policy check ./mine.wasm --json | jq .verdict",
        )
        .arg(policy())
        .arg(flag("strict", "Take warnings for failures"))
        .arg(flag("json", "Print the verdict as JSON"))
}

fn new() -> Command {
    Command::new("new")
        .about("Begin a policy: a script, or a folder that builds, in Rust, JavaScript, Python or C")
        .long_about(
            "Begin a policy: a folder with what it takes to build and test it, and a README.\n\nIts policy gives connections to \
             the least loaded worker, and shows where to write something better. Nothing is fetched; what the \
             language's own tools need is said at the end.",
        )
        .after_help(
            "Languages:\n  script      JavaScript that sidetrack runs as it is: nothing to install, nothing to build\n  \
             rust        a component of 30 kB, a decision takes under 1 µs; cargo and the target wasm32-unknown-unknown\n  \
             c           10 kB, as quick; clang and lld\n  \
             javascript  1.6 MB, 4 µs and more; npm\n  \
             python      18 MB, 7 µs and more; pip\n\n\
             Examples:\n  sidetrack policy new rooms --lang script\n  sidetrack policy new zone-aware --lang rust\n  \
             sidetrack policy new ./policies/tenants --lang python",
        )
        .arg(
            Arg::new("folder")
                .value_name("NAME")
                .required(true)
                .help("The policy's name, and the folder to make; a path makes it elsewhere"),
        )
        .arg(
            Arg::new("lang")
                .long("lang")
                .short('l')
                .value_name("LANGUAGE")
                .required(true)
                .value_parser(language)
                .help("script, rust, c, javascript or python"),
        )
}

fn language(text: &str) -> Result<Language, String> {
    let names = || Language::ALL.map(Language::name).join(", ");
    Language::named(text).ok_or_else(|| format!("expected one of {}", names()))
}

fn test() -> Command {
    Command::new("test")
        .about("Play a scenario: workers come and go, sessions open and return; does everything hold?")
        .long_about(
            "Play a scenario: workers come and go, sessions open and return; does everything hold?\n\nThe host is \
             made up, with its own clock and random numbers, so that a run comes out the same each time. Whatever \
             the scenario is about, the policy must not fail, must name workers that are there, and must leave a \
             known session where it is.",
        )
        .after_help(SCENARIO)
        .arg(Arg::new("file").value_name("SCENARIO").required(true).help(
            "A scenario in TOML, as below, or test vectors (a .json file with exact answers, see docs/policies.md)",
        ))
        .arg(
            Arg::new("policy")
                .short('p')
                .long("policy")
                .value_name("NAME|FILE")
                .action(ArgAction::Append)
                .value_parser(link)
                .help("Test this instead of the scenario's own policy; repeatable, for a chain"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .value_parser(clap::value_parser!(u64))
                .help("For random choices, in place of the scenario's own"),
        )
        .arg(flag("json", "Print what came of it as JSON"))
}

const SCENARIO: &str = "\
A scenario:
  policy = \"./mine.wasm\"          # or a list; paths begin at this file's folder
  workers = 4                      # or [{ name = \"w0\", weight = 2, labels = { zone = \"eu\" } }, …]

  [[step]]
  open = 1000                      # new sessions, each of another client
  request = { target = \"/?room=r{n%50}\", headers = { X-Tenant = \"t{n%3}\" }, peer = \"10.0.0.{n%250}\" }
  spread = 0.1                     # every worker within ten per cent of its share
  [[step]]
  again = 500                      # requests of sessions that there are: they must not move
  [[step]]
  drain = \"w1\"                     # also: undrain, kill, start, close = 10, advance = \"10s\", swap = \"./new.wasm\"
  [[step]]
  open = 10
  expect = [\"w0\", \"w2\", \"w3\"]    # also one name, \"defer\", \"refuse\", \"refuse 503\"

Exit codes: 0 all holds, 1 something does not, 2 the scenario or a policy cannot be used.";

fn bench() -> Command {
    Command::new("bench")
        .about("What does an answer cost? Time, share of the budget and memory, beside a native policy")
        .after_help(
            "Examples:\n  sidetrack policy bench ./mine.wasm\n  sidetrack policy bench least-connection \
             --workers 4,64,1024 --json\n\nTimes are medians on this machine and vary with what else it does; \
             compare with the native column of the same run.",
        )
        .arg(policy())
        .arg(
            Arg::new("workers")
                .long("workers")
                .value_name("COUNTS")
                .value_delimiter(',')
                .default_value("4,64,1024")
                .value_parser(clap::value_parser!(u32).range(1..=10_000))
                .help("Sizes of the roster"),
        )
        .arg(time("time", "1s", "How long to measure each figure"))
        .arg(flag("json", "Print the figures as JSON"))
}

fn simulate() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NUMBER")
            .default_value(default)
            .value_parser(clap::value_parser!(u32).range(1..))
            .help(help)
    };
    Command::new("simulate")
        .about("How do policies spread sessions that come, last and go? Hours in a moment, side by side")
        .long_about(
            "How do policies spread sessions that come, last and go?\n\nEvery policy gets the very same clients at \
             the same times. The figures say how far the busiest worker is above the mean, over time.",
        )
        .after_help(
            "Examples:\n  sidetrack policy simulate round-robin least-connection ./mine.wasm\n  sidetrack policy \
             simulate round-robin power-of-two --lengths heavy-tailed --workers 8 --svg balance.svg\n  sidetrack \
             policy simulate least-connection round-robin --kill w1@5m --for 15m\n  sidetrack policy simulate \
             least-connection ./mine.wasm --log today.log",
        )
        .arg(policy().num_args(1..))
        .arg(number("workers", "4", "How many workers"))
        .arg(
            Arg::new("weight")
                .long("weight")
                .value_name("WORKER=N")
                .action(ArgAction::Append)
                .value_parser(weight)
                .help("A worker's weight, such as w0=2; repeatable"),
        )
        .arg(
            Arg::new("arrivals")
                .long("arrivals")
                .value_name("PER SECOND")
                .default_value("50")
                .value_parser(positive)
                .help("New sessions a second, on average"),
        )
        .arg(time("session", "60s", "How long a session lasts on average"))
        .arg(
            Arg::new("lengths")
                .long("lengths")
                .value_name("HOW")
                .default_value("exponential")
                .value_parser(["fixed", "exponential", "heavy-tailed"])
                .help("How lengths are distributed around the average"),
        )
        .arg(time("for", "10m", "How long it goes on, in the simulation's time"))
        .arg(number("clients", "10000", "Different clients, by address, cookie and query; each comes again and again"))
        .arg(
            Arg::new("kill")
                .long("kill")
                .value_name("WORKER@TIME")
                .action(ArgAction::Append)
                .value_parser(kill)
                .help("A worker dies and comes back without its sessions, such as w1@5m; repeatable"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .default_value("1")
                .value_parser(clap::value_parser!(u64))
                .help("For everything that happens by chance"),
        )
        .arg(
            Arg::new("log")
                .long("log")
                .value_name("FILE")
                .conflicts_with_all(["workers", "weight", "arrivals", "session", "lengths", "for", "clients"])
                .help("Take workers and sessions from what `sidetrack record` has written, in place of made-up ones"),
        )
        .arg(Arg::new("svg").long("svg").value_name("FILE").help("Draw the course of all policies into this file"))
        .arg(flag("json", "Print figures and loads as JSON"))
}

fn dev() -> Command {
    Command::new("dev")
        .about("Build, check and swap in a policy at every change, in the sidetrack that runs")
        .long_about(
            "Build, check and swap in a policy at every change, in the sidetrack that runs.\n\nA folder is built as it \
             suggests: `cargo build --release` for a Cargo.toml, `npm run build` for a package.json, `make` for a \
             Makefile. A script or a .wasm file is taken as it is. What does not build, or fails a case of `policy \
             check`, is not swapped in: the version before goes on.",
        )
        .after_help(
            "Examples:\n  sidetrack policy dev ./my-policy\n  sidetrack policy dev ./my-policy.js\n  sidetrack \
             policy dev ./my-policy --build 'zig build' --artefact out/policy.wasm",
        )
        .arg(
            Arg::new("path")
                .value_name("FOLDER|FILE")
                .default_value(".")
                .help("A project, or a policy that needs no building"),
        )
        .arg(Arg::new("build").long("build").value_name("COMMAND").help("Build with this shell command, in the folder"))
        .arg(
            Arg::new("artefact")
                .long("artefact")
                .value_name("FILE")
                .help("What the build makes; without it, the newest .wasm file in the folder"),
        )
        .arg(
            Arg::new("options")
                .long("options")
                .value_name("JSON")
                .value_parser(json)
                .help("Options for the policy; without them, those of the link stay"),
        )
        .arg(super::policy::link())
        .args(super::policy::admin())
        .arg(flag("once", "Do it once and end: exit code 1 when it was not swapped in"))
}

fn json(text: &str) -> Result<String, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("expected JSON: {error}"))
}

fn time(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("TIME").default_value(default).value_parser(some_time).help(help)
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

fn weight(text: &str) -> Result<(String, u32), String> {
    text.split_once('=')
        .and_then(|(name, weight)| Some((name.to_owned(), weight.parse().ok()?)))
        .ok_or_else(|| "expected WORKER=N, such as w0=2".to_owned())
}

fn kill(text: &str) -> Result<(String, Duration), String> {
    let (name, at) = text.split_once('@').ok_or_else(|| "expected WORKER@TIME, such as w1@5m".to_owned())?;
    Ok((name.to_owned(), some_time(at)?))
}

fn policy() -> Arg {
    Arg::new("policy")
        .value_name("NAME|FILE")
        .required(true)
        .value_parser(link)
        .help("A built-in or a file; options as JSON right behind it")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn link(text: &str) -> Result<PolicyLink, String> {
    text.parse().map_err(|error: crate::policy::LinkError| error.to_string())
}

/// What was asked for, if it is one of these verbs.
pub(super) fn task(matches: &ArgMatches) -> Option<Task> {
    let (name, matches) = matches.subcommand()?;
    let policy = || matches.get_one::<PolicyLink>("policy").cloned();
    match name {
        "new" => Some(Task::New(New {
            folder: matches.get_one::<String>("folder")?.into(),
            language: *matches.get_one("lang")?,
        })),
        "check" => Some(Task::Check(Check {
            policy: policy()?,
            limits: Limits::default(),
            strict: matches.get_flag("strict"),
            json: matches.get_flag("json"),
        })),
        "test" => Some(Task::Test(Test {
            file: matches.get_one::<String>("file")?.into(),
            policies: matches.get_many("policy").unwrap_or_default().cloned().collect(),
            seed: matches.get_one("seed").copied(),
            json: matches.get_flag("json"),
        })),
        "dev" => {
            let text = |name: &str| matches.get_one::<String>(name).cloned();
            Some(Task::Dev(Dev {
                path: text("path")?.into(),
                build: text("build"),
                artefact: text("artefact").map(Into::into),
                options: text("options"),
                link: text("link"),
                at: super::policy::wanted(matches),
                once: matches.get_flag("once"),
            }))
        }
        "bench" => Some(Task::Bench(Bench {
            policy: policy()?,
            workers: matches.get_many("workers").unwrap_or_default().copied().collect(),
            time: *matches.get_one("time")?,
            json: matches.get_flag("json"),
        })),
        "simulate" => Some(Task::Simulate(Simulate {
            policies: matches.get_many("policy").unwrap_or_default().cloned().collect(),
            workers: *matches.get_one("workers")?,
            weights: matches.get_many("weight").unwrap_or_default().cloned().collect(),
            arrivals: *matches.get_one("arrivals")?,
            session: *matches.get_one("session")?,
            lengths: match matches.get_one::<String>("lengths")?.as_str() {
                "fixed" => Lengths::Fixed,
                "heavy-tailed" => Lengths::HeavyTailed,
                _ => Lengths::Exponential,
            },
            time: *matches.get_one("for")?,
            clients: *matches.get_one("clients")?,
            kills: matches.get_many("kill").unwrap_or_default().cloned().collect(),
            seed: *matches.get_one("seed")?,
            log: matches.get_one::<String>("log").map(Into::into),
            svg: matches.get_one::<String>("svg").map(Into::into),
            json: matches.get_flag("json"),
        })),
        _ => None,
    }
}
