//! `sidetrack ctl`: asks, and shows a person the answer.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Answer, ask, find};

/// What to ask of a running sidetrack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ctl {
    pub question: Question,
    /// The admin socket, unless it is to be found.
    pub admin: Option<PathBuf>,
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
}

impl Ctl {
    /// Asks and prints.
    ///
    /// # Errors
    /// When nobody could be asked or the answer is no; in words.
    pub async fn carry_out(&self) -> Result<(), String> {
        type Shown = fn(&Value) -> String;
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (path, body, shown): (_, _, Shown) = match &self.question {
            Question::Status => ("/v1/status".to_owned(), None, status),
            Question::Workers => ("/v1/workers".to_owned(), None, workers),
            Question::Session(sid) => (format!("/v1/sessions/{}", encoded(sid)), None, session),
            Question::Drain(slot, within) => {
                let within = within.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                (
                    format!("/v1/workers/{}/drain", encoded(slot)),
                    Some(json!({ "within_ms": within })),
                    workers,
                )
            }
            Question::Undrain(slot) => {
                (format!("/v1/workers/{}/undrain", encoded(slot)), Some(json!({})), workers)
            }
        };
        let socket = match &self.admin {
            Some(path) => path.clone(),
            None => find().map_err(|error| error.to_string())?,
        };
        let Answer { good, value } =
            ask(&socket, &path, body.as_ref()).await.map_err(|error| error.to_string())?;
        if !good {
            return Err(value["error"].as_str().unwrap_or("refused").to_owned());
        }
        let text = if self.json { format!("{value:#}\n") } else { shown(&value) };
        // Nobody may be reading stdout.
        drop(io::stdout().write_all(text.as_bytes()));
        Ok(())
    }
}

fn status(value: &Value) -> String {
    let mut out = String::new();
    let list = |value: &Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
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
    out.push('\n');
    out + &workers(&value["workers"])
}

fn workers(value: &Value) -> String {
    let mut out = format!(
        "{:<10} {:>8}  {:<12} {:>8} {:>9} {:>8} {:>11} {:>12}  up\n",
        "worker", "process", "standing", "load", "sessions", "sockets", "handed off", "handed back"
    );
    for worker in value.as_array().into_iter().flatten() {
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
    format!("{} has it, process {}\n", text(&value["worker"]), value["pid"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
