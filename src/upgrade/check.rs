//! Whether another program could go on: it is run once as a child, on its own, reads the state, makes
//! sense of the settings, loads the policies with their states, and says so.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::file::Carried;

/// The subcommand of the child. The arguments of the run stand behind it.
pub const SUBCOMMAND: &str = "self-check";

/// How the child says that it could go on, before its version.
pub const FIT: &str = "sidetrack fit to go on: ";

/// The most that is heard of what the child says.
const MOST_HEARD: u64 = 16 * 1024;

/// Has a program check itself, and returns its version.
///
/// # Errors
/// Why it cannot go on, in words.
pub async fn check(program: &Path, state: &Carried, within: Duration) -> Result<String, String> {
    let named = program.display();
    let state = state.write().map_err(|error| format!("the state cannot be described: {error}"))?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut child = Command::new(program)
        .args([SUBCOMMAND, "--"])
        .args(arguments)
        .stdin(state)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{named} cannot be started: {error}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(heard(out), heard(err), child.wait()) };
    let Ok((out, err, status)) = timeout(within, all).await else {
        return Err(format!("{named} has not said within {within:?} whether it could go on"));
    };
    let status = status.map_err(|error| format!("{named} cannot be waited for: {error}"))?;
    let fit = out.lines().find_map(|line| line.strip_prefix(FIT));
    match fit {
        Some(version) if status.success() => Ok(version.to_owned()),
        _ => Err(complaint(&named.to_string(), status, &err)),
    }
}

fn complaint(named: &str, status: ExitStatus, said: &str) -> String {
    let said = said.trim();
    if said.is_empty() {
        format!("{named} does not say that it could go on ({status}); is it a sidetrack?")
    } else {
        format!("{named} cannot go on ({status}): {}", said.strip_prefix("sidetrack: ").unwrap_or(said))
    }
}

/// What comes, as far as it is wanted. The rest is read all the same: nobody is to wait for us.
async fn heard(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut said = Vec::new();
    // Half of it is better than nothing.
    drop((&mut from).take(MOST_HEARD).read_to_end(&mut said).await);
    drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
    String::from_utf8_lossy(&said).into_owned()
}
