//! What a policy may answer.

use super::WorkerId;

/// A policy's answer to `balance` or `find`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This worker shall have the connection.
    Worker(WorkerId),
    /// No opinion: the next link of the chain is asked.
    Defer,
    /// Nobody shall have it; the client is told so.
    Refuse(Refusal),
}

/// How a client is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// The body, a short plain text.
    pub reason: String,
}
