//! Sessions: which worker owns them. Where a request carries its id is for workers to know as well,
//! so it stands in `sidetrack_worker`.

mod table;

pub use sidetrack_worker::session_key::{Found, KeyError, SessionKey};
pub use table::{Bounds, Closed, Opened, SessionTable};
