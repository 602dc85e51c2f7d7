//! `sidetrack record` and `sidetrack replay`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::time::any_time;
use crate::admin::Recording;
use crate::policy::{Limits, PolicyLink};
use crate::record::{Keep, Loads, Replay};

const RECORD: &str = "\
Examples:
  sidetrack record --out today.log --for 10m
  sidetrack record --out rooms.log --keep query:room --max 100000
      Rooms as they are, everything else that tells of people under pseudonyms.
  sidetrack record --out - | gzip > today.log.gz

Session ids, client addresses, cookies, other query values and a few headers are replaced by keyed
hashes, whose key is kept nowhere; other headers are left out. What comes out is meant for
`sidetrack replay`; docs/watching-policies.md describes it.";

const REPLAY: &str = "\
Examples:
  sidetrack replay today.log --policy round-robin
      Where would everything have gone?
  sidetrack replay today.log --policy sticky-cookie --policy ./mine.wasm --json
  sidetrack replay today.log --policy ./new.wasm --against ./old.wasm
      Two policies on the same traffic, whatever was decided then.

The same recording and the same policies have the same outcome each time.";

/// What to replay.
#[derive(Debug)]
pub struct Replaying {
    pub file: PathBuf,
    pub replay: Replay,
    pub json: bool,
}

pub(super) fn record_command() -> Command {
    Command::new("record")
        .about("Record what the policies of a running sidetrack decide, and from what")
        .after_help(RECORD)
        .arg(
            Arg::new("out")
                .long("out")
                .short('o')
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A new file, for you alone to read; - for standard output"),
        )
        .args(super::policy::admin())
        .arg(super::policy::pool())
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .value_parser(any_time)
                .help("Stop after so long, such as 10m; without it, when you stop it or sidetrack ends"),
        )
        .arg(
            Arg::new("max")
                .long("max")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("Stop after so many decisions"),
        )
        .arg(
            Arg::new("full")
                .long("full")
                .action(ArgAction::SetTrue)
                .help("Record everything as it is: session ids, addresses, all headers"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .value_name("WHAT")
                .action(ArgAction::Append)
                .value_parser(|text: &str| text.parse::<Keep>().map(|_| text.to_owned()))
                .conflicts_with("full")
                .help(
                    "Record this as it is: query:NAME, cookie:NAME, header:NAME, session or peer; repeatable",
                ),
        )
}

pub(super) fn recording(matches: &ArgMatches) -> Option<Recording> {
    Some(Recording {
        out: matches.get_one::<PathBuf>("out")?.clone(),
        at: super::policy::wanted(matches),
        pool: matches.get_one("pool").cloned(),
        time: matches.get_one("for").copied(),
        most: matches.get_one("max").copied(),
        full: matches.get_flag("full"),
        keep: matches.get_many("keep").into_iter().flatten().cloned().collect(),
    })
}

pub(super) fn replay_command() -> Command {
    let policy = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NAME|FILE")
            .action(ArgAction::Append)
            .value_parser(|text: &str| text.parse::<PolicyLink>())
            .help(help)
    };
    Command::new("replay")
        .about("Ask other policies what a recording holds: which connections would go elsewhere, and where")
        .after_help(REPLAY)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("What `sidetrack record` has written"),
        )
        .arg(
            policy("policy", "The policy to ask; options as JSON right behind it. Repeat it for a chain")
                .short('p')
                .required(true),
        )
        .arg(policy("against", "Compare with this policy, asked the same, instead of with what was recorded; repeatable"))
        .arg(
            Arg::new("loads")
                .long("loads")
                .value_name("WHICH")
                .value_parser(["follow", "recorded"])
                .default_value("follow")
                .help("The loads that policies see: as they would follow from the replayed decisions, or as recorded"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .default_value("0")
                .help("What random numbers begin from"),
        )
        .arg(
            Arg::new("fuel")
                .long("policy-fuel")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1000..))
                .help("What one decision of a policy may cost, as for `run`"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the outcome as JSON"))
}

pub(super) fn replaying(matches: &ArgMatches) -> Option<Replaying> {
    let chain = |name: &str| matches.get_many::<PolicyLink>(name).map(|links| links.cloned().collect());
    let mut limits = Limits::default();
    if let Some(fuel) = matches.get_one("fuel") {
        limits.decision_fuel = *fuel;
    }
    let replay = Replay {
        chain: chain("policy")?,
        against: chain("against"),
        loads: if matches.get_one::<String>("loads")? == "recorded" {
            Loads::Recorded
        } else {
            Loads::Follow
        },
        seed: *matches.get_one("seed")?,
        limits,
        cache: true,
    };
    Some(Replaying {
        file: matches.get_one::<PathBuf>("file")?.clone(),
        replay,
        json: matches.get_flag("json"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_recording() {
        let words = ["record", "--out", "x.log", "--for", "2m", "--max", "7", "--keep", "query:room"];
        let recording = recording(&record_command().try_get_matches_from(words).unwrap()).unwrap();
        assert_eq!((recording.time.unwrap().as_secs(), recording.most), (120, Some(7)));
        assert_eq!((recording.keep, recording.full), (vec!["query:room".to_owned()], false));
        for words in
            [&["record"][..], &["record", "-o", "x", "--keep", "y"], &["record", "-o", "x", "--max", "0"]]
        {
            assert!(record_command().try_get_matches_from(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn words_become_a_replay() {
        let words =
            ["replay", "x.log", "-p", "sticky-cookie", "-p", "random", "--loads", "recorded", "--seed", "3"];
        let replaying = replaying(&replay_command().try_get_matches_from(words).unwrap()).unwrap();
        let Replay { chain, against, loads, seed, .. } = replaying.replay;
        assert_eq!((chain.len(), against, loads, seed), (2, None, Loads::Recorded, 3));
        assert!(replay_command().try_get_matches_from(["replay", "x.log", "-p", "nobody"]).is_err());
    }
}
