//! The policy host from outside: the built-in policies against their vectors and their sources,
//! broken files against their messages, and a hostile policy against the chain's promises.
//!
//! Guests are built here, so that building sidetrack itself needs no wasm target.

mod artefacts;
mod broken;
mod hostile;
mod support;
