//! Making a listening socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ListenAddress;
use crate::sys::{
    self,
    unix::{Door, SocketFile},
};
use crate::types::Opening;

/// How many connections the kernel may keep for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket. A Unix socket's file goes with it.
#[derive(Debug)]
pub struct Bound {
    socket: Listening,
    /// The address in force, with the true port.
    pub address: ListenAddress,
    /// What its connections begin with.
    pub opening: Opening,
    /// The program before has opened it.
    pub resumed: bool,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// The file is ours to remove, unless somebody else has opened the socket.
    Unix {
        listener: UnixListener,
        file: Option<SocketFile>,
    },
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    pub address: ListenAddress,
    pub source: io::Error,
}

/// Listens on an address.
///
/// Accepted sockets inherit `TCP_NODELAY`, and the kernel keeps connections to itself until their
/// first byte arrives, at most for `defer`. Without a host the socket serves IPv6 and IPv4 alike,
/// or IPv4 alone where the machine has no IPv6, as Node does.
///
/// # Errors
/// When the address is taken, not ours, or not allowed.
pub fn bind(address: &ListenAddress, opening: Opening, defer: Duration) -> Result<Bound, BindError> {
    let error = |source| BindError { address: address.clone(), source };
    match address {
        ListenAddress::Unix(path) => {
            let (listener, file) = sys::unix::bind(path).map_err(error)?;
            let socket = Listening::Unix { listener, file: Some(file) };
            Ok(Bound::new(socket, address.clone(), opening))
        }
        ListenAddress::Tcp { host, port } => {
            let listener = bind_tcp(host.as_deref(), *port, defer).map_err(error)?;
            let port = listener.local_addr().map_err(error)?.port();
            let address = ListenAddress::Tcp { host: host.clone(), port };
            Ok(Bound::new(Listening::Tcp(listener), address, opening))
        }
    }
}

impl Bound {
    const fn new(socket: Listening, address: ListenAddress, opening: Opening) -> Self {
        Self { socket, address, opening, resumed: false }
    }

    /// Takes a socket that somebody else has opened and that listens, with the options of our own.
    ///
    /// # Errors
    /// When it has no address, or does not take its options.
    pub fn adopt(descriptor: OwnedFd, defer: Duration) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        if let Some(address) = local.as_socket() {
            socket.set_tcp_nodelay(true)?;
            drop(sys::socket::defer_accept(&socket, defer));
            let host = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
            let address = ListenAddress::Tcp { host, port: address.port() };
            return Ok(Self::new(Listening::Tcp(socket.into()), address, Opening::default()));
        }
        let path = local.as_pathname().ok_or_else(|| io::Error::other("it has no path"))?.to_owned();
        let listener = UnixListener::from(OwnedFd::from(socket));
        let socket = Listening::Unix { listener, file: None };
        Ok(Self::new(socket, ListenAddress::Unix(path), Opening::default()))
    }

    /// A socket that the program before has opened, or that was opened for it: then a file is not `ours`.
    #[must_use]
    pub fn of(address: ListenAddress, opening: Opening, ours: bool, socket: OwnedFd) -> Self {
        let socket = match &address {
            ListenAddress::Tcp { .. } => Listening::Tcp(socket.into()),
            ListenAddress::Unix(path) => {
                let (listener, file) = Door { path: path.clone(), ours, socket }.open();
                Listening::Unix { listener, file }
            }
        };
        Self { resumed: true, ..Self::new(socket, address, opening) }
    }

    /// Whether its file, if it has one, goes with it.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(&self.socket, Listening::Unix { file: Some(_), .. })
    }

    /// The same, with connections that begin with something else.
    #[must_use]
    pub fn beginning_with(self, opening: Opening) -> Self {
        Self { opening, ..self }
    }

    /// Whether this is what somebody means by an address.
    #[must_use]
    pub fn is_at(&self, address: &ListenAddress) -> bool {
        match (address, &self.address) {
            (ListenAddress::Tcp { host, port }, ListenAddress::Tcp { port: bound, .. }) => {
                let local = self.local_address().map(|local| local.ip());
                port == bound
                    && match host {
                        None => local.is_some_and(|ip| ip.is_unspecified()),
                        Some(host) => (&**host, *port)
                            .to_socket_addrs()
                            .is_ok_and(|mut all| all.any(|meant| Some(meant.ip()) == local)),
                    }
            }
            (meant, bound) => meant == bound,
        }
    }

    /// Takes the next connection without waiting. It does not block either: libuv reads and writes a
    /// socket that it is sent as it comes, so a blocking one would stop a Node worker at the first
    /// read that is as long as its buffer, or at a client that reads slowly.
    ///
    /// # Errors
    /// As `accept(2)`; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        sys::socket::accept(self.as_fd())
    }

    /// Takes no more connections from now on, whoever else still has it: another one may listen there.
    pub(super) fn stop(&self) {
        if let Listening::Tcp(listener) = &self.socket {
            // What it says can only be that it has stopped already.
            let _ = SockRef::from(listener).shutdown(Shutdown::Read);
        }
    }

    /// What `getsockname` says, for TCP.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Listening::Tcp(listener) => listener.local_addr().ok(),
            Listening::Unix { .. } => None,
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Listening::Tcp(listener) => listener.as_fd(),
            Listening::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

