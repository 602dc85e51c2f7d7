//! Raw Linux: the socket options and limits no library wraps. The only home of unsafe code in
//! this package; the descriptor passing itself lives in `sidetrack_worker::wire`.

pub mod account;
pub mod capabilities;
pub mod cpu;
pub mod limits;
pub mod process;
pub mod reactor;
pub mod socket;
pub mod systemd;
pub mod thread;
pub mod unix;
