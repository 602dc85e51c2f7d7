//! `sidetrack policy …`: the verbs for a running sidetrack's policy. Those for whoever writes one are
//! beside, in `author`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::admin::{Filter, Wanted};

const EXAMPLES: &str = "\
Examples:
  sidetrack policy status
  sidetrack policy set ./mine.wasm
      Swap it in: state, sessions and connections survive, and what does not fit is refused.
  sidetrack policy set 'hash{\"key\": \"query:room\"}' --link least-connection
  sidetrack policy rollback --pool api
  sidetrack policy explain --target '/socket.io/?EIO=4' --header 'Cookie: server=w2'
      What would be decided now, link by link.
  sidetrack policy explain --session lv_VI97HAXpY6yYWAAAC
      Who has a session.
  sidetrack policy explain --follow --worker w2
      Why each connection goes where it goes, as it happens.
  sidetrack policy shadow set ./new.wasm
      Try it on the true traffic: asked beside the real one, compared, never heeded.

A policy file is also loaded again whenever it changes, and on SIGHUP.";

/// What to ask of a running sidetrack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub verb: Verb,
    /// The pool, unless it is clear which.
    pub pool: Option<String>,
    pub at: Wanted,
    /// Print the answer as it came.
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// The built-in policies: nobody needs to run.
    List,
    Status,
    Set(Value),
    Rollback(Value),
    Explain(Value),
    /// Explain every decision as it is made.
    Follow(Filter),
    ShadowStatus,
    ShadowSet(Value),
    ShadowOff,
}

pub(super) fn command() -> Command {
    let command = Command::new("policy")
        .about("See, replace and try the policy of a running sidetrack; write one")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(super::author::commands())
        .subcommand(Command::new("list").about("The built-in policies"));
    verbs(command)
}

/// What can be asked of the policy of a running sidetrack.
pub(super) fn verbs(command: Command) -> Command {
    command
        .subcommand(of_pool(Command::new("status").about("Every link of the chain: version, state, counters, history")))
        .subcommand(
            of_pool(Command::new("set").about("Put another version in a link's place, with the state of the one before"))
                .arg(
                    Arg::new("policy")
                        .value_name("NAME|FILE")
                        .required(true)
                        .help("A built-in or a file; options as JSON right behind it. Without options a file keeps those of the link"),
                )
                .arg(link())
                .arg(
                    Arg::new("discard-state")
                        .long("discard-state")
                        .action(ArgAction::SetTrue)
                        .help("Begin without the state of the version before"),
                )
                .arg(
                    Arg::new("forgive")
                        .long("forgive")
                        .action(ArgAction::SetTrue)
                        .help("Take a version that was quarantined before"),
                ),
        )
        .subcommand(of_pool(Command::new("rollback").about("Put the version before back")).arg(link()))
        .subcommand(
            of_pool(Command::new("explain").about("What would be decided now for a request, and why"))
                .arg(Arg::new("method").long("method").value_name("METHOD").default_value("GET").help("Its method"))
                .arg(
                    Arg::new("target")
                        .long("target")
                        .value_name("TARGET")
                        .default_value("/")
                        .help("Its path and query"),
                )
                .arg(
                    Arg::new("header")
                        .long("header")
                        .value_name("NAME: VALUE")
                        .action(ArgAction::Append)
                        .value_parser(header)
                        .help("A header line; repeatable"),
                )
                .arg(
                    Arg::new("peer")
                        .long("peer")
                        .value_name("IP")
                        .value_parser(clap::value_parser!(std::net::IpAddr))
                        .help("The client's address"),
                )
                .arg(
                    Arg::new("session")
                        .long("session")
                        .value_name("SID")
                        .allow_hyphen_values(true)
                        .help("The session id it carries; with --follow, only its connections"),
                )
                .arg(
                    Arg::new("follow")
                        .long("follow")
                        .short('f')
                        .action(ArgAction::SetTrue)
                        .conflicts_with_all(["target", "header", "peer", "method"])
                        .help("Explain true connections as they are decided, until stopped"),
                )
                .arg(
                    Arg::new("worker")
                        .long("worker")
                        .value_name("NAME")
                        .requires("follow")
                        .help("Only connections that go to this worker, such as w2"),
                )
                .arg(
                    Arg::new("limit")
                        .long("limit")
                        .value_name("N")
                        .requires("follow")
                        .value_parser(clap::value_parser!(u64).range(1..))
                        .help("Stop after so many"),
                ),
        )
        .subcommand(shadow())
}

fn shadow() -> Command {
    Command::new("shadow")
        .about("Try a policy on the true traffic: asked beside the real one, compared and never heeded")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(of_pool(Command::new("status").about("How it does: agreement, spread, latency, faults")))
        .subcommand(
            of_pool(Command::new("set").about("Ask this policy from now on, in place of the shadow before"))
                .arg(
                    Arg::new("policy")
                        .value_name("NAME|FILE")
                        .required(true)
                        .help("A built-in or a file; options as JSON right behind it"),
                ),
        )
        .subcommand(of_pool(Command::new("off").about("Ask none any more")))
}

pub(super) fn link() -> Arg {
    Arg::new("link").long("link").value_name("NAME").help("The link of the chain; the first one without it")
}

/// Where to ask.
pub(super) fn admin() -> [Arg; 2] {
    [
        Arg::new("admin").long("admin").value_name("PATH|URL").help(
            "The admin socket, or http://HOST:PORT; without it, the socket of the one sidetrack you run",
        ),
        Arg::new("token-file")
            .long("token-file")
            .value_name("FILE")
            .help("The file with the token that is asked for over TCP"),
    ]
}

