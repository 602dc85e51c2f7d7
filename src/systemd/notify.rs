//! What systemd is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Tells systemd, when there is one that wants to hear it.
#[derive(Debug, Clone, Copy)]
pub struct Notify {
    wanted: bool,
}

impl Notify {
    /// As the environment says.
    #[must_use]
    pub fn new() -> Self {
        Self { wanted: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    #[must_use]
    pub const fn is_wanted(self) -> bool {
        self.wanted
    }

    /// The service is up, or up again after it has reloaded.
    pub fn ready(self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// In one line, for `systemctl status`.
    pub fn status(self, line: &str) {
        self.tell(&[NotifyState::Status(line)]);
    }

    /// It reads its configuration; [`Self::ready`] ends that.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            // There is no Linux without this clock.
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    pub fn stopping(self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// It is not stuck.
    pub fn alive(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if self.wanted
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::debug!(%error, "systemd cannot be told");
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

/// When systemd is to hear again that the run is not stuck.
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// Twice in the time that systemd allows; never when it does not watch.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    #[must_use]
    pub fn new() -> Self {
        let half = sd_notify::watchdog_enabled().map(|allowed| allowed / 2);
        Self(half.filter(|half| *half > Duration::ZERO).map(|half| {
            let mut ticks = interval(half);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// The next time. Cancel safe.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}
