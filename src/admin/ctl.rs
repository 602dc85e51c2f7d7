//! `sidetrack ctl`: asks, and shows a person the answer.

use std::fmt::Write as _;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::fields::{items, refusal, text};
use super::{Answer, Place, Wanted, ask, of_pool};
use crate::cli::print;

/// How often a restart is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What to ask of a running sidetrack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ctl {
    pub question: Question,
    /// Only workers of this pool.
    pub pool: Option<String>,
    pub at: Wanted,
    /// Print the answer as it came.
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Status,
    Workers,
    Session(String),
    /// A slot, and how long its worker may take.
    Drain(String, Option<Duration>),
    Undrain(String),
    /// Slots, one after another, all of them when none is named; and how long each worker may take to leave.
    Restart(Vec<String>, Option<Duration>),
    /// Read the configuration again, or only try it.
    Reload {
        dry_run: bool,
    },
    /// How many workers there are to be, and how long those that are not may take to leave.
    Scale(usize, Option<Duration>),
    /// What is logged; another filter, if there is one.
    LogLevel(Option<String>),
}

impl Ctl {
    /// Asks and prints.
    ///
    /// # Errors
    /// When nobody could be asked or the answer is no; in words.
    pub async fn carry_out(&self) -> Result<(), String> {
        type Shown = fn(&Value) -> String;
        let place = self.at.place().map_err(|error| error.to_string())?;
        if let Question::Restart(slots, within) = &self.question {
            let slots = Some(slots).filter(|slots| !slots.is_empty());
            let order = json!({ "pool": self.pool, "slots": slots, "within_ms": millis(*within) });
            return restart(&place, &order, self.json).await;
        }
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (path, body, shown): (_, _, Shown) = match &self.question {
            Question::Status => ("/v1/status".to_owned(), None, status),
            Question::Workers => (of_pool("/v1/workers", self.pool.as_deref()), None, workers),
            Question::Session(sid) => (format!("/v1/sessions/{}", encoded(sid)), None, session),
            Question::Drain(slot, within) => (
                format!("/v1/workers/{}/drain", encoded(slot)),
                Some(json!({ "within_ms": millis(*within) })),
                workers,
            ),
            Question::Reload { dry_run } => {
                ("/v1/reload".to_owned(), Some(json!({ "dry_run": dry_run })), reloaded)
            }
            Question::Scale(count, within) => (
                "/v1/workers/scale".to_owned(),
                Some(json!({ "pool": self.pool, "workers": count, "within_ms": millis(*within) })),
                scaled,
            ),
            Question::LogLevel(filter) => {
                ("/v1/log".to_owned(), filter.as_ref().map(|filter| json!({ "filter": filter })), |value| {
                    format!("{}\n", text(&value["filter"]))
                })
            }
            Question::Undrain(slot) => {
                (format!("/v1/workers/{}/undrain", encoded(slot)), Some(json!({})), workers)
            }
            Question::Restart(..) => return Ok(()),
        };
        let Answer { good, value } =
            ask(&place, &path, body.as_ref()).await.map_err(|error| error.to_string())?;
        match (self.json, good) {
            (true, _) => print(&format!("{value:#}\n")),
            (false, true) => print(&shown(&value)),
            (false, false) => {}
        }
        if good { Ok(()) } else { Err(refusal(&value)) }
    }
}

async fn answer(place: &Place, path: &str, body: Option<&Value>) -> Result<Value, String> {
    let Answer { good, value } = ask(place, path, body).await.map_err(|error| error.to_string())?;
    if good { Ok(value) } else { Err(refusal(&value)) }
}

/// Has one worker after another followed by a new one, and tells of each that is ready. sidetrack sees it
/// through, also when nobody looks any more.
async fn restart(place: &Place, order: &Value, json: bool) -> Result<(), String> {
    let mut restart = answer(place, "/v1/workers/restart", Some(order)).await?;
    let number = restart["number"].clone();
    let mut told = 0;
    while restart["number"] == number {
        let followed = items(&restart["followed"]);
        for follower in followed.iter().skip(told).filter(|_| !json) {
            print(&format!("{}: process {} has followed\n", text(&follower["worker"]), follower["pid"]));
        }
        told = followed.len();
        if restart["running"] != true {
            if json {
                print(&format!("{restart:#}\n"));
            }
            return failure(&restart).map_or(Ok(()), Err);
        }
        tokio::time::sleep(LOOK).await;
        restart = answer(place, "/v1/status", None).await?["restart"].take();
    }
    Err("another restart has taken the place of this one, and its turns: see `sidetrack ctl status`"
        .to_owned())
}

/// Why a restart went no further.
fn failure(restart: &Value) -> Option<String> {
    let failed = restart["failed"].as_object()?;
    let (slot, reason) = (text(&failed["worker"]), text(&failed["reason"]));
    let others = items(&restart["left"]).iter().skip(1).map(text).collect::<Vec<_>>().join(", ");
    let others = if others.is_empty() { String::new() } else { format!(", and so do {others}") };
    Some(format!("{slot}: the new worker did not become ready ({reason}); the slot stays as it was{others}"))
}

