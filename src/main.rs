//! Arguments, telemetry, run, outcome → exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use sidetrack::admin::Ctl;
use sidetrack::app::{App, Outcome, privileges};
use sidetrack::author::{self, Task};
use sidetrack::cli::{self, Action, Order, Replaying};
use sidetrack::config::{Given, Problems, Setting, Source};
use sidetrack::record::{Reader, ReplayError, picture};
use sidetrack::sys::signals;
use sidetrack::systemd::Passed;
use sidetrack::upgrade::{self, Carried};
use sidetrack::{admin, demo, join, telemetry::trace};

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let file = cli::file(&matches).map(Into::into);
    // clap does not let a command line without an action through.
    let Some(action) = cli::action(&matches) else { return ExitCode::from(Outcome::Misconfigured.code()) };
    let outcome = match action {
        Action::Run(flags) => serve(file, flags),
        Action::Demo(flags) => demo_settings(flags).and_then(|flags| serve(file, flags)),
        Action::Check(flags) => {
            Source { unsaid: Vec::new(), file, flags }.load().and_then(App::new).map(|app| {
                eprintln!("sidetrack: ready to run {}", app.describe());
                Outcome::Drained
            })
        }
        Action::Join(options) => Err(join::join(&options)),
        Action::Policy(order) => policy(&order),
        Action::Ctl(ctl) => ask(&ctl),
        Action::Author(task) => author(&task),
        Action::Record(recording) => record(&recording),
        Action::Replay(replaying) => replay(*replaying),
        Action::Upgrade(wanted) => upgrade(&wanted),
        Action::SelfCheck(arguments) => self_check(arguments),
        Action::DemoWorker => demo_worker(),
    };
    match outcome {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(problems) => {
            eprintln!("sidetrack: {problems}");
            ExitCode::from(Outcome::Misconfigured.code())
        }
    }
}

fn policy(order: &Order) -> Result<Outcome, Problems> {
    let done = runtime()?.block_on(admin::carry_out(order));
    done.map(|done| if done { Outcome::Drained } else { Outcome::GaveUp })
        .map_err(|error| Problems::one("policy", error))
}

fn ask(ctl: &Ctl) -> Result<Outcome, Problems> {
    let asked = runtime()?.block_on(ctl.carry_out());
    asked.map(|()| Outcome::Drained).map_err(|error| Problems::one("ctl", error))
}

/// Nobody was upgraded: that is no problem of whoever runs, and another exit code.
fn upgrade(wanted: &admin::Upgrade) -> Result<Outcome, Problems> {
    match runtime()?.block_on(wanted.carry_out()) {
        Ok(Ok(())) => Ok(Outcome::Drained),
        Ok(Err(why)) => {
            eprintln!("sidetrack: upgrade: {why}");
            Ok(Outcome::GaveUp)
        }
        Err(error) => Err(Problems::one("upgrade", error)),
    }
}

/// Says on stdout whether this program could go on with the state on stdin.
fn self_check(arguments: Vec<OsString>) -> Result<Outcome, Problems> {
    let words = std::iter::once(OsString::from("sidetrack")).chain(arguments);
    let matches = cli::command()
        .try_get_matches_from(words)
        .map_err(|error| Problems::one("arguments", error.to_string()))?;
    let file = cli::file(&matches).map(Into::into);
    let carried =
        Carried::read(std::io::stdin()).map_err(|error| Problems::one("state", error.to_string()))?;
    let flags = match cli::action(&matches) {
        Some(Action::Run(flags)) => flags,
        Some(Action::Demo(flags)) => demo_settings(flags)?,
        _ => return Err(Problems::one("arguments", "they are of no run")),
    };
    let unsaid = Passed::resume(&carried.run.passed).settings();
    let mut config = Source { unsaid, file, flags }.load()?;
    carried.run.put_by_hand(&mut config);
    App::resume(config, carried)?;
    // Without a reader nobody goes on.
    drop(writeln!(std::io::stdout(), "{}{}", upgrade::FIT, env!("CARGO_PKG_VERSION")));
    Ok(Outcome::Drained)
}

fn author(task: &Task) -> Result<Outcome, Problems> {
    author::perform(task)
        .map(|good| if good { Outcome::Drained } else { Outcome::GaveUp })
        .map_err(|error| Problems::one("policy", error))
}

fn record(recording: &admin::Recording) -> Result<Outcome, Problems> {
    let done = runtime()?.block_on(admin::record(recording));
    done.map(|()| Outcome::Drained).map_err(|error| Problems::one("record", error))
}

fn replay(Replaying { file, replay, json }: Replaying) -> Result<Outcome, Problems> {
    let problem = |error: ReplayError| Problems::one("replay", error.to_string());
    let report = Reader::open(&file).map_err(ReplayError::Log).and_then(|log| replay.run(log));
    let report = report.map_err(problem)?;
    let text = if json { format!("{:#}\n", report.to_json()) } else { picture(&report) };
    // Nobody may be reading stdout.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(Outcome::Drained)
}

fn serve(file: Option<PathBuf>, flags: Vec<Setting>) -> Result<Outcome, Problems> {
    // Before there is a second thread.
    let carried = Carried::inherited().map_err(|error| Problems::one("state", error.to_string()))?;
    let passed = match &carried {
        Some(carried) => Passed::resume(&carried.run.passed),
        None => Passed::take()?,
    };
    let source = Source { unsaid: passed.settings(), file, flags };
    let mut config = source.load()?;
    if let Some(carried) = &carried {
        carried.run.put_by_hand(&mut config);
    }
    let filter = trace::filter(&config.log).map_err(|error| Problems::one("log", error))?;
    trace::start(config.log_format, filter);
    privileges::reduce(&config);
    // Until the run is ready to act upon them; the threads that begin before never take any.
    signals::hold();
    let app = match carried {
        Some(carried) => App::resume(config, carried)?,
        None => App::new(config)?,
    };
    runtime()?.block_on(app.run(source, passed))
}

/// The demo's workers are this program itself, and it listens where nothing else is likely to.
fn demo_settings(flags: Vec<Setting>) -> Result<Vec<Setting>, Problems> {
    let program = std::env::current_exe()
        .map_err(|error| Problems::one("demo", format!("cannot find this program's own file: {error}")))?;
    let setting = |key: &str, list: Vec<String>| Setting {
        key: key.to_owned(),
        given: if key == "workers" { Given::Text(list.concat()) } else { Given::List(list) },
        origin: "demo".to_owned(),
    };
    let program = program.display().to_string();
    let mut settings =
        vec![setting("workers", vec!["4".to_owned()]), setting("listen", vec!["127.0.0.1:3000".to_owned()])];
    settings.extend(flags.into_iter().filter(|flag| flag.key != "command"));
    settings.push(setting("command", vec![program, "demo-worker".to_owned()]));
    settings.push(Setting { key: "shim".into(), given: Given::Text("false".into()), origin: "demo".into() });
    Ok(settings)
}

fn demo_worker() -> Result<Outcome, Problems> {
    match runtime()?.block_on(demo::worker::serve()) {
        Ok(()) => Ok(Outcome::Drained),
        Err(error) => Err(Problems::one("demo worker", format!("{error:#}"))),
    }
}

/// One thread serves all connections: a hand-off takes microseconds, and state that never
/// changes threads needs no contended lock.
fn runtime() -> Result<tokio::runtime::Runtime, Problems> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(signals::hold)
        .build()
        .map_err(|error| Problems::one("runtime", error.to_string()))
}
