//! The command line, as typed. What the words mean is the business of [`crate::config`].

mod author;
mod ctl;
mod policy;
mod print;
mod record;
mod time;
mod upgrade;

pub use policy::{Order, Verb};
pub use print::print;
pub use record::Replaying;

use std::ffi::OsString;

use clap::builder::styling::{AnsiColor, Styles};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::admin::{Ctl, Recording, Upgrade};
use crate::author::Task;
use crate::config::{Given, KEYS, Key, Kind, Setting};
use crate::join::Options;

const EXAMPLES: &str = "\
Examples:
  sidetrack run --workers 4 -- node server.js
      Four copies of an ordinary Socket.IO server, on the port it asks for itself.
  sidetrack run --listen 127.0.0.1:8080 --policy round-robin -- node server.js
      The same behind another address; the server goes on believing in its own.
  sidetrack run --listen :3000 -- node sticky-worker.js
      Workers written for @socket.io/sticky: setupWorker(io), and nobody calls listen().
  sidetrack run --policy ./mine.js -- node server.js
  sidetrack run --policy sticky-cookie --policy ./mine.wasm -c sidetrack.toml
      A chain of policies, one of your own; every flag is also a key in the file.
  sidetrack policy set ./mine.wasm
      Another version while it runs.
  sidetrack run --admin-listen 127.0.0.1:9000 -- node server.js
      With a dashboard at http://127.0.0.1:9000.
  sidetrack upgrade
      Another version of sidetrack itself, in place; no connection notices.
  sidetrack run --workers 0 --listen :3000 --join-socket ./join.sock
      Nothing is started here: workers come by themselves, with `sidetrack join`.
  sidetrack demo
      See it work, with nothing else installed.

Exit codes:
  0  drained    1  gave up    2  wrong configuration or use    3  something had to be cut off";

/// What to do.
#[derive(Debug)]
pub enum Action {
    Run(Vec<Setting>),
    /// Only say whether `run` would start.
    Check(Vec<Setting>),
    Demo(Vec<Setting>),
    /// Become a worker of a sidetrack that runs already.
    Join(Options),
    /// Ask something of a running sidetrack.
    Policy(Order),
    /// Ask a running sidetrack what it does.
    Ctl(Ctl),
    /// Something for whoever writes a policy.
    Author(Task),
    /// Write down what a running sidetrack decides.
    Record(Recording),
    /// Ask other policies the same.
    Replay(Box<Replaying>),
    /// Exchange the program of a running sidetrack.
    Upgrade(Upgrade),
    /// Whether this program could go on with a run that has these arguments.
    SelfCheck(Vec<OsString>),
    /// One of the demo's own workers.
    DemoWorker,
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let styles = Styles::styled()
        .header(AnsiColor::Green.on_default().bold())
        .usage(AnsiColor::Green.on_default().bold())
        .literal(AnsiColor::Cyan.on_default().bold())
        .placeholder(AnsiColor::Cyan.on_default());
    Command::new("sidetrack")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts a server on all cores and keeps every session with the worker that owns it")
        .after_help(EXAMPLES)
        .styles(styles)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(settings(
            Command::new("run")
                .about("Start the workers and serve")
                .long_about(
                    "Start the workers and serve.\n\nsidetrack accepts each connection, looks at its request without \
                     reading it, and hands the socket itself to the worker that owns the session, or to the one the \
                     policy picks. No payload passes through sidetrack.",
                )
                .after_help(EXAMPLES),
        ))
        .subcommand(settings(
            Command::new("check")
                .about("Say whether `run` would start: configuration, command and policy, without starting anything"),
        ))
        .subcommand(
            settings(Command::new("demo").about("Serve a page that shows sessions and their workers, live"))
                .mut_arg("command", |arg| arg.hide(true)),
        )
        .subcommand(ctl::command())
        .subcommand(upgrade::command())
        .subcommand(policy::command())
        .subcommand(record::record_command())
        .subcommand(record::replay_command())
        .subcommand(join())
        .subcommand(upgrade::check())
        .subcommand(Command::new("demo-worker").hide(true))
}

fn join() -> Command {
    Command::new("join")
        .about("Become a worker of a sidetrack that runs already, started by somebody else: systemd, a container")
        .long_about(
            "Become a worker of a sidetrack that runs already.\n\nThe process asks at the join socket to be taken \
             in and then becomes COMMAND, with the same process id. COMMAND needs no port and no network of its \
             own. When it ends, its supervisor starts it again; when sidetrack is restarted, Node workers with \
             the shim and Rust workers join again by themselves and keep their connections and sessions.",
        )
        .after_help(
            "Examples:\n  sidetrack run --workers 0 --listen :3000 --join-socket /run/sidetrack/join.sock\n  \
             sidetrack join --socket /run/sidetrack/join.sock --slot web-1 -- node server.js",
        )
        .arg(
            Arg::new("socket")
                .long("socket")
                .value_name("PATH")
                .required(true)
                .help("The join socket, as given to `run --join-socket`"),
        )
        .arg(Arg::new("slot").long("slot").value_name("NAME").help(
            "The slot to be known by, such as web-1. Without it, the next free one (w0, w1, …)",
        ))
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("TIME")
                .default_value("60s")
                .value_parser(time::any_time)
                .help("How long to wait for a sidetrack that is not there"),
        )
        .arg(
            Arg::new("shim")
                .long("no-shim")
                .action(ArgAction::SetFalse)
                .help("Preload nothing into a Node worker"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .last(true)
                .num_args(1..)
                .required(true)
                .help("The worker's command and its arguments, behind `--`"),
        )
}

