//! Joining a sidetrack that runs already, and coming back to it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::listener::{ChannelError, Listener};
use crate::settings::{SettingError, Settings};
use crate::wire::{JoinReply, JoinRequest, LONGEST_JOIN};
use serde::Serialize;

/// How to become a worker of a sidetrack that runs already.
///
/// For programs that something else starts: systemd, a container's entry point, a debugger. The
/// socket is the one `sidetrack run` was told to take workers on.
///
/// ```no_run
/// # async fn join() -> Result<(), sidetrack_worker::ChannelError> {
/// use sidetrack_worker::Join;
///
/// let listener = Join::new("/run/sidetrack/join.sock").slot("w4").name("chat").listen().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    path: PathBuf,
    slot: Option<String>,
    name: String,
}

/// Why a sidetrack could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody listens there, or this process may not connect.
    #[error("no sidetrack takes workers on {}: is it running, and is this the path it was given?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Sidetrack does not want this worker.
    #[error("the sidetrack on {} refuses this worker: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What sidetrack said.
        reason: String,
    },
    /// Whoever listens there is no sidetrack.
    #[error("what listens on {} does not answer as sidetrack does: {found}", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What it said or did.
        found: String,
    },
    /// Sidetrack's settings are not understood.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// How long sidetrack may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Between attempts to come back: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Join {
    /// A worker for any slot, named after its program.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { path: path.into(), slot: None, name }
    }

    /// Asks for this slot instead of any.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<String>) -> Self {
        self.slot = Some(slot.into());
        self
    }

    /// What the worker is called in sidetrack's log.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Joins. From then on the listener comes back by itself when sidetrack goes away: open
    /// connections are served meanwhile, and sessions are announced again.
    ///
    /// Cancel safe: a connection that is under way ends by itself.
    ///
    /// # Errors
    /// When sidetrack is not there or does not want this worker; the message says what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn listen(self) -> Result<Listener, ChannelError> {
        let (channel, settings) = self.attempt_elsewhere().await?;
        Ok(Listener::joined(channel, settings, self)?)
    }

    /// Connects and asks, waiting for the answer.
    pub(crate) fn attempt(&self) -> Result<(UnixStream, Settings), JoinError> {
        let unreachable = |source| JoinError::Unreachable { path: self.path.clone(), source };
        let mut channel = UnixStream::connect(&self.path).map_err(unreachable)?;
        channel.set_write_timeout(Some(ANSWER_WITHIN)).map_err(unreachable)?;
        channel.write_all(&self.request()).map_err(unreachable)?;
        let answer = self.answer(&channel)?;
        channel.set_read_timeout(None).and_then(|()| channel.set_write_timeout(None)).map_err(unreachable)?;
        match serde_json::from_slice(&answer) {
            Ok(JoinReply::Joined {
                slot, session_key, keepalive, session_idle, sid_tag, matches, ..
            }) => {
                let settings = Settings::new(Some(slot), Some(session_key), Some(keepalive))?;
                Ok((channel, settings.with_sessions(session_idle, sid_tag).with_matches(matches)?))
            }
            Ok(JoinReply::Refused { reason }) => Err(JoinError::Refused { path: self.path.clone(), reason }),
            Err(_) => Err(self.strange(answer.escape_ascii().to_string())),
        }
    }

    /// The line that asks.
    fn request(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Named<'a> {
            #[serde(flatten)]
            request: JoinRequest,
            name: &'a str,
        }
        let request = JoinRequest { slot: self.slot.clone(), pid: std::process::id() };
        // Texts and a number in memory: this cannot fail.
        let mut line = serde_json::to_vec(&Named { request, name: &self.name }).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// One line and not a byte more: a descriptor may travel with the next.
    fn answer(&self, mut channel: &UnixStream) -> Result<Vec<u8>, JoinError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while answer.len() < LONGEST_JOIN {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let read = channel.set_read_timeout(Some(left)).and_then(|()| channel.read(&mut byte));
            match read {
                Ok(0) => return Err(self.strange("it closed the connection".to_owned())),
                Ok(_) if byte == *b"\n" => return Ok(answer),
                Ok(_) => answer.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.strange(format!("nothing for {} s", ANSWER_WITHIN.as_secs())));
                }
                Err(source) => return Err(JoinError::Unreachable { path: self.path.clone(), source }),
            }
        }
        Err(self.strange("a line that does not end".to_owned()))
    }

    fn strange(&self, found: String) -> JoinError {
        JoinError::Strange { path: self.path.clone(), found }
    }

    /// Waits on a thread that may.
    async fn attempt_elsewhere(&self) -> Result<(UnixStream, Settings), JoinError> {
        let join = self.clone();
        let attempt = tokio::task::spawn_blocking(move || join.attempt()).await;
        attempt.unwrap_or_else(|error| {
            Err(JoinError::Unreachable { path: self.path.clone(), source: io::Error::other(error) })
        })
    }

    /// Tries until sidetrack is there again. Without a wish for a slot it asks for the one it had,
    /// as long as nobody else has it.
    pub(crate) async fn again(self, had: Option<String>) -> (UnixStream, Settings) {
        tracing::info!(path = %self.path.display(), "sidetrack has gone; open connections are served on");
        let mut join = Self { slot: self.slot.clone().or(had), ..self.clone() };
        let mut pause = PAUSES.0;
        loop {
            tokio::time::sleep(jittered(pause)).await;
            match join.attempt_elsewhere().await {
                Ok(joined) => {
                    tracing::info!(path = %self.path.display(), "sidetrack is back");
                    return joined;
                }
                Err(error @ JoinError::Unreachable { .. }) => tracing::debug!(%error, "not yet"),
                Err(error) => {
                    tracing::warn!(%error, "not back yet");
                    join.slot.clone_from(&self.slot);
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// Between a half and the whole.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
