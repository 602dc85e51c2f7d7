//! The real program, real workers, real clients; and what the tests need to see what they do.

mod fake;
mod http;
mod languages;
mod node;
mod os;
mod place;
mod sidetrack;
mod turn;
mod wait;

pub use fake::{fake, interpreter};
pub use http::{Client, Response, admin, get, pid, poll_session, session_at, try_get};
pub use languages::{every_language, python, python_worker, rust_worker};
pub use node::{client, install, job, node, worker, worker as node_worker};
pub use os::{alive, children, free_port, kill, signal, sockets};
pub use place::{Place, finished, program};
pub use sidetrack::{Run, Sidetrack, Stopped, check, sidetrack};
pub use turn::Turn;
pub use wait::{PATIENCE, eventually, eventually_within};

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A policy component as users get it.
pub fn policy_file(name: &str) -> PathBuf {
    root().join("policies/dist").join(name).with_extension("wasm")
}
