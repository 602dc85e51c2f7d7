//! What several built-in policies share, each part in one place:
//!
//! - [`Eligible`]: who may get something new;
//! - [`Group`]: the one with the lowest load, equals in turn;
//! - [`Options`]: the JSON from the configuration, with errors that say what to write instead;
//! - [`Key`]: the part of a request that a decision is made by;
//! - [`Rendezvous`]: which worker a hash belongs to.
//!
//! Everything here gives the same answers natively and as a component, on every machine.

mod eligible;
mod group;
mod key;
mod options;
mod rendezvous;

pub use eligible::Eligible;
pub use group::Group;
pub use key::{Key, cookie};
pub use options::{Options, Value};
pub use rendezvous::{Rendezvous, mix};
