//! What a connection brings along beside its socket.

use std::net::SocketAddr;

/// The `sidetrack` part of a hand-off. Empty for a connection that nobody has read from and that
/// may be handed back: nearly all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Luggage {
    /// What a worker has read before it handed the connection back. It comes before everything
    /// that is still in the socket.
    pub data: Box<[u8]>,
    /// The first request stays with the worker whatever its session, since nobody is known who
    /// would be a better one: `final` on the wire.
    pub last_stop: bool,
    /// The client, where the socket's own peer is a proxy that has announced whom it connects for.
    pub peer: Option<SocketAddr>,
}

impl Luggage {
    /// True when there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && !self.last_stop && self.peer.is_none()
    }
}
