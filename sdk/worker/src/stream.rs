//! A client's connection as the worker gets it.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getpeername};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::channel::Channel;

/// A client's connection, with every byte the client has sent still unread.
///
/// Sidetrack is told when it is dropped.
#[derive(Debug)]
pub struct Stream {
    // Before `open`: the socket is closed when that is reported.
    socket: Socket,
    unread: Option<Unread>,
    #[expect(dead_code, reason = "held for its drop")]
    open: Open,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The client's own address: nothing stands between it and this worker.
    Tcp(SocketAddr),
    /// A client on a Unix socket, or sidetrack itself, looking whether this worker answers.
    Unix,
}

impl Peer {
    /// The client's address, unless it came over a Unix socket.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// What a descriptor turned out to be.
pub(crate) enum Adopted {
    Socket(Socket, Peer),
    /// The client has gone already.
    Gone,
}

impl Stream {
    pub(crate) fn new(socket: Socket, open: Open) -> Self {
        Self { socket, unread: Some(Unread::new(&open.channel)), open }
    }
}

impl Socket {
    /// Makes a socket of a descriptor without reading from it.
    ///
    /// # Errors
    /// When it is no socket, or the runtime cannot watch it.
    pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Adopted> {
        let name: SockaddrStorage = match getpeername(descriptor.as_raw_fd()) {
            Ok(name) => name,
            Err(Errno::ENOTCONN) => return Ok(Adopted::Gone),
            Err(error) => return Err(error.into()),
        };
        let addr = match name.family() {
            Some(AddressFamily::Inet) => name.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into())),
            Some(AddressFamily::Inet6) => name.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())),
            Some(AddressFamily::Unix) => None,
            family => {
                return Err(io::Error::other(format!("a socket of family {family:?} is no connection")));
            }
        };
        let (socket, peer) = if let Some(addr) = addr {
            let socket = std::net::TcpStream::from(descriptor);
            socket.set_nonblocking(true)?;
            (Self::Tcp(TcpStream::from_std(socket)?), Peer::Tcp(addr))
        } else {
            let socket = std::os::unix::net::UnixStream::from(descriptor);
            socket.set_nonblocking(true)?;
            (Self::Unix(UnixStream::from_std(socket)?), Peer::Unix)
        };
        Ok(Adopted::Socket(socket, peer))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        };
        if read.is_ready() {
            self.unread = None;
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// Whether sidetrack is told when a connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    /// Sidetrack counts connections, and its own probes are none.
    No,
}

/// A connection from its acknowledgement to its end.
#[derive(Debug)]
pub(crate) struct Open {
    channel: Arc<Channel>,
    counted: Counted,
}

impl Open {
    pub(crate) fn new(channel: &Arc<Channel>, counted: Counted) -> Self {
        channel.live(|life| life.open += 1);
        Self { channel: Arc::clone(channel), counted }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.counted == Counted::Yes {
            self.channel.report_closed();
        }
        self.channel.live(|life| life.open = life.open.saturating_sub(1));
    }
}

/// A connection until the first read from it.
#[derive(Debug)]
struct Unread(Arc<Channel>);

impl Unread {
    fn new(channel: &Arc<Channel>) -> Self {
        channel.live(|life| life.unread += 1);
        Self(Arc::clone(channel))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.live(|life| life.unread = life.unread.saturating_sub(1));
    }
}
