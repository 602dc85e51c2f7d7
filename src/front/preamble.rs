//! The preamble: the PROXY header that a proxy in front writes before its client's first byte. Pure:
//! knows no socket.
//!
//! The format is HAProxy's, versions 1 and 2 (`doc/proxy-protocol.txt` in its sources). Whatever follows
//! the header is the client's, so its length has to be exact, and what is no header must be known as
//! soon as it shows. The crates for it are not exact: `ppp` 2.3 waits for ever for the end of a `PROXY
//! UNKNOWN` line of more words than an address has and takes `+1` for a port, as `proxy-header` 0.1 does,
//! which also takes any byte behind `PROXY` and lines of any length and refuses a `LOCAL` whose family it
//! does not know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a version 1 header begins.
const TEXT: &[u8] = b"PROXY ";

/// The longest version 1 header, its end of line included.
const LONGEST_TEXT: usize = 107;

/// How a version 2 header begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, and the length of the rest.
const FIXED: usize = 16;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// The client's address, if the proxy names one: not for connections of its own (`LOCAL`), those it
    /// knows nothing of (`UNKNOWN`, `UNSPEC`), and those that came to it over a Unix socket.
    pub client: Option<SocketAddr>,
    /// How many bytes it has. The next one is the client's first.
    pub length: usize,
}

/// Why bytes can never become a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("its PROXY header is malformed")]
    Malformed,
    #[error("its PROXY header is longer than head-limit")]
    TooLong,
}

impl Preamble {
    /// Parses what has arrived so far; nothing when more bytes are needed. A header of more than `limit`
    /// bytes is refused as soon as that shows.
    ///
    /// # Errors
    /// When no continuation of `bytes` can be such a header.
    pub fn parse(bytes: &[u8], limit: usize) -> Result<Option<Self>, PreambleError> {
        if begins_like(bytes, SIGNATURE) {
            binary(bytes, limit)
        } else if begins_like(bytes, TEXT) {
            text(bytes)
        } else {
            Err(PreambleError::Missing)
        }
    }
}

/// Whether as many bytes as there are agree with this beginning.
fn begins_like(bytes: &[u8], beginning: &[u8]) -> bool {
    let length = bytes.len().min(beginning.len());
    bytes[..length] == beginning[..length]
}

fn binary(bytes: &[u8], limit: usize) -> Result<Option<Preamble>, PreambleError> {
    // What is wrong shows with its own byte.
    let local = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(PreambleError::Malformed),
    };
    let addresses = match bytes.get(SIGNATURE.len() + 1) {
        None => return Ok(None),
        // A proxy's own connection may say anything: it is to be ignored.
        Some(_) if local => 0,
        Some(0x00) => 0,
        Some(0x11 | 0x12) => 12,
        Some(0x21 | 0x22) => 36,
        Some(0x31 | 0x32) => 216,
        Some(_) => return Err(PreambleError::Malformed),
    };
    let Some(&[high, low]) = bytes.get(FIXED - 2..FIXED) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest < addresses {
        return Err(PreambleError::Malformed);
    }
    let length = FIXED + rest;
    if length > limit {
        return Err(PreambleError::TooLong);
    }
    // Behind the addresses come extensions (TLVs), which nobody here asks for.
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(None) };
    let client = match addresses {
        12 => address::<4>(rest, 8).map(|(octets, port)| (Ipv4Addr::from(octets).into(), port)),
        36 => address::<16>(rest, 32).map(|(octets, port)| (Ipv6Addr::from(octets).into(), port)),
        _ => None,
    };
    Ok(Some(Preamble { client: client.map(socket_address), length }))
}

/// The source in a block of addresses, with its port further on.
fn address<const N: usize>(block: &[u8], port: usize) -> Option<([u8; N], u16)> {
    let port = u16::from_be_bytes(*block.get(port..)?.first_chunk()?);
    Some((*block.first_chunk()?, port))
}

fn text(bytes: &[u8]) -> Result<Option<Preamble>, PreambleError> {
    let Some(end) = bytes.iter().take(LONGEST_TEXT).position(|&byte| byte == b'\n') else {
        let possible = bytes.len() < LONGEST_TEXT;
        return if possible { Ok(None) } else { Err(PreambleError::Malformed) };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(TEXT));
    let client = line.and_then(announced).ok_or(PreambleError::Malformed)?;
    Ok(Some(Preamble { client: client.map(socket_address), length: end + 1 }))
}

