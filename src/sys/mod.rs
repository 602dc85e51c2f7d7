//! Raw Linux: the socket options and limits no library wraps. The only home of unsafe code in
//! this package; the descriptor passing itself lives in `sidetrack_worker::wire`.

pub mod account;
pub mod capabilities;
pub mod child;
pub mod cpu;
pub mod exec;
pub mod limits;
pub mod process;
pub mod reactor;
pub mod signals;
pub mod socket;
pub mod systemd;
pub mod thread;
pub mod unix;
