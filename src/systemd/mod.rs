//! A service of systemd's: sockets that it has opened, and what it is told of the run.
//!
//! Nothing of systemd is needed for it: a few variables in the environment, descriptors from number 3 on
//! (`sd_listen_fds(3)`), and datagrams to a Unix socket (`sd_notify(3)`). Without them nothing happens here.

mod notify;
mod passed;

pub use notify::{Notify, Watchdog};
pub use passed::Passed;
