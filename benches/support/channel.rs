//! A hand-off without anybody around it: what takes descriptors, what gives them, and what that costs.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::yield_now;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sidetrack_worker::wire::{self, encode};

/// The worker's part: takes descriptors and closes them, until the channel ends.
pub fn take(channel: &UnixStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match wire::receive(channel, &mut buffer) {
            Ok(received) if received.bytes == 0 => return,
            Ok(_) => {}
            Err(_) => yield_now(),
        }
    }
}

/// Clients that are connected and have asked.
pub fn clients(server: SocketAddr, number: usize, request: &[u8]) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect(server).expect("the backlog has room");
    let mut clients: Vec<_> = (0..number).map(connect).collect();
    for client in &mut clients {
        client.write_all(request).expect("the request goes out");
    }
    clients
}

/// Sends a connection, as soon as there is room.
pub fn give(channel: &UnixStream, client: impl AsFd) {
    while wire::send(channel, encode::CONNECTION, Some(client.as_fd())).is_err() {
        yield_now();
    }
}

/// CPU time of the calling thread so far.
pub fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
}
