//! Connections that travel between workers of one process, and workers that come and go.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

mod client;
mod descriptors;
mod exchange;
mod host;
mod join;
mod server;
