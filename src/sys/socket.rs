//! Socket calls that neither std nor tokio offers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv, send};

/// Has the kernel keep a new connection to itself until its first byte is there, or until about
/// `wait` has passed (`tcp(7)`). Then the first peek succeeds without waiting.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn defer_accept(socket: &impl AsFd, wait: Duration) -> io::Result<()> {
    /// Of a C `int`, here as everywhere on Linux.
    const LENGTH: libc::socklen_t = 4;
    let seconds = libc::c_int::try_from(wait.as_secs().max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer and the length describe `seconds`, which outlives the call, and the
    // descriptor is open while it is borrowed. No library wraps this option.
    #[allow(unsafe_code, reason = "setsockopt(2) takes a pointer")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            LENGTH,
        )
    };
    Ok(nix::errno::Errno::result(result).map(drop)?)
}

/// Takes a connection that neither blocks nor survives exec, and its peer.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let listener = listener.as_fd().as_raw_fd();
    let take = |name: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the pointers come from `try_init`, which has room for any address. No library takes
        // flags and tells the peer; asking for either afterwards is another system call for each
        // connection.
        #[allow(unsafe_code, reason = "accept4(2) takes pointers")]
        let number = unsafe { libc::accept4(listener, name.cast(), length, flags) };
        let number = nix::errno::Errno::result(number)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
        #[allow(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    // SAFETY: accept4(2) has filled in name and length when it succeeds.
    #[allow(unsafe_code, reason = "the name is written through pointers")]
    let (socket, name) = unsafe { socket2::SockAddr::try_init(take) }?;
    Ok((socket, name.as_socket().map(canonical)))
}

/// Makes a descriptor one that does not block, for everybody who has it.
///
/// # Errors
/// As `fcntl(2)`.
pub fn set_nonblocking(socket: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket.as_fd(), FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(socket.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
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

/// Who is at the other end; nobody with an address for a Unix socket.
///
/// # Errors
/// As `getpeername(2)`: when the peer has left, or the descriptor is no socket.
pub fn peer(socket: impl AsFd) -> io::Result<Option<SocketAddr>> {
    let name = getpeername::<SockaddrStorage>(socket.as_fd().as_raw_fd())?;
    let v4 = || name.as_sockaddr_in().map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)));
    let v6 = || name.as_sockaddr_in6().map(|v6| SocketAddr::from(std::net::SocketAddrV6::from(*v6)));
    Ok(v4().or_else(v6).map(canonical))
}

/// An IPv4 client of a dual-stack socket is an IPv4 client.
#[must_use]
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
