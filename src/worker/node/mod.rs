//! What is particular to Node: the preloaded shim, `listen()` seen from the cluster primary's
//! side, and tools that start Node but keep the channel to themselves.

mod query;
mod shim;
mod wrapper;

pub use query::{Asked, asked, key, socket_name};
pub use shim::Shim;
pub use wrapper::{advice, wrapper};
