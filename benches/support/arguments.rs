//! What a benchmark has been asked for.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// Reads them; `--help` and mistakes end the benchmark.
pub fn read<const N: usize>(about: &'static str, own: [Arg; N]) -> ArgMatches {
    // Cargo adds a flag of its own.
    let cargo = Arg::new("bench").long("bench").hide(true).action(ArgAction::SetTrue);
    let called = concat!("cargo bench --bench ", env!("CARGO_CRATE_NAME"), " --");
    Command::new(env!("CARGO_CRATE_NAME")).bin_name(called).about(about).arg(cargo).args(own).get_matches()
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
