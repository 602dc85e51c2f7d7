//! `sidetrack upgrade`, and the check that it makes of the next program.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::policy::{asking, wanted};
use super::time::any_time;
use crate::admin::Upgrade;
use crate::upgrade;

const ABOUT: &str = "\
Have a running sidetrack go on as the program that is now in its file, or in another one.

The process stays the same, and nothing is lost: listeners, workers and their channels, sessions, \
policies with their states, connections in whatever stage, figures. Workers notice nothing. Before that, \
the new program is run once to check itself: it reads the state, the settings and the policies. When it \
finds something wrong, the old one goes on as if nothing had been, and says what it was.

Cut are only those who watch: `record`, `explain --follow` and other requests at the admin socket.

SIGUSR2 does the same; the log says what came of it.";

const EXAMPLES: &str = "\
Examples:
  sidetrack upgrade
  sidetrack upgrade --binary /opt/sidetrack-2/bin/sidetrack
  kill -USR2 $(systemctl show --property MainPID --value sidetrack)

Exit codes:
  0  upgraded    1  the old one goes on    2  nobody could be asked";

pub(super) fn command() -> Command {
    let time = Arg::new("within")
        .long("within")
        .value_name("TIME")
        .value_parser(any_time)
        .help("How long the new program may take to check itself [default: 60s]");
    let binary = Arg::new("binary")
        .long("binary")
        .value_name("PATH")
        .help("The new program, without which it is the one in the running one's place");
    asking(
        Command::new("upgrade")
            .about("Exchange the program of a running sidetrack; nothing is lost")
            .long_about(ABOUT)
            .after_help(EXAMPLES),
    )
    .arg(binary)
    .arg(time)
}

/// What a program is run with to check itself.
pub(super) fn check() -> Command {
    let arguments = Arg::new("arguments").last(true).num_args(0..).value_parser(value_parser!(OsString));
    Command::new(upgrade::SUBCOMMAND).hide(true).arg(arguments)
}

/// What was asked for.
pub(super) fn upgrade(matches: &ArgMatches) -> Upgrade {
    Upgrade {
        binary: matches.get_one::<String>("binary").map(Into::into),
        within: matches.get_one("within").copied().unwrap_or(upgrade::PATIENCE),
        at: wanted(matches),
        json: matches.get_flag("json"),
    }
}

/// The arguments of the run that is to be gone on with.
pub(super) fn arguments(matches: &ArgMatches) -> Vec<OsString> {
    matches.get_many("arguments").into_iter().flatten().cloned().collect()
}
