//! What a person sees when everything is up.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::listener::{ListenAddress, Servers};
use crate::policy::Chain;
use crate::pool::Pools;
use crate::telemetry::trace::Format;

/// How long the summary waits for the slower workers once the first one is ready.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// What was started.
#[derive(Debug)]
pub struct What {
    pub command: Vec<String>,
    pub workers: usize,
    pub policy: String,
    pub session_key: String,
    /// Where workers from outside join.
    pub join_socket: Option<PathBuf>,
}

/// A policy in a few words.
pub fn policy(chain: &Chain) -> String {
    chain.describe().to_string()
}

/// Prints the summary once all workers are ready, or the first ones have been for a while.
pub async fn print(what: What, format: Format, pools: Arc<Pools>, servers: Arc<Servers>) {
    let mut changes = pools.watch();
    while pools.ready().is_empty() {
        changes.next().await;
    }
    let all = async {
        while pools.ready().len() < what.workers {
            changes.next().await;
        }
    };
    let _ = timeout(STRAGGLERS, all).await;

    let addresses: Vec<String> = servers.addresses().iter().map(url).collect();
    let ready = pools.ready();
    if format == Format::Json {
        let workers = ready.len();
        tracing::info!(?addresses, workers, policy = what.policy, session_key = what.session_key, "serving");
        return;
    }
    let pids: Vec<String> = ready.iter().map(|(slot, pid)| format!("{slot}={pid}")).collect();
    let more = if ready.len() < what.workers {
        format!(" ({} of {} ready)", ready.len(), what.workers)
    } else {
        String::new()
    };
    let mut kinds = Vec::new();
    if what.workers > 0 {
        kinds.push(format!("{} × {}{more}", what.workers, what.command.join(" ")));
    }
    if let Some(path) = &what.join_socket {
        kinds.push(format!("whoever joins at {}", path.display()));
    }
    let (bold, dim, plain) =
        if io::stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let text = format!(
        "\n  {bold}sidetrack {version}{plain}\n\n  {dim}listening{plain}  {bold}{addresses}{plain}\n  {dim}workers{plain}    {workers}\n             {dim}{pids}{plain}\n  {dim}policy{plain}     {policy}\n  {dim}sessions{plain}   {key}\n\n",
        version = env!("CARGO_PKG_VERSION"),
        addresses = addresses.join("  "),
        workers = kinds.join(", and "),
        pids = pids.join(" "),
        policy = what.policy,
        key = what.session_key,
    );
    // Nobody may be reading stdout; that is no reason to stop serving.
    drop(io::stdout().write_all(text.as_bytes()));
}

/// An address as one would open it.
fn url(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { host: None, port } => format!("http://localhost:{port} (every address)"),
        ListenAddress::Tcp { .. } => format!("http://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    }
}
