//! What systemd is told while the run lasts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::drain::{Phase, Phases};
use crate::listener::Servers;
use crate::pool::Pools;
use crate::systemd::Notify;
use crate::telemetry::Telemetry;

/// Figures are told so often when they have changed.
const EVERY: Duration = Duration::from_secs(5);

/// Where the figures come from.
#[derive(Debug)]
pub struct Figures {
    pub pools: Arc<Pools>,
    pub servers: Arc<Servers>,
    pub telemetry: Arc<Telemetry>,
}

/// Says that the service is ready once the first worker is, then how it goes. Where all workers join it is
/// ready before: they may be started after it, and each would wait for the other.
pub async fn keep(notify: Notify, all_join: bool, figures: Figures, mut phases: Phases) {
    if !notify.is_wanted() {
        return;
    }
    let mut changes = figures.pools.watch();
    if !all_join {
        notify.status("workers are starting");
        while figures.pools.ready().is_empty() {
            changes.next().await;
        }
    }
    let mut told = figures.line();
    notify.status(&told);
    notify.ready();
    loop {
        tokio::select! {
            // It drains, which was said.
            () = phases.reached(Phase::Closing) => return,
            _ = timeout(EVERY, changes.next()) => {}
        }
        let line = figures.line();
        if line != told {
            notify.status(&line);
            told = line;
        }
    }
}

impl Figures {
    fn line(&self) -> String {
        let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        let workers = match self.pools.ready().len() {
            0 => "no worker is ready".to_owned(),
            ready => format!("{} ready", count(ready as u64, "worker")),
        };
        let sessions: usize = self.pools.iter().map(|pool| pool.sessions.len()).sum();
        let counters = &self.telemetry.counters;
        let addresses: Vec<String> = self.servers.addresses().iter().map(ToString::to_string).collect();
        format!(
            "{workers}; {}; {}, {} refused; on {}",
            count(sessions as u64, "session"),
            count(counters.accepted.get(), "connection"),
            counters.refused.get(),
            addresses.join(", "),
        )
    }
}
