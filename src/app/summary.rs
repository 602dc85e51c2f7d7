//! What a person sees when everything is up.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Config;
use crate::listener::{ListenAddress, Servers};
use crate::policy::Chain;
use crate::pool::{Pool, Pools};
use crate::telemetry::trace::Format;

/// How long the summary waits for the slower workers once the first one is ready.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// What was started, in one pool.
#[derive(Debug)]
pub struct What {
    command: Vec<String>,
    workers: usize,
    session_key: String,
    /// Where workers from outside join.
    join_socket: Option<PathBuf>,
}

impl What {
    pub fn of(config: &Config) -> Self {
        Self {
            command: config.command.clone(),
            workers: config.workers,
            session_key: config.route.session_key.to_string(),
            join_socket: config.join_socket.clone(),
        }
    }
}

/// A policy in a few words.
pub fn policy(chain: &Chain) -> String {
    chain.describe().to_string()
}

/// Prints the summary once all workers are ready, or the first ones have been for a while. `what` is in
/// the order of the pools, `page` the admin interface's.
pub async fn print(
    what: Vec<What>,
    page: Option<String>,
    format: Format,
    pools: Arc<Pools>,
    servers: Arc<Servers>,
) {
    let mut changes = pools.watch();
    while pools.ready().is_empty() {
        changes.next().await;
    }
    let wanted: usize = what.iter().map(|what| what.workers).sum();
    let all = async {
        while pools.ready().len() < wanted {
            changes.next().await;
        }
    };
    let _ = timeout(STRAGGLERS, all).await;

    let addresses: Vec<String> = servers.addresses().iter().map(url).collect();
    let each = || pools.iter().zip(&what);
    if format == Format::Json {
        let workers = pools.ready().len();
        let list = |text: fn((&Arc<Pool>, &What)) -> String| each().map(text).collect::<Vec<_>>().join("; ");
        let policy = list(|(pool, _)| policy(&pool.policy));
        let session_key = list(|(_, what)| what.session_key.clone());
        tracing::info!(?addresses, workers, policy, session_key, "serving");
        return;
    }
    let (bold, dim, plain) =
        if io::stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!(
        "\n  {bold}sidetrack {version}{plain}\n\n  {dim}listening{plain}  {bold}{addresses}{plain}\n",
        version = env!("CARGO_PKG_VERSION"),
        addresses = addresses.join("  "),
    );
    for (pool, what) in each() {
        if pools.several() {
            let matches = pools.matches(pool);
            let part = if matches.is_empty() { String::new() } else { format!(" ({})", matches.join(" ")) };
            text += &format!("\n  {dim}pool{plain}       {bold}{}{plain}{part}\n", pool.name);
        }
        let ready = pool.fleet.ready();
        let pids: Vec<String> = ready.iter().map(|(slot, pid)| format!("{slot}={pid}")).collect();
        text += &format!(
            "  {dim}workers{plain}    {workers}\n             {dim}{pids}{plain}\n  {dim}policy{plain}     {policy}\n  {dim}sessions{plain}   {key}\n",
            workers = kinds(what, ready.len()),
            pids = pids.join(" "),
            policy = policy(&pool.policy),
            key = what.session_key,
        );
    }
    if let Some(page) = page {
        text += &format!("  {dim}dashboard{plain}  {page}\n");
    }
    // Nobody may be reading stdout; that is no reason to stop serving.
    drop(io::stdout().write_all((text + "\n").as_bytes()));
}

/// Whose processes a pool's workers are.
fn kinds(what: &What, ready: usize) -> String {
    let more =
        if ready < what.workers { format!(" ({ready} of {} ready)", what.workers) } else { String::new() };
    let mut kinds = Vec::new();
    if what.workers > 0 {
        kinds.push(format!("{} × {}{more}", what.workers, what.command.join(" ")));
    }
    if let Some(path) = &what.join_socket {
        kinds.push(format!("whoever joins at {}", path.display()));
    }
    kinds.join(", and ")
}

/// An address as one would open it.
fn url(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp { host: None, port } => format!("http://localhost:{port} (every address)"),
        ListenAddress::Tcp { .. } => format!("http://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    }
}
