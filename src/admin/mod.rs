//! The admin interface: HTTP on a Unix socket that is this user's alone and, where asked for, over TCP; its
//! client; and a page for people.
//!
//! Paths begin with a version, bodies are JSON, an error is `{"error": "…"}` with a fitting status. All
//! paths are in one table, `routes`; the description at `GET /v1/openapi.json`, which is also
//! `docs/openapi.json`, is made of it. Lines of `GET /v1/decisions` are those of [`crate::record`].
//!
//! Where there are several pools, `?pool=NAME` behind `/v1/policy…` and `/v1/decisions` names one; without it
//! they are about the default pool, `GET /v1/policy` about all of them.
//!
//! Whoever can open the socket has authority over the run. Over TCP, whoever has the token; without one,
//! whoever can connect, and then only from this machine and not from other people's web pages.

mod client;
mod console;
mod ctl;
mod dashboard;
mod description;
mod fields;
mod follow;
mod guard;
mod metrics;
mod orders;
mod place;
mod policy;
mod recorder;
mod reply;
mod routes;
mod run;
mod server;
mod shadow;
mod tail;
mod thin;
mod token;
mod upgrade;
mod versions;

pub use client::{Answer, ClientError, Lines, ask, lines};
pub use console::carry_out;
pub use ctl::{Ctl, Question};
pub use orders::{Order, Orders, Reloaded, Scaled};
pub use place::{Place, PlaceError, Wanted, own};
pub use recorder::{Recording, record};
pub use server::{Admin, Authority, Doors};
pub use tail::Filter;
pub use token::{Token, TokenError};
pub use upgrade::Upgrade;

/// A path, about a pool if one is named.
fn of_pool(path: &str, pool: Option<&str>) -> String {
    let Some(pool) = pool else { return path.to_owned() };
    let sign = if path.contains('?') { '&' } else { '?' };
    let pool = form_urlencoded::byte_serialize(pool.as_bytes()).collect::<String>();
    format!("{path}{sign}pool={pool}")
}
