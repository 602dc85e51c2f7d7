//! What the benchmarks share: the servers they compare, and what the kernel knows of them.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub mod awake;
pub mod channel;
pub mod cores;
pub mod peers;
pub mod process;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// What a benchmark has been asked for; `--help` and mistakes end it.
pub fn arguments<const N: usize>(about: &'static str, own: [Arg; N]) -> ArgMatches {
    // Cargo adds a flag of its own.
    let cargo = Arg::new("bench").long("bench").hide(true).action(ArgAction::SetTrue);
    let name = env!("CARGO_CRATE_NAME");
    let usage = format!("cargo bench --bench {name} [-- OPTIONS]");
    Command::new(name).about(about).override_usage(usage).arg(cargo).args(own).get_matches()
}

/// A number that can be given.
pub fn number(name: &'static str, help: &'static str, default: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("N")
        .value_parser(value_parser!(usize))
        .default_value(default)
        .help(help)
}

/// Something that can be switched on.
pub fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Something that can be given.
pub fn word(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// A [`number`]'s value.
pub fn given(arguments: &ArgMatches, name: &str) -> usize {
    *arguments.get_one(name).expect("it has a default")
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
