//! `sidetrack policy …`: the verbs for whoever writes one.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::author::{Check, Task};
use crate::policy::{Limits, PolicyLink};

pub(super) fn commands() -> [Command; 1] {
    [Command::new("check")
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
        .arg(flag("json", "Print the verdict as JSON"))]
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
        "check" => Some(Task::Check(Check {
            policy: policy()?,
            limits: Limits::default(),
            strict: matches.get_flag("strict"),
            json: matches.get_flag("json"),
        })),
        _ => None,
    }
}
