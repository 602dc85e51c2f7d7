//! Who a request's client is, by the word of the proxies it has passed. Pure: knows no socket.
//!
//! Each proxy adds the address it was called from at the end of a header; whatever stands before may come
//! from the client itself. So the header is read from its end, for as long as its words are those of
//! trusted proxies: the first address that is none of theirs is the client's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::types::Head;

/// The header in which proxies say who calls them. One, not whichever is there: the other would be what
/// the client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientHeader {
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl ClientHeader {
    /// The client of a request that came from `nearest`, which is trusted. Stops at whatever is no
    /// address: then it is the last proxy that is known.
    pub(super) fn client(self, nearest: IpAddr, head: &Head, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
        let lines = head.header_bytes(self.name());
        let mut client = nearest;
        for line in lines.iter().rev() {
            for entry in self.entries(line).into_iter().rev() {
                match self.address(entry) {
                    Some(address) => client = address,
                    None => return client,
                }
                if !trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    fn entries(self, line: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::XForwardedFor => line.split(|&byte| byte == b',').collect(),
            Self::Forwarded => split_unquoted(line, b','),
        }
    }

    fn address(self, entry: &[u8]) -> Option<IpAddr> {
        let node = match self {
            Self::XForwardedFor => entry.trim_ascii(),
            Self::Forwarded => {
                let mut pairs = split_unquoted(entry, b';').into_iter().filter_map(|pair| {
                    let at = pair.iter().position(|&byte| byte == b'=')?;
                    Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
                });
                let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(b"for"))?;
                let quoted = value.strip_prefix(b"\"").map(|value| value.strip_suffix(b"\""));
                quoted.unwrap_or(Some(value))?
            }
        };
        address(std::str::from_utf8(node).ok()?)
    }
}

/// An address as proxies write it: bare, in brackets, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

/// Cuts at a separator outside quoted strings.
fn split_unquoted(line: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&line[start..]);
    parts
}

impl FromStr for ClientHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::XForwardedFor, Self::Forwarded];
        let found = known.into_iter().find(|header| text.eq_ignore_ascii_case(header.name()));
        found.ok_or_else(|| format!("expected x-forwarded-for or forwarded, found \"{text}\""))
    }
}

impl fmt::Display for ClientHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Progress;

    /// From 10.0.0.1, with 10/8 trusted.
    #[track_caller]
    fn client(header: ClientHeader, lines: &[&[u8]]) -> String {
        let name = header.name().to_uppercase();
        let headers: Vec<u8> =
            lines.iter().flat_map(|line| [name.as_bytes(), b": ", line, b"\r\n"].concat()).collect();
        let bytes = [b"GET / HTTP/1.1\r\n", &headers[..], b"\r\n"].concat();
        let Ok(Progress::Complete(head)) = Head::parse(&bytes) else { panic!("no head") };
        let trusted = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10);
        header.client("10.0.0.1".parse().unwrap(), &head, trusted).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys() {
        for (lines, expected) in [
            (&[&b"192.0.2.1"[..]][..], "192.0.2.1"),
            (&[b"198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&[b"198.51.100.9,192.0.2.1 , 10.1.1.1"], "192.0.2.1"),
            (&[b"198.51.100.9", b"192.0.2.1", b"10.1.1.1"], "192.0.2.1"),
            (&[b"10.9.9.9, 10.1.1.1"], "10.9.9.9"),
            (&[b"2001:db8::1"], "2001:db8::1"),
            (&[b"[2001:db8::1]:443"], "2001:db8::1"),
            (&[b"::ffff:192.0.2.1"], "192.0.2.1"),
            (&[b"192.0.2.1:56324"], "192.0.2.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client(ClientHeader::XForwardedFor, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        for lines in [
            &[&b""[..]][..],
            &[b"192.0.2.1,"],
            &[b"192.0.2.1, unknown"],
            &[b"192.0.2.1, 192.0.2.1.5"],
            &[b"192.0.2.1, localhost"],
            // A line that is no text is a line all the same: the one before it is not the last.
            &[b"192.0.2.1", b"\xff"],
        ] {
            assert_eq!(client(ClientHeader::XForwardedFor, lines), "10.0.0.1", "{lines:?}");
        }
        assert_eq!(client(ClientHeader::XForwardedFor, &[b"192.0.2.1, bad, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(client(ClientHeader::XForwardedFor, &[b"\xff, 192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn the_header_of_rfc_7239() {
        for (lines, expected) in [
            (&[&b"for=192.0.2.1"[..]][..], "192.0.2.1"),
            (&[b"for=198.51.100.9, For=\"192.0.2.1:80\";proto=http;by=10.0.0.1"], "192.0.2.1"),
            (&[b"proto=https; for=\"[2001:db8::1]:4711\", for=10.2.2.2"], "2001:db8::1"),
            (&[b"for=192.0.2.1;by=\"a,b;for=1.1.1.1\""], "192.0.2.1"),
            (&[b"for=192.0.2.1, for=unknown"], "10.0.0.1"),
            (&[b"for=192.0.2.1, for=_hidden"], "10.0.0.1"),
            (&[b"for=192.0.2.1, proto=http"], "10.0.0.1"),
            // What the client has left open takes the proxy's own word with it.
            (&[b"for=\"192.0.2.1, for=192.0.2.2"], "10.0.0.1"),
        ] {
            assert_eq!(client(ClientHeader::Forwarded, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_other_header_is_not_read() {
        let head = b"GET / HTTP/1.1\r\nForwarded: for=192.0.2.1\r\n\r\n";
        let Ok(Progress::Complete(head)) = Head::parse(head) else { panic!("no head") };
        let nearest = "10.0.0.1".parse().unwrap();
        assert_eq!(ClientHeader::XForwardedFor.client(nearest, &head, |_| true), nearest);
    }
}
