//! Waiting for children, also for those that this process has started as another program.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// A child of this process. Dropped, it goes on, and stays to be waited for.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// Known once it is waited for: the kernel tells only once.
    status: Option<ExitStatus>,
}

impl Child {
    /// One that runs or has ended, and was not waited for yet.
    #[must_use]
    pub const fn of(pid: u32) -> Self {
        Self { pid, status: None }
    }

    #[must_use]
    pub const fn id(&self) -> u32 {
        self.pid
    }

    /// Waits for its end. Cancel safe, and says the same again when it is asked again.
    ///
    /// # Errors
    /// When it is none of this process's children.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        // Listen first, then look: an end in between is heard.
        let mut ends = signal(SignalKind::child())?;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ends.recv().await;
        }
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let pid = i32::try_from(self.pid).map_err(|_| Errno::ECHILD)?;
            self.status = match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
                WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
                _ => None,
            };
        }
        Ok(self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::zombie_processes, reason = "it is waited for, in our way")]
    async fn end(script: &str) -> ExitStatus {
        let started = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut child = Child::of(started.id());
        let status = child.wait().await.unwrap();
        assert_eq!(child.wait().await.unwrap(), status, "asked again");
        status
    }

    #[tokio::test]
    async fn the_end_of_any_child_is_told() {
        assert_eq!(end("sleep 0.05; exit 7").await.code(), Some(7));
        assert_eq!(end("kill -9 $$").await.signal(), Some(9));
        let mut stranger = Child::of(1);
        assert_eq!(stranger.wait().await.unwrap_err().raw_os_error(), Some(Errno::ECHILD as i32));
    }
}
