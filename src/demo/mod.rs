//! `sidetrack demo`: a Socket.IO server inside the binary, and a page that shows its workers.
//!
//! Owns the worker and what it serves. How the workers are started is no different from any other
//! program's, so it is not here.

pub mod worker;

#[cfg(test)]
mod tests;
