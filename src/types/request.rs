//! What is known about the request a decision is made for.

use std::net::SocketAddr;

use super::Head;

/// The request of one decision. A policy reads it lazily; it is lent to the call, never copied.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub head: Head,
    /// The client's address; absent for Unix sockets.
    pub peer: Option<SocketAddr>,
    /// The session id the request carries, decoded.
    pub session: Option<String>,
    /// 0 at first, 1 and up when a worker was lost and the connection is routed again.
    pub attempt: u32,
}
