//! `sidetrack ctl …`: what a running sidetrack does.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::policy::{self, asking};
use super::time::any_time;
use crate::admin::{Ctl, Question};

const EXAMPLES: &str = "\
Examples:
  sidetrack ctl status
  sidetrack ctl workers --json
  sidetrack ctl session lv_VI97HAXpY6yYWAAAC
  sidetrack ctl drain w2 --within 10m
  sidetrack ctl restart --rolling --within 1h
  sidetrack ctl restart --rolling --pool api
  sidetrack ctl scale 8
  sidetrack ctl reload --dry-run
  sidetrack ctl log-level sidetrack::route=debug,info
  sidetrack ctl policy rollback
  sidetrack ctl status --admin http://127.0.0.1:9000 --token-file ./token

Metrics for Prometheus are at /metrics of the same socket:
  curl --unix-socket PATH http://sidetrack/metrics
With `run --admin-listen ADDR:PORT` there is also a page for people.";

pub(super) fn command() -> Command {
    Command::new("ctl")
        .about("See what a running sidetrack does, and have it do otherwise")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(asking(Command::new("status").about("The run at a glance")))
        .subcommand(
            asking(Command::new("workers").about("Every worker: process, standing, load")).arg(pool()),
        )
        .subcommand(
            asking(Command::new("session").about("Which worker has a session, and since when"))
                // One in 64 ids of Engine.IO begins with a hyphen.
                .arg(
                    Arg::new("sid")
                        .value_name("SID")
                        .required(true)
                        .allow_hyphen_values(true)
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("The session id"),
                ),
        )
        .subcommand(
            asking(
                Command::new("drain")
                    .about("Nothing new for a worker; if it was started here, it leaves when it has nothing left to do"),
            )
            .arg(slot().required(true))
            .arg(within()),
        )
        .subcommand(
            asking(
                Command::new("restart")
                    .about("A new worker follows in a slot; the one before leaves as when drained"),
            )
            .arg(slot().required_unless_present("rolling"))
            .arg(
                Arg::new("rolling")
                    .long("rolling")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("slot")
                    .help("All of them, one after another, each when the one before is ready; goes on when nobody waits for it any more"),
            )
            .arg(pool().requires("rolling"))
            .arg(within()),
        )
        .subcommand(
            asking(
                Command::new("scale")
                    .about("More workers, or fewer: the highest slots leave as when drained"),
            )
            .arg(
                Arg::new("workers")
                    .value_name("N")
                    .required(true)
                    .value_parser(value_parser!(u32))
                    .allow_negative_numbers(true)
                    .help("How many there are to be"),
            )
            .arg(pool())
            .arg(within()),
        )
        .subcommand(
            asking(Command::new("reload").about(
                "Read the configuration again and change what is different, or nothing if anything is wrong",
            ))
            .arg(
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .help("Only say what would change and what is wrong"),
            ),
        )
        .subcommand(
            asking(Command::new("log-level").about("What is logged, or another filter from now on")).arg(
                Arg::new("filter").value_name("FILTER").help("As in `run --log`: info, debug, target=level"),
            ),
        )
        .subcommand(
            asking(
                Command::new("undrain").about("A worker takes part again; one that has left is started anew"),
            )
            .arg(slot().required(true)),
        )
        .subcommand(policy::verbs(
            Command::new("policy")
                .about("See and replace the policy; the same verbs as those of `sidetrack policy`")
                .subcommand_required(true)
                .arg_required_else_help(true),
        ))
}

fn within() -> Arg {
    Arg::new("within")
        .long("within")
        .value_name("TIME")
        .value_parser(any_time)
        .help("When the old one is told to leave at the latest, such as 10m, and 2s later by SIGTERM; without it, it may take for ever")
}

fn pool() -> Arg {
    Arg::new("pool").long("pool").value_name("NAME").help("Only those of this pool, where there are several")
}

fn slot() -> Arg {
    Arg::new("slot").value_name("WORKER").help("Its slot, such as w2")
}

/// What was asked for.
pub(super) fn ctl(matches: &ArgMatches) -> Option<Ctl> {
    let (name, matches) = matches.subcommand()?;
    let question = match name {
        "status" => Question::Status,
        "workers" => Question::Workers,
        "drain" => {
            Question::Drain(matches.get_one::<String>("slot")?.clone(), matches.get_one("within").copied())
        }
        "restart" => {
            let slots = matches.get_one::<String>("slot").cloned().into_iter().collect();
            Question::Restart(slots, matches.get_one("within").copied())
        }
        "scale" => {
            let workers = usize::try_from(*matches.get_one::<u32>("workers")?).unwrap_or(usize::MAX);
            Question::Scale(workers, matches.get_one("within").copied())
        }
        "reload" => Question::Reload { dry_run: matches.get_flag("dry-run") },
        "log-level" => Question::LogLevel(matches.get_one::<String>("filter").cloned()),
        "undrain" => Question::Undrain(matches.get_one::<String>("slot")?.clone()),
        "session" => Question::Session(matches.get_one::<String>("sid")?.clone()),
        _ => return None,
    };
    let pool = matches.try_get_one::<String>("pool").ok().flatten().cloned();
    Some(Ctl { question, pool, at: policy::wanted(matches), json: matches.get_flag("json") })
}
