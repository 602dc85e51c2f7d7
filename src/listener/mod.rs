//! The first stage: bind, permit, accept.

mod accept;
mod address;
mod bind;
mod carry;
mod relisten;
mod servers;

pub use accept::{Gate, accept};
pub use address::{AddressError, Listen, ListenAddress};
pub use bind::{BindError, Bound, bind};
pub use relisten::{Relisten, RelistenError};
pub use servers::{Claimed, Idle, Listens, Servers, Wanted};
