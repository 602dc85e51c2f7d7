//! The admin interface: HTTP on a Unix socket that is this user's alone, and its client.
//!
//! Paths begin with a version, bodies are JSON, an error is `{"error": "…"}` with a fitting status.
//! Whoever can open the socket has authority over the run.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /v1/status` | the run at a glance: addresses, workers, sessions, figures |
//! | `GET /v1/workers` | every worker: process, standing, load |
//! | `GET /v1/sessions/SID` | who has a session |
//! | `GET /metrics` | figures in the text format that Prometheus reads |
//! | `GET /v1/policy` | the chain: each link's version, state, counters and history |
//! | `POST /v1/policy/set` | `{"policy", "link"?, "discard_state"?, "forgive"?}`: another version for a link |
//! | `POST /v1/policy/rollback` | `{"link"?}`: the version before |
//! | `POST /v1/policy/explain` | `{"method"?, "target"?, "headers"?, "peer"?}`: what would be decided now |

mod client;
mod console;
mod ctl;
mod metrics;
mod place;
mod policy;
mod run;
mod server;

pub use client::{Answer, ClientError, ask};
pub use console::carry_out;
pub use ctl::{Ctl, Question};
pub use place::{PlaceError, find, own};
pub use server::{Admin, Authority};
