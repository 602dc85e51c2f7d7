//! A client's socket, whatever its family.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockaddrLike, SockaddrStorage, getpeername, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The client's own address: nothing stands between it and this worker, or a proxy that has told
    /// sidetrack of it (PROXY protocol).
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

/// What to do after a look.
pub(crate) enum Looked<T> {
    /// Look again when more has arrived.
    More,
    /// Leave everything where it is.
    Done(T),
    /// Read all that has arrived; there is room for it.
    Take(T),
}

/// The most that is looked at without being read. A request head that is longer is no concern of
/// ours: the server will have its own opinion of it.
pub(crate) const LONGEST_LOOK: usize = 16 * 1024;

thread_local! {
    /// One buffer for every look on this thread: nothing waits while it is borrowed.
    static SEEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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

    /// The descriptor, which this process's reactor watches no more. Without that the kernel would
    /// go on reporting the socket here as long as another process has it.
    ///
    /// # Errors
    /// When the reactor refuses; the socket is closed then.
    pub(crate) fn release(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(OwnedFd::from),
            Self::Unix(socket) => socket.into_std().map(OwnedFd::from),
        }
    }

    /// Shows `look` what has arrived behind `before`, without reading it, waiting until there is
    /// something. Nothing at all means that the client has closed its side. `look` is told when
    /// these bytes are all that will ever come.
    ///
    /// When `look` wants more it is asked again once more has arrived. The reactor reports edges,
    /// so that does not spin although the bytes stay where they are.
    pub(crate) fn poll_look<T>(
        &self,
        cx: &mut Context<'_>,
        before: &[u8],
        buffer: &mut ReadBuf<'_>,
        mut look: impl FnMut(&[u8], bool) -> Looked<T>,
    ) -> Poll<io::Result<T>> {
        let mut again = false;
        loop {
            match self.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            // Asked before the look whose bytes it qualifies.
            let all = again && self.has_ended(cx);
            again = true;
            let mut taken = None;
            let looked = self.try_read(|descriptor| {
                SEEN.with_borrow_mut(|seen| {
                    seen.resize(LONGEST_LOOK.max(before.len() + 1), 0);
                    seen[..before.len()].copy_from_slice(before);
                    let (peek, now) = (MsgFlags::MSG_PEEK, MsgFlags::MSG_DONTWAIT);
                    let arrived = recv(descriptor.as_raw_fd(), &mut seen[before.len()..], peek | now)?;
                    let there = if arrived == 0 { 0 } else { before.len() + arrived };
                    match look(&seen[..there], all) {
                        Looked::Done(value) => Ok(value),
                        Looked::More => Err(io::ErrorKind::WouldBlock.into()),
                        Looked::Take(value) => {
                            let room = buffer.initialize_unfilled_to(arrived);
                            let read = recv(descriptor.as_raw_fd(), room, now)?;
                            buffer.advance(read);
                            taken = Some(value);
                            // Nothing is left, as far as the reactor knows: the next look need not
                            // ask the kernel. What has come since is another edge.
                            Err(io::ErrorKind::WouldBlock.into())
                        }
                    }
                })
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(value) = taken {
                        return Poll::Ready(Ok(value));
                    }
                }
                looked => return Poll::Ready(looked),
            }
        }
    }

    /// True when the reactor knows that the client has closed its side. Never cleared, so that a
    /// socket in this state is always ready.
    fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        let ready = match self {
            Self::Tcp(socket) => pin!(socket.ready(Interest::READABLE)).poll(cx),
            Self::Unix(socket) => pin!(socket.ready(Interest::READABLE)).poll(cx),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    fn try_read<T>(&self, read: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, || read(socket.as_fd())),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, || read(socket.as_fd())),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
