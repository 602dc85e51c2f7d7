//! `sidetrack ctl …`: what a running sidetrack does.

use clap::{Arg, ArgMatches, Command};

use super::policy::asking;
use crate::admin::{Ctl, Question};

const EXAMPLES: &str = "\
Examples:
  sidetrack ctl status
  sidetrack ctl workers --json
  sidetrack ctl session lv_VI97HAXpY6yYWAAAC

Metrics for Prometheus are at /metrics of the same socket:
  curl --unix-socket PATH http://sidetrack/metrics";

pub(super) fn command() -> Command {
    Command::new("ctl")
        .about("See what a running sidetrack does: workers, sessions, figures")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(asking(Command::new("status").about("The run at a glance")))
        .subcommand(asking(Command::new("workers").about("Every worker: process, standing, load")))
        .subcommand(
            asking(Command::new("session").about("Which worker has a session"))
                .arg(Arg::new("sid").value_name("SID").required(true).help("The session id")),
        )
}

/// What was asked for.
pub(super) fn ctl(matches: &ArgMatches) -> Option<Ctl> {
    let (name, matches) = matches.subcommand()?;
    let question = match name {
        "status" => Question::Status,
        "workers" => Question::Workers,
        "session" => Question::Session(matches.get_one::<String>("sid")?.clone()),
        _ => return None,
    };
    let admin = matches.get_one::<String>("admin").map(Into::into);
    Some(Ctl { question, admin, json: matches.get_flag("json") })
}
