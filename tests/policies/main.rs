//! The policy host from outside: the built-in policies against their vectors and their sources,
//! broken files against their messages, and a hostile policy against the chain's promises.
//!
//! Guests are built here, so that building sidetrack itself needs no wasm target.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

mod artefacts;
mod broken;
mod hostile;
mod support;
