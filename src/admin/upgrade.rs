//! Upgrades: the order at the server's side, and the client that waits for the outcome.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::fields::refusal;
use super::guard::Entrance;
use super::reply::No;
use super::server::Authority;
use super::{Answer, Place, Wanted, ask};
use crate::cli::print;
use crate::upgrade;

/// How often the client looks whether the next program is there.
const LOOK: Duration = Duration::from_millis(20);

/// How long it may take until it answers, once this one has left.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nobody need be there at all.
const GONE: Duration = Duration::from_secs(5);

/// Another program that is to go on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Exchange {
    /// Its file, without which it is the one in the running one's place; only at the Unix socket.
    binary: Option<PathBuf>,
    /// How long it may take to check itself.
    within_ms: Option<u64>,
}

/// Gives the order. Returns only when it has failed: the next program closes this connection.
pub(super) async fn order(
    authority: &Authority,
    entrance: Entrance,
    wanted: Exchange,
) -> Result<Infallible, No> {
    let Exchange { binary, within_ms } = wanted;
    if binary.is_some() && entrance == Entrance::Tcp {
        // A token is for this run, and not for every program that lies on the machine.
        return Err(No::new(StatusCode::FORBIDDEN, "a program can be named at the admin socket only"));
    }
    if let Some(binary) = binary.as_ref().filter(|binary| !binary.is_absolute()) {
        return Err(format!("`{}` is no absolute path", binary.display()).into());
    }
    let within = within_ms.map_or(upgrade::PATIENCE, Duration::from_millis);
    let (reply, outcome) = oneshot::channel();
    let ending = || "the run is ending".to_owned();
    let order = upgrade::Order { binary, within, reply: Some(reply) };
    authority.upgrades.send(order).await.map_err(|_| ending())?;
    Err(outcome.await.unwrap_or_else(|_| ending()).into())
}

/// `sidetrack upgrade`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    pub binary: Option<PathBuf>,
    pub within: Duration,
    pub at: Wanted,
    /// Print what came of it as JSON.
    pub json: bool,
}

impl Upgrade {
    /// Has a running sidetrack upgraded, and prints what came of it. The inner error says why it was not:
    /// then the one that runs goes on as before.
    ///
    /// # Errors
    /// When nobody could be asked, or nobody comes back; in words.
    pub async fn carry_out(&self) -> Result<Result<(), String>, String> {
        let place = self.at.place().map_err(|error| error.to_string())?;
        let binary = self.binary.as_ref().map(std::path::absolute).transpose();
        let binary = binary.map_err(|error| format!("--binary: {error}"))?;
        let before = status(&place).await?;
        let within = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX);
        let body = json!({ "binary": binary, "within_ms": within });
        let began = Instant::now();
        // No answer means that whoever was to give it has left.
        if let Ok(Answer { good: false, value }) = ask(&place, "/v1/upgrade", Some(&body)).await {
            let why = refusal(&value);
            if self.json {
                print(&format!("{:#}\n", json!({ "upgraded": false, "error": why })));
            }
            return Ok(Err(why));
        }
        let after = next(&place, &before).await?;
        let took = began.elapsed();
        print(&if self.json {
            let told = json!({
                "upgraded": true,
                "before": before["version"],
                "version": after["version"],
                "pid": after["pid"],
                "upgrades": after["upgrades"],
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            });
            format!("{told:#}\n")
        } else {
            format!(
                "sidetrack {} goes on where {} has stopped, in process {}, after {}\n",
                text(&after["version"]),
                text(&before["version"]),
                after["pid"],
                humantime::format_duration(Duration::from_millis(took.as_millis().try_into().unwrap_or(0))),
            )
        });
        Ok(Ok(()))
    }
}

async fn status(place: &Place) -> Result<Value, String> {
    let Answer { good, value } = ask(place, "/v1/status", None).await.map_err(|error| error.to_string())?;
    if good { Ok(value) } else { Err("it does not tell its status".to_owned()) }
}

/// Waits for the program that goes on.
async fn next(place: &Place, before: &Value) -> Result<Value, String> {
    let began = Instant::now();
    let mut seen = began;
    loop {
        match status(place).await {
            Ok(after) if after["pid"] != before["pid"] => {
                return Err(format!("process {} has ended; {} is another run", before["pid"], after["pid"]));
            }
            Ok(after) if after["upgrades"].as_u64() > before["upgrades"].as_u64() => return Ok(after),
            Ok(_) => seen = Instant::now(),
            Err(error) if seen.elapsed() > GONE => return Err(error),
            Err(_) => {}
        }
        if began.elapsed() > PATIENCE {
            return Err("the next program does not answer".to_owned());
        }
        sleep(LOOK).await;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