/// What a version 1 line says behind `PROXY `; nothing when it is none.
#[allow(clippy::option_option, reason = "no such line, one without an address, one with it")]
fn announced(line: &[u8]) -> Option<Option<(IpAddr, u16)>> {
    let unknown = line.strip_prefix(b"UNKNOWN");
    if unknown.is_some_and(|rest| rest.is_empty() || rest.starts_with(b" ")) {
        // The rest is to be ignored, whatever it is.
        return Some(None);
    }
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = words.as_slice() else { return None };
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into()),
        _ => return None,
    };
    let _ = (destination, port(destination_port)?);
    Some(Some((source, port(source_port)?)))
}

/// Digits only, and no zero in front of others.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// An IPv4 client that is written as an IPv6 one is an IPv4 client.
fn socket_address((ip, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024;

    fn parse(bytes: &[u8]) -> Result<Option<Preamble>, PreambleError> {
        Preamble::parse(bytes, LIMIT)
    }

    /// A version 2 header.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// It is a header, known as such with its last byte and not before, whatever follows.
    #[track_caller]
    fn whole(bytes: &[u8], client: Option<&str>) {
        let client = client.map(|text| text.parse().unwrap());
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Ok(None), "{length} bytes");
        }
        for rest in ["", "\r\n", "GET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN\r\n"] {
            let found = parse(&[bytes, rest.as_bytes()].concat());
            assert_eq!(found, Ok(Some(Preamble { client, length: bytes.len() })), "{rest}");
        }
    }

    #[test]
    fn lines_of_version_1() {
        whole(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some("192.0.2.1:56324"));
        whole(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Some("[2001:db8::1]:0"));
        whole(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 80 80\r\n", Some("192.0.2.1:80"));
        whole(b"PROXY UNKNOWN\r\n", None);
        whole(b"PROXY UNKNOWN a b  c\xff d e f g h\r\n", None);
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_TEXT - 16));
        whole(longest.as_bytes(), None);
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(PreambleError::Malformed), "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_TEXT));
        assert_eq!(parse(endless.as_bytes()), Err(PreambleError::Malformed));
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        whole(&header(0x21, 0x11, &v4), Some("192.0.2.1:56324"));
        whole(&header(0x21, 0x12, &v4), Some("192.0.2.1:56324"));
        let extended = [&v4[..], &[0x04, 0, 3, 1, 2, 3, 0xff]].concat();
        whole(&header(0x21, 0x11, &extended), Some("192.0.2.1:56324"));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&[1, 2]);
        whole(&header(0x21, 0x21, &v6), Some("[::1]:258"));
        whole(&header(0x21, 0x31, &[0x2f; 216]), None);
        whole(&header(0x21, 0x00, b""), None);
        whole(&header(0x21, 0x00, b"anything"), None);
        whole(&header(0x20, 0x00, b""), None);
        whole(&header(0x20, 0x11, &v4), None);
        whole(&header(0x20, 0x7f, b"?"), None);
    }

    #[test]
    fn headers_that_are_none() {
        for (command, family, rest) in
            [(0x11, 0x11, 12), (0x22, 0x11, 12), (0x21, 0x41, 36), (0x21, 0x13, 12), (0x21, 0x11, 11)]
        {
            let bytes = header(command, family, &vec![0; rest]);
            assert_eq!(parse(&bytes), Err(PreambleError::Malformed), "{command:x} {family:x}");
        }
        let long = header(0x21, 0x00, &[0; LIMIT]);
        assert_eq!(parse(&long[..FIXED]), Err(PreambleError::TooLong), "not a byte of it is waited for");
    }

    #[test]
    fn what_is_no_header_shows_with_its_first_wrong_byte() {
        for (bytes, wrong) in
            [(&b"GET / HTTP/1.1\r\n\r\n"[..], 0), (b"PROXIES", 4), (b"\r\n\r\nGET", 4), (b"\x16\x03", 0)]
        {
            assert_eq!(parse(&bytes[..wrong]), Ok(None));
            assert_eq!(parse(&bytes[..=wrong]), Err(PreambleError::Missing));
        }
    }
}