/// The flags of `join`; clap has seen to it that all of them are there.
fn join_options(matches: &ArgMatches) -> Option<Options> {
    Some(Options {
        socket: matches.get_one::<String>("socket")?.into(),
        slot: matches.get_one("slot").cloned(),
        command: matches.get_many("command")?.cloned().collect(),
        shim: matches.get_flag("shim"),
        wait: *matches.get_one("wait")?,
    })
}

/// What was asked for.
#[must_use]
pub fn action(matches: &ArgMatches) -> Option<Action> {
    match matches.subcommand()? {
        ("run", matches) => Some(Action::Run(given(matches))),
        ("check", matches) => Some(Action::Check(given(matches))),
        ("demo", matches) => Some(Action::Demo(given(matches))),
        ("policy", matches) => {
            author::task(matches).map(Action::Author).or_else(|| policy::order(matches).map(Action::Policy))
        }
        ("upgrade", matches) => Some(Action::Upgrade(upgrade::upgrade(matches))),
        (crate::upgrade::SUBCOMMAND, matches) => Some(Action::SelfCheck(upgrade::arguments(matches))),
        ("ctl", matches) => match matches.subcommand() {
            Some(("policy", matches)) => policy::order(matches).map(Action::Policy),
            _ => ctl::ctl(matches).map(Action::Ctl),
        },
        ("record", matches) => record::recording(matches).map(Action::Record),
        ("replay", matches) => record::replaying(matches).map(Box::new).map(Action::Replay),
        ("join", matches) => join_options(matches).map(Action::Join),
        ("demo-worker", _) => Some(Action::DemoWorker),
        _ => None,
    }
}

/// The file named by `-c`.
#[must_use]
pub fn file(matches: &ArgMatches) -> Option<&String> {
    matches.subcommand().and_then(|(_, matches)| matches.try_get_one("config").ok().flatten())
}

fn settings(command: Command) -> Command {
    let file = Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .help("Read settings from a TOML file, such as sidetrack.toml; flags win over it");
    KEYS.iter().fold(command.arg(file), |command, key| command.arg(argument(key)))
}

fn argument(key: &Key) -> Arg {
    let help = match (key.kind, key.default) {
        (Kind::Off, _) | (_, "") => key.help.to_owned(),
        (_, default) => format!("{} [default: {default}]", key.help),
    };
    let arg = match key.name {
        "workers" => Arg::new(key.name).short('w'),
        "policy" => Arg::new(key.name).short('p'),
        "listen" => Arg::new(key.name).short('l'),
        name => Arg::new(name),
    };
    let arg = arg.help(help).help_heading(Some(key.group).filter(|group| !group.is_empty()));
    match key.kind {
        // Refused where the key is known, with what is expected in their place.
        Kind::One => arg.long(key.flag).value_name(key.value).allow_negative_numbers(true),
        Kind::Many => {
            arg.long(key.flag).value_name(key.value).action(ArgAction::Append).allow_negative_numbers(true)
        }
        Kind::Optional => arg.long(key.flag).value_name(key.value).num_args(0..).action(ArgAction::Append),
        Kind::Off => arg.long(key.flag).action(ArgAction::SetFalse),
        Kind::Rest => arg.value_name(key.value).last(true).num_args(1..),
    }
}

/// The flags that were typed, as settings.
fn given(matches: &ArgMatches) -> Vec<Setting> {
    let typed = |key: &&Key| matches.value_source(key.name) == Some(ValueSource::CommandLine);
    let setting = |key: &Key| {
        let list = || matches.get_many::<String>(key.name).into_iter().flatten().cloned().collect();
        let (given, origin) = match key.kind {
            Kind::Off => (Given::Text("false".to_owned()), format!("--{}", key.flag)),
            Kind::One => {
                let text = matches.get_one::<String>(key.name).cloned().unwrap_or_default();
                (Given::Text(text), format!("--{}", key.flag))
            }
            Kind::Many | Kind::Optional => (Given::List(list()), format!("--{}", key.flag)),
            Kind::Rest => (Given::List(list()), key.name.to_owned()),
        };
        Setting { key: key.name.to_owned(), given, origin }
    };
    KEYS.iter().filter(typed).map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_session_id_may_begin_with_a_hyphen() {
        for words in [&["ctl", "session", "-r9A", "--json"][..], &["policy", "explain", "--session", "-r9A"]]
        {
            command().try_get_matches_from([&["sidetrack"], words].concat()).unwrap();
        }
    }

    #[test]
    fn typed_flags_become_settings_and_defaults_do_not() {
        let words =
            ["sidetrack", "run", "-w", "2", "-l", ":1", "-l", ":2", "--no-shim", "--", "node", "a.js", "-x"];
        let matches = command().try_get_matches_from(words).unwrap();
        let Some(Action::Run(settings)) = action(&matches) else { panic!("not a run") };
        let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys, ["command", "workers", "shim", "listen"]);
        assert_eq!(settings[0].given.list().unwrap(), ["node", "a.js", "-x"]);
        assert_eq!(settings[3].given.list().unwrap(), [":1", ":2"]);
    }
}
