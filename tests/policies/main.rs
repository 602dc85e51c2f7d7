//! The policy host from outside: the built-in policies against their vectors and their sources,
//! broken files against their messages, a hostile policy against the chain's promises, versions that
//! take each other's place, and policies built for earlier versions of the contract.
//!
//! Guests are built here, so that building sidetrack itself needs no wasm target.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

mod artefacts;
mod broken;
mod contract;
mod engine;
mod hostile;
mod script;
mod support;
mod swap;