fn bind_tcp(host: Option<&str>, port: u16, defer: Duration) -> io::Result<TcpListener> {
    let Some(host) = host else {
        let every_v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        return match listen(every_v6, defer) {
            Err(error) if no_ipv6(&error) => {
                listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), defer)
            }
            result => result,
        };
    };
    let address = match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port),
        Err(_) => (host, port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host name has no address"))?,
    };
    listen(address, defer)
}

fn listen(address: SocketAddr, defer: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // A kernel without it only costs us some peeks.
    drop(sys::socket::defer_accept(&socket, defer));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is taken by another program (`ss -ltnp` shows which); stop it or use --listen".into()
        }
        io::ErrorKind::PermissionDenied => {
            "not allowed (ports below 1024 need CAP_NET_BIND_SERVICE); use a higher port with --listen".into()
        }
        io::ErrorKind::AddrNotAvailable => "the address does not belong to this machine".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn tcp(host: &str) -> ListenAddress {
        ListenAddress::Tcp { host: Some(host.into()), port: 0 }
    }

    /// The server's end of a connection with somebody who has said something.
    fn accepted(bound: &Bound) -> TcpStream {
        let mut client = TcpStream::connect(bound.local_address().unwrap()).unwrap();
        io::Write::write_all(&mut client, b"x").unwrap();
        loop {
            match bound.accept() {
                Ok((socket, _)) => break TcpStream::from(socket),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn accepted_sockets_inherit_no_delay() {
        let bound = bind(&tcp("127.0.0.1"), Opening::Request, Duration::from_secs(1)).unwrap();
        assert!(accepted(&bound).nodelay().unwrap());
    }

    #[test]
    fn a_socket_of_others_is_known_by_its_address() {
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = theirs.local_addr().unwrap();
        let bound = Bound::adopt(theirs.into(), Duration::from_secs(1)).unwrap();
        let at = |text: &str| bound.is_at(&text.parse::<super::super::Listen>().unwrap().address);
        assert!(at(&address.to_string()));
        assert!(!at(&format!(":{}", address.port())) && !at("127.0.0.1:1") && !at("unix:/run/x.sock"));
        assert!(accepted(&bound).nodelay().unwrap());
    }

    #[test]
    fn a_taken_address_says_so() {
        let first = bind(&tcp("127.0.0.1"), Opening::Request, Duration::from_secs(1)).unwrap();
        let error = bind(&first.address, Opening::Request, Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains(&first.address.to_string()) && error.contains("taken"), "{error}");
    }

    #[test]
    fn a_unix_socket_left_by_a_dead_process_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let address = ListenAddress::Unix(path.clone());
        let bind = || bind(&address, Opening::Request, Duration::from_secs(1));
        let live = bind().unwrap();
        assert!(bind().is_err());
        drop(live);
        assert!(!path.exists());
    }
}