/// Where somebody said to ask.
pub(super) fn wanted(matches: &ArgMatches) -> Wanted {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    Wanted { admin: text("admin"), token: text("token-file").map(Into::into) }
}

pub(super) fn asking(command: Command) -> Command {
    command
        .args(admin())
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the answer as JSON"))
}

/// As [`asking`], about one pool.
fn of_pool(command: Command) -> Command {
    asking(command).arg(pool())
}

pub(super) fn pool() -> Arg {
    Arg::new("pool")
        .long("pool")
        .value_name("NAME")
        .help("The pool it is about, where there are several; without it, the default one")
}

fn header(text: &str) -> Result<(String, String), String> {
    text.split_once(':')
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "expected NAME: VALUE".to_owned())
}

/// What was asked for.
pub(super) fn order(matches: &ArgMatches) -> Option<Order> {
    let (mut name, mut matches) = matches.subcommand()?;
    if name == "shadow" {
        (name, matches) = match matches.subcommand()? {
            ("set", matches) => ("shadow set", matches),
            ("off", matches) => ("shadow off", matches),
            (_, matches) => ("shadow status", matches),
        };
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let mut body = Map::new();
    if let Ok(Some(link)) = matches.try_get_one::<String>("link") {
        body.insert("link".to_owned(), json!(link));
    }
    let verb = match name {
        "list" => return Some(Order { verb: Verb::List, pool: None, at: Wanted::default(), json: false }),
        "status" => Verb::Status,
        "set" => {
            body.insert("policy".to_owned(), json!(absolute(&text("policy")?)));
            for flag in ["discard-state", "forgive"] {
                body.insert(flag.replace('-', "_"), json!(matches.get_flag(flag)));
            }
            Verb::Set(body.into())
        }
        "rollback" => Verb::Rollback(body.into()),
        "shadow status" => Verb::ShadowStatus,
        "shadow set" => {
            body.insert("policy".to_owned(), json!(absolute(&text("policy")?)));
            Verb::ShadowSet(body.into())
        }
        "shadow off" => Verb::ShadowOff,
        "explain" if matches.get_flag("follow") => Verb::Follow(Filter {
            worker: text("worker"),
            session: text("session"),
            limit: matches.get_one("limit").copied(),
        }),
        "explain" => {
            for name in ["method", "target", "session"] {
                if let Some(text) = text(name) {
                    body.insert(name.to_owned(), json!(text));
                }
            }
            if let Some(peer) = matches.get_one::<std::net::IpAddr>("peer") {
                body.insert("peer".to_owned(), json!(peer));
            }
            let headers = matches.get_many::<(String, String)>("header").unwrap_or_default();
            body.insert("headers".to_owned(), json!(headers.collect::<Vec<_>>()));
            Verb::Explain(body.into())
        }
        _ => return None,
    };
    Some(Order { verb, pool: text("pool"), at: wanted(matches), json: matches.get_flag("json") })
}

/// The running sidetrack may have another working directory.
fn absolute(policy: &str) -> String {
    let (path, options) = match policy.find('{') {
        Some(at) => policy.split_at(at),
        None => (policy, ""),
    };
    match std::fs::canonicalize(path) {
        // A name that is no path of an existing file goes as it is: the answer says what is wrong.
        Ok(found) if found.is_file() => {
            // A link that somebody will turn elsewhere stays the link it is.
            let full = std::path::absolute(path).unwrap_or(found);
            format!("{}{options}", full.display())
        }
        _ => policy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(words: &[&str]) -> Order {
        let matches = command().try_get_matches_from(["policy"].iter().chain(words)).unwrap();
        order(&matches).unwrap()
    }

    #[test]
    fn words_become_orders() {
        assert_eq!(order_of(&["list"]).verb, Verb::List);
        let Verb::Set(body) = order_of(&["set", "random", "--link", "hash", "--discard-state"]).verb else {
            panic!()
        };
        let expected = json!({ "policy": "random", "link": "hash", "discard_state": true, "forgive": false });
        assert_eq!(body, expected);
        let explain = order_of(&[
            "explain",
            "--header",
            "Cookie: a=b",
            "--peer",
            "::1",
            "--admin",
            "/a.sock",
            "--json",
        ]);
        assert_eq!((explain.at.admin.as_deref(), explain.json, explain.pool), (Some("/a.sock"), true, None));
        assert_eq!(order_of(&["status", "--pool", "api"]).pool.as_deref(), Some("api"));
        let follow = order_of(&["explain", "--follow", "--worker", "w1", "--limit", "3"]).verb;
        let expected = Filter { worker: Some("w1".into()), session: None, limit: Some(3) };
        assert_eq!(follow, Verb::Follow(expected));
        assert_eq!(order_of(&["shadow", "status"]).verb, Verb::ShadowStatus);
        assert_eq!(order_of(&["shadow", "off"]).verb, Verb::ShadowOff);
        let set = order_of(&["shadow", "set", "random"]).verb;
        assert_eq!(set, Verb::ShadowSet(json!({ "policy": "random" })));
        let Verb::Explain(body) = explain.verb else { panic!() };
        assert_eq!((&body["headers"], &body["peer"]), (&json!([["Cookie", "a=b"]]), &json!("::1")));
    }

    #[test]
    fn a_file_is_named_in_full_and_a_policy_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.wasm");
        std::fs::write(&path, "").unwrap();
        let text = format!("{}{{\"a\": 1}}", path.display());
        assert_eq!(absolute(&text), text);
        assert_eq!(absolute("hash{}"), "hash{}");
        assert!(std::path::Path::new(&absolute("Cargo.toml")).is_absolute());
    }
}
