//! Taking a PROXY header off the front of a connection: exactly its bytes, and not before they are all
//! there.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use ipnet::IpNet;
use tokio::io::Interest;
use tokio::time::timeout;

use super::{Preamble, PreambleError, contain};
use crate::peek;
use crate::sys::reactor::watch;
use crate::sys::socket;
use crate::types::Accepted;

/// Why a connection is closed before anybody has looked for a request on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// No byte ever came: a health check that only connects.
    #[error("nothing was sent")]
    Silent,
    #[error("the client left before its PROXY header was complete")]
    Gone,
    #[error("its PROXY header did not arrive in time")]
    TooSlow,
    #[error("it is from none of the addresses of proxy-from")]
    Stranger,
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    #[error("its client has max-per-client pending connections already")]
    Crowd,
}

/// Waits for the whole header and consumes it. Returns the client it announces, if it does.
pub(super) async fn cross(
    accepted: &Accepted,
    from: &[IpNet],
    bounds: &peek::Settings,
) -> Result<Option<SocketAddr>, Unwelcome> {
    // Whoever may connect to a Unix socket may do so by the rights on its file.
    if !from.is_empty() && accepted.peer.is_some_and(|peer| !contain(from, peer.ip())) {
        return Err(Unwelcome::Stranger);
    }
    let mut buffer = vec![0; bounds.limit];
    let mut seen = 0;
    let found = match look(accepted, &mut buffer, &mut seen)? {
        Some(found) => found,
        None => match timeout(bounds.timeout, follow(accepted, &mut buffer, &mut seen)).await {
            Ok(found) => found?,
            Err(_) if seen == 0 => return Err(Unwelcome::Silent),
            Err(_) => return Err(Unwelcome::TooSlow),
        },
    };
    consume(accepted, &mut buffer[..found.length])?;
    Ok(found.client)
}

/// Looks again at each arrival of bytes; the reactor reports edges.
async fn follow(accepted: &Accepted, buffer: &mut [u8], seen: &mut usize) -> Result<Preamble, Unwelcome> {
    let socket = watch(accepted.socket.as_fd(), Interest::READABLE).map_err(|_| Unwelcome::Gone)?;
    loop {
        let mut guard = socket.readable().await.map_err(|_| Unwelcome::Gone)?;
        if let Some(found) = look(accepted, buffer, seen)? {
            return Ok(found);
        }
        if guard.ready().is_read_closed() {
            return Err(left(*seen));
        }
        guard.clear_ready();
    }
}

fn look(accepted: &Accepted, buffer: &mut [u8], seen: &mut usize) -> Result<Option<Preamble>, Unwelcome> {
    match socket::peek(&accepted.socket, buffer) {
        Ok(0) => Err(left(*seen)),
        Ok(length) => {
            *seen = length;
            Ok(Preamble::parse(&buffer[..length], buffer.len())?)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(_) => Err(left(*seen)),
    }
}

/// Takes the header's bytes, which have been seen, and none behind them.
fn consume(accepted: &Accepted, header: &mut [u8]) -> Result<(), Unwelcome> {
    let mut left = header;
    while !left.is_empty() {
        match socket::discard(&accepted.socket, left) {
            Ok(length @ 1..) => left = &mut left[length..],
            Ok(0) | Err(_) => return Err(Unwelcome::Gone),
        }
    }
    Ok(())
}

fn left(seen: usize) -> Unwelcome {
    if seen == 0 { Unwelcome::Silent } else { Unwelcome::Gone }
}
