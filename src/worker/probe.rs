//! Finding out whether a worker that takes connections as messages is ready.
//!
//! Such a worker says nothing when it is set up, and what is sent to it before is lost. So one
//! end of a socket pair goes over like a client, with a request that Node's HTTP parser answers by
//! itself: the program never sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long an answer may take before the probe counts as lost.
const PATIENCE: Duration = Duration::from_millis(250);

/// Not HTTP on purpose: every HTTP server ends this with a 400 or by closing, without asking the
/// program. A request that were valid would need a handler.
const REQUEST: &[u8] = b"sidetrack probe\r\n\r\n";

/// Our end of a probe under way.
#[derive(Debug)]
pub struct Probe(UnixStream);

impl Probe {
    /// A probe and the end that goes to the worker.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self(ours), theirs.into()))
    }

    /// True when somebody took the probe.
    pub async fn answered(self) -> bool {
        let exchange = async {
            let mut stream = tokio::net::UnixStream::from_std(self.0)?;
            stream.write_all(REQUEST).await?;
            stream.read(&mut [0; 16]).await
        };
        // An answer or a closed connection: both show a reader. An error shows none.
        matches!(timeout(PATIENCE, exchange).await, Ok(Ok(_)))
    }
}
