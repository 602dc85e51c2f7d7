//! The channel's wire: newline-delimited JSON over a Unix stream socket, descriptors beside it.
//!
//! It is Node.js's own IPC format (`NODE_CHANNEL_SERIALIZATION_MODE=json`), so a Node worker needs
//! no native code and every other language needs little. Both ends use this module: sidetrack
//! reads [`FromWorker`] and writes with [`encode`]; a Rust worker reads [`ToWorker`].
//!
//! The rules that are not visible in the shapes:
//!
//! - A message that carries a descriptor is sent with one `sendmsg` and exactly one descriptor.
//!   Two descriptors in one call put a Node worker out of step for good.
//! - A message too long for one read (over 16 KiB, to be safe) must be acknowledged before another
//!   descriptor follows: Node gives the descriptor that comes with the long one's end to the long one.
//! - Acknowledgements carry no number: they come in the order of the hand-offs.
//! - An acknowledgement the other side did not earn kills a Node worker.

mod decoder;
mod descriptor;
#[allow(missing_docs, reason = "fields are named as on the wire, and their types say the rest")]
pub mod encode;
#[allow(missing_docs, reason = "fields are named as on the wire, and their types say the rest")]
mod from_worker;
#[allow(missing_docs, reason = "fields are named as on the wire, and their types say the rest")]
mod join;
mod luggage;
mod to_worker;

pub use decoder::{Decoder, Oversized};
pub use descriptor::{Received, receive, send};
pub use from_worker::{AdapterMessage, FromWorker, HandBack, ServerQuery};
pub use join::{JoinReply, JoinRequest, LONGEST_JOIN};
pub use luggage::Luggage;
pub use to_worker::ToWorker;

/// The environment variable that names the channel's descriptor, as Node calls it.
pub const CHANNEL_FD: &str = "NODE_CHANNEL_FD";

/// The environment variable that names the worker's slot: `w0`, `w1`, …
pub const SLOT: &str = "SIDETRACK_SLOT";

/// The environment variable that says where a request carries its session id, as `--session-key`
/// does: `query:sid`.
pub const SESSION_KEY: &str = "SIDETRACK_SESSION_KEY";

/// The environment variable that names the socket a worker joined at, so that it can do so again.
pub const JOIN: &str = "SIDETRACK_JOIN";

/// The environment variable that says after how many seconds without a request a session whose end
/// no worker announces is forgotten, as `--session-idle` does: `1800`.
pub const SESSION_IDLE: &str = "SIDETRACK_SESSION_IDLE";

/// The environment variable that says what the ids of a worker's new sessions begin with, followed
/// by a dot: `w2`. Not set where sidetrack finds workers in other ways.
pub const SID_TAG: &str = "SIDETRACK_SID_TAG";

/// The environment variable that says which requests are for the worker's pool, where there are
/// several: [`Matches`](crate::matches::Matches), such as `-/socket.io +`.
pub const MATCHES: &str = "SIDETRACK_MATCHES";

/// The environment variable that says what a worker does with a misplaced request: `hand-back`,
/// `close` or `worker`.
pub const KEEPALIVE: &str = "SIDETRACK_KEEPALIVE";
