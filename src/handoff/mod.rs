//! The last stage: a connection on its way to a worker, or turned away.
//!
//! Our copy of a descriptor is kept until the worker has acknowledged its own. An acknowledgement
//! comes before the worker's first read, so a worker that dies without one has read nothing, and
//! the connection can be routed again as if nothing had happened.

mod refuse;
mod window;

pub use refuse::{answer, linger, refusal, refusal_for};
pub use window::{Follows, Queued, Unearned, Window};

use crate::types::{Accepted, Request};

/// A connection and the request it was routed by: all that is needed to route it again.
#[derive(Debug)]
pub struct Routed {
    pub accepted: Accepted,
    pub request: Request,
}
