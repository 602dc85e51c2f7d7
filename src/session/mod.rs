//! Sessions: where a request carries its id, and which worker owns it.

mod key;
mod table;

pub use key::{Found, KeyError, SessionKey};
pub use table::{Closed, Opened, SessionTable};
