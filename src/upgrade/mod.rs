//! Another program goes on in this very process, and with everything this one has: listeners, channels,
//! sessions, policies with their states, connections in whatever stage, figures.
//!
//! ```text
//!  order ──► describe ──► self-check ──► put connections aside ──► describe ──► exec ══► resume
//!  (admin,   (state)     (the new        (nothing is awaited       (into a     (same
//!   SIGUSR2)              program, as     from here on)             memory      process)
//!                         a child)                                  file)
//! ```
//!
//! Until the exec nothing is given up: whatever fails before, this program goes on as if nothing had
//! been. Descriptors keep their numbers through the exec, so the [`state`] tells them as numbers, and
//! each stage has a `carry` that writes its part and a `resume` that takes it over.

mod check;
mod connections;
mod descriptors;
mod file;
mod orders;
pub mod state;

pub use check::{FIT, SUBCOMMAND};
pub use connections::{Life, Pause, Waiting};
pub use descriptors::{Incoming, Outgoing};
pub use file::{Carried, StateError, forget};
pub use orders::{Desk, Fit, Order, Orders, PATIENCE};
