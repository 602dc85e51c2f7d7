//! The admin interface: HTTP on a Unix socket that is this user's alone, and its client.
//!
//! Paths begin with a version, bodies are JSON, an error is `{"error": "…"}` with a fitting status.
//! Whoever can open the socket has authority over the run.
//!
//! Where there are several pools, `?pool=NAME` behind `/v1/policy…` and `/v1/decisions` names one; without it
//! they are about the default pool, `GET /v1/policy` about all of them.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /v1/status` | the run at a glance: addresses, workers, sessions, figures |
//! | `GET /v1/workers` | every worker: process, standing, load |
//! | `POST /v1/workers/SLOT/drain` | `{"within_ms"?}`: nothing new for it; it leaves when it has nothing left to do |
//! | `POST /v1/workers/SLOT/restart` | `{"within_ms"?}`: another worker in its slot; the one before leaves as when drained |
//! | `POST /v1/workers/SLOT/undrain` | it takes part again |
//! | `GET /v1/sessions/SID` | who has a session |
//! | `GET /metrics` | figures in the text format that Prometheus reads |
//! | `GET /v1/policy` | the chain: each link's version, state, counters and history |
//! | `POST /v1/policy/set` | `{"policy", "link"?, "discard_state"?, "forgive"?}`: another version for a link |
//! | `POST /v1/policy/rollback` | `{"link"?}`: the version before |
//! | `POST /v1/policy/explain` | `{"method"?, "target"?, "headers"?, "peer"?, "session"?}`: what would be decided now |
//! | `GET /v1/policy/shadow` | the shadow and how it does |
//! | `POST /v1/policy/shadow` | `{"policy"}`: another shadow |
//! | `POST /v1/policy/shadow/off` | none |
//! | `GET /v1/decisions` | a stream of lines, one for each decision from now on: see [`crate::record`]; in the query `form=hashed` or `full`, `keep=…`, `steps=true` |

mod client;
mod console;
mod ctl;
mod follow;
mod metrics;
mod place;
mod policy;
mod recorder;
mod run;
mod server;
mod shadow;
mod tail;

pub use client::{Answer, ClientError, Lines, ask, lines};
pub use console::carry_out;
pub use ctl::{Ctl, Question};
pub use place::{PlaceError, at, own};
pub use recorder::{Recording, record};
pub use server::{Admin, Authority};
pub use tail::Filter;

/// A path, about a pool if one is named.
fn of_pool(path: &str, pool: Option<&str>) -> String {
    let Some(pool) = pool else { return path.to_owned() };
    let sign = if path.contains('?') { '&' } else { '?' };
    let pool = form_urlencoded::byte_serialize(pool.as_bytes()).collect::<String>();
    format!("{path}{sign}pool={pool}")
}
