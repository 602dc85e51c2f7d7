//! The admin interface: HTTP on a Unix socket that is this user's alone, and its client.
//!
//! Paths begin with a version, bodies are JSON, an error is `{"error": "…"}` with a fitting status.
//! Whoever can open the socket has authority over the run.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /v1/policy` | the chain: each link's version, state, counters and history |
//! | `POST /v1/policy/set` | `{"policy", "link"?, "discard_state"?, "forgive"?}`: another version for a link |
//! | `POST /v1/policy/rollback` | `{"link"?}`: the version before |
//! | `POST /v1/policy/explain` | `{"method"?, "target"?, "headers"?, "peer"?}`: what would be decided now |

mod client;
mod console;
mod place;
mod policy;
mod server;

pub use client::{Answer, ClientError, ask};
pub use console::carry_out;
pub use place::{PlaceError, find, own};
pub use server::{Admin, Authority};
