//! The policy host from outside: the built-in policies against their vectors and their sources,
//! broken files against their messages, a hostile policy against the chain's promises, versions that
//! take each other's place, policies built for earlier versions of the contract, and the tools for
//! whoever writes one.
//!
//! Guests are built here, so that building sidetrack itself needs no wasm target.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

mod artefacts;
mod author;
mod bindings;
mod broken;
mod contract;
mod engine;
#[path = "../guests.rs"]
mod guests;
mod hostile;
mod languages;
mod script;
mod support;
mod swap;
