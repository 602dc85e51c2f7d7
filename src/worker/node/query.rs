//! A worker's `listen()`, translated.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use sidetrack_worker::wire::ServerQuery;
use sidetrack_worker::wire::encode::SocketName;

use crate::listener::{ListenAddress, Wanted};

/// What a `listen()` call asks of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Stream(Wanted),
    /// Datagram sockets and inherited descriptors, which nobody can share this way.
    Unsupported(Errno),
}

/// Reads a query. libuv's address types are `4`, `6`, and `-1` for a Unix path; datagram sockets
/// say `udp4` and `udp6`.
#[must_use]
pub fn asked(query: &ServerQuery<'_>) -> Asked {
    if query.address_type.starts_with("udp") {
        return Asked::Unsupported(Errno::ENOTSUP);
    }
    if query.fd.is_some() {
        return Asked::Unsupported(Errno::EINVAL);
    }
    let address = match (u16::try_from(query.port), &query.address) {
        (Ok(port), address) => {
            // Node asks for every address by leaving the host out, or as `::`.
            let host = address.as_deref().filter(|host| *host != "::" && !host.is_empty());
            ListenAddress::Tcp { host: host.map(str::to_owned), port }
        }
        (Err(_), Some(path)) => ListenAddress::Unix(path.as_ref().into()),
        (Err(_), None) => return Asked::Unsupported(Errno::EINVAL),
    };
    // The index tells apart several servers on port 0; with a port they would be the same one.
    let index = if query.port == 0 { query.index } else { 0 };
    Asked::Stream(Wanted { address, index })
}

/// The key under which Node knows a server, as its own cluster primary makes it.
#[must_use]
pub fn key(query: &ServerQuery<'_>) -> String {
    let address = query.address.as_deref().unwrap_or("null");
    let fd = query.fd.map_or_else(|| "undefined".to_owned(), |fd| fd.to_string());
    format!("{address}:{}:{}:{fd}:{}", query.port, query.address_type, query.index)
}

/// Where the worker is told it listens. It believes in its own port whatever sidetrack listens
/// on: Node takes another one for `EADDRINUSE`.
#[must_use]
pub fn socket_name(query: &ServerQuery<'_>, bound: &ListenAddress) -> SocketName {
    let ListenAddress::Tcp { host, port: bound_port } = bound else {
        return if query.port < 0 { SocketName::Unix } else { tcp(query, None, 0) };
    };
    tcp(query, host.as_deref(), *bound_port)
}

fn tcp(query: &ServerQuery<'_>, host: Option<&str>, bound_port: u16) -> SocketName {
    let asked = u16::try_from(query.port).unwrap_or_default();
    let port = if asked == 0 { bound_port } else { asked };
    let unspecified = if query.address_type == "6" || query.address.is_none() { "::" } else { "0.0.0.0" };
    let address = query.address.as_deref().or(host).unwrap_or(unspecified).to_owned();
    let ipv6 = address.parse::<IpAddr>().is_ok_and(|ip| SocketAddr::new(ip, 0).is_ipv6());
    SocketName::Tcp { address, family: if ipv6 { "IPv6" } else { "IPv4" }, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(address: Option<&'static str>, port: i64, kind: &'static str) -> ServerQuery<'static> {
        ServerQuery {
            address: address.map(Into::into),
            port,
            address_type: kind.into(),
            ..ServerQuery::default()
        }
    }

    fn tcp(host: Option<&str>, port: u16) -> ListenAddress {
        ListenAddress::Tcp { host: host.map(str::to_owned), port }
    }

    #[test]
    fn reads_what_listen_means() {
        let stream = |address| Asked::Stream(Wanted { address, index: 0 });
        assert_eq!(asked(&query(None, 3000, "4")), stream(tcp(None, 3000)));
        assert_eq!(asked(&query(Some("127.0.0.1"), 0, "4")), stream(tcp(Some("127.0.0.1"), 0)));
        let unix = stream(ListenAddress::Unix("/tmp/s".into()));
        assert_eq!(asked(&query(Some("/tmp/s"), -1, "-1")), unix);
        assert_eq!(asked(&query(None, 53, "udp4")), Asked::Unsupported(Errno::ENOTSUP));
    }

    #[test]
    fn the_worker_keeps_believing_in_its_port() {
        let name = |query: &ServerQuery<'_>, bound| socket_name(query, &bound);
        assert_eq!(
            name(&query(None, 3000, "4"), tcp(Some("127.0.0.1"), 8080)),
            SocketName::Tcp { address: "127.0.0.1".into(), family: "IPv4", port: 3000 }
        );
        assert_eq!(
            name(&query(None, 0, "4"), tcp(None, 41_000)),
            SocketName::Tcp { address: "::".into(), family: "IPv6", port: 41_000 }
        );
        assert_eq!(name(&query(Some("/s"), -1, "-1"), ListenAddress::Unix("/s".into())), SocketName::Unix);
    }
}
