//! The ready file: what runs where, for scripts and tests.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::listener::{ListenAddress, Servers};
use crate::pool::Pools;

/// Writes the file once the first worker is ready and again at every change of workers or addresses.
pub async fn keep(path: Option<PathBuf>, pools: Arc<Pools>, servers: Arc<Servers>) {
    let Some(path) = path else { return };
    let (mut workers_changed, mut addresses_changed) = (pools.watch(), servers.watch());
    let mut written = false;
    loop {
        let workers = pools.ready();
        if written || !workers.is_empty() {
            if let Err(error) = write(&path, &workers, &servers.addresses()) {
                tracing::warn!(%error, path = %path.display(), "the ready file cannot be written");
            }
            written = true;
        }
        tokio::select! {
            () = workers_changed.next() => {}
            // The sender is ours as well, so it is there.
            _ = addresses_changed.changed() => {}
        }
    }
}

fn write(path: &Path, workers: &[(String, u32)], addresses: &[ListenAddress]) -> io::Result<()> {
    let workers: Vec<_> = workers.iter().map(|(slot, pid)| json!({ "slot": slot, "pid": pid })).collect();
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let text = json!({ "pid": std::process::id(), "addresses": addresses, "workers": workers }).to_string();
    // Renamed into place: a reader sees the old file or the new one, never half of it.
    let draft = path.with_extension("tmp");
    std::fs::write(&draft, text + "\n")?;
    std::fs::rename(&draft, path)
}
