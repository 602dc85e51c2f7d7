//! Socket calls that neither std nor tokio offers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send, setsockopt};

#[allow(
    unsafe_code,
    missing_debug_implementations,
    missing_docs,
    clippy::undocumented_unsafe_blocks,
    reason = "the macro's own call to setsockopt(2); nix has no TCP_DEFER_ACCEPT"
)]
mod option {
    nix::sockopt_impl!(
        DeferAccept,
        SetOnly,
        nix::libc::IPPROTO_TCP,
        nix::libc::TCP_DEFER_ACCEPT,
        i32
    );
}

/// Has the kernel keep a new connection to itself until its first byte is there, or until about
/// `wait` has passed (`tcp(7)`). Then the first peek succeeds without waiting.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn defer_accept(socket: &impl AsFd, wait: Duration) -> io::Result<()> {
    let seconds = i32::try_from(wait.as_secs().max(1)).unwrap_or(i32::MAX);
    Ok(setsockopt(&socket, option::DeferAccept, &seconds)?)
}

/// Reads without consuming and without waiting. 0 means the peer has finished sending.
///
/// # Errors
/// As `recv(2)`; `WouldBlock` when nothing is there.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
}

/// Reads and throws away without waiting. 0 means the peer has finished sending.
///
/// # Errors
/// As `recv(2)`; `WouldBlock` when nothing is there.
pub fn discard(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Writes without waiting.
///
/// # Errors
/// As `send(2)`.
pub fn write(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
}
