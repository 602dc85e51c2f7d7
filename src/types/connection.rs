//! A client's connection, as it passes from stage to stage.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use sidetrack_worker::wire::Luggage;
use tokio::sync::OwnedSemaphorePermit;

use super::Share;

/// Names one server inside the workers: what one `listen()` call of the program asked for. The
/// same in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerId(pub u32);

/// What comes first on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Opening {
    #[default]
    Request,
    /// A PROXY header, without which the connection is closed.
    Preamble,
}

/// A connection nobody has looked at yet, or whose next request belongs to another worker.
///
/// Owns the only descriptor of the client's socket until a worker has acknowledged its own copy;
/// dropping it closes the connection and gives the permit back.
#[derive(Debug)]
pub struct Accepted {
    pub socket: OwnedFd,
    /// Who has connected, or for whom a proxy has; absent for Unix sockets.
    pub peer: Option<SocketAddr>,
    pub opening: Opening,
    /// The server the client called.
    pub server: ServerId,
    /// Nothing, unless a worker has handed it back or a proxy has announced its client.
    pub luggage: Luggage,
    /// One of the pending connections this process allows.
    pub permit: OwnedSemaphorePermit,
    /// One of those its client may have, where there is a limit.
    pub share: Option<Share>,
}