fn status(value: &Value) -> String {
    let mut out = String::new();
    let list = |value: &Value| {
        let texts = items(value).iter().filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join(", ")
    };
    let uptime = Duration::from_secs(value["uptime_s"].as_u64().unwrap_or(0));
    let policy = list(&value["policy"]);
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line(
        "sidetrack",
        format!(
            "{}, process {}, up {}",
            text(&value["version"]),
            value["pid"],
            humantime::format_duration(uptime)
        ),
    );
    if let Some(since) = value["upgraded"].as_str() {
        line("upgraded", format!("{} times, last at {since}", value["upgrades"]));
    }
    line("listening", list(&value["addresses"]));
    line("policy", if policy.is_empty() { "native".to_owned() } else { policy });
    line("sessions", value["sessions"].to_string());
    let figures = &value["figures"];
    line(
        "so far",
        format!(
            "{} accepted, {} handed off, {} handed back, {} refused",
            figures["accepted"], figures["handed_off"], figures["handed_back"], figures["refused"]
        ),
    );
    if let Some(restart) = restarted(&value["restart"]) {
        line("restart", restart);
    }
    for pool in items(&value["pools"]) {
        let matches = list(&pool["matches"]);
        let part = if matches.is_empty() { String::new() } else { format!(" ({matches})") };
        line(
            "pool",
            format!(
                "{}{part}: {}, {} sessions",
                text(&pool["pool"]),
                list(&pool["policy"]),
                pool["sessions"]
            ),
        );
    }
    out.push('\n');
    out.push_str(&workers(&value["workers"]));
    for vacant in items(&value["vacancies"]) {
        let (slot, given_up) = (text(&vacant["worker"]), vacant["reason"] == "given-up");
        let (why, way_out) =
            if given_up { ("given up: its workers kept ending", "restart") } else { ("drained", "undrain") };
        let _ =
            writeln!(out, "{slot:<10} nobody; {why} (`sidetrack ctl {way_out} {slot}` starts another one)");
    }
    out
}

/// A restart that goes on, or went no further.
fn restarted(value: &Value) -> Option<String> {
    if value["running"] != true {
        return failure(value);
    }
    let (followed, left) = (items(&value["followed"]), items(&value["left"]));
    let all = followed.len() + left.len();
    Some(format!("{} of {all} workers are new; it is the turn of {}", followed.len(), text(left.first()?)))
}

fn workers(value: &Value) -> String {
    let mut out = format!(
        "{:<10} {:>8}  {:<12} {:>8} {:>9} {:>8} {:>11} {:>12}  up\n",
        "worker", "process", "standing", "load", "sessions", "sockets", "handed off", "handed back"
    );
    for worker in items(value) {
        let up = worker["ready_s"]
            .as_u64()
            .map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
        let _ = writeln!(
            out,
            "{:<10} {:>8}  {:<12} {:>8} {:>9} {:>8} {:>11} {:>12}  {}",
            text(&worker["worker"]),
            worker["pid"].to_string(),
            if worker["draining"] == true { "draining" } else { text(&worker["standing"]) },
            worker["load"].to_string(),
            worker["sessions"].to_string(),
            worker["sockets"].to_string(),
            worker["handed_off"].to_string(),
            worker["handed_back"].to_string(),
            up.map_or_else(|| "-".to_owned(), |time| time.to_string()),
        );
    }
    out
}

fn session(value: &Value) -> String {
    let age = Duration::from_secs(value["since_s"].as_u64().unwrap_or(0));
    format!(
        "{} has it, process {}, since {} ({})\n",
        text(&value["worker"]),
        value["pid"],
        text(&value["since"]),
        humantime::format_duration(age)
    )
}

fn scaled(value: &Value) -> String {
    let (before, now) = (&value["before"], &value["workers"]);
    let fewer = now.as_u64() < before.as_u64();
    let how =
        if fewer { "; the others leave when they have nothing left to do, or at the deadline" } else { "" };
    format!("workers: {before} -> {now}{how}\n")
}

/// The differences, as they are or would be.
fn reloaded(value: &Value) -> String {
    let mut out = String::new();
    let shown = |value: &Value| match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let changes = items(&value["changes"]);
    let widest = |key: &str, least: usize| {
        changes.iter().map(|line| shown(&line[key]).chars().count()).max().unwrap_or(0).clamp(least, 48)
    };
    let (key, old, new) = (widest("key", 7), widest("old", 3), widest("new", 3));
    if !changes.is_empty() {
        let _ = writeln!(out, "{:<key$}  {:<old$}    {:<new$}  takes", "setting", "old", "new");
    }
    for line in changes {
        let takes = text(&line["takes"]).replace('-', " ");
        let _ = writeln!(
            out,
            "{:<key$}  {:<old$} -> {:<new$}  {takes}",
            text(&line["key"]),
            shown(&line["old"]),
            shown(&line["new"])
        );
    }
    let restarts = items(&value["needs_restart"]);
    let names = restarts.iter().map(text).collect::<Vec<_>>().join(", ");
    let dry = value["dry_run"] == true;
    let _ = match (changes.len(), dry) {
        (0, _) if value["file"].is_null() => {
            writeln!(out, "sidetrack runs without a file: there is nothing to read again")
        }
        (0, _) => writeln!(out, "it runs as configured: nothing to change"),
        (_, true) => writeln!(out, "nothing was changed: it was only tried"),
        (count, false) => {
            writeln!(out, "{} changed", count - restarts.len())
        }
    };
    if value["rolling_restart"] == true {
        let verb = if dry { "would follow" } else { "follow" };
        let _ = writeln!(out, "new workers {verb}, one after another");
    }
    if !names.is_empty() {
        let _ = writeln!(out, "warning: {names}: only when sidetrack itself is started anew");
    }
    out
}

fn millis(time: Option<Duration>) -> Option<u64> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
