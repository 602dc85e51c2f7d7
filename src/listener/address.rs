//! Addresses to listen on, as written in flags and files.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::types::Opening;
use serde::{Deserialize, Serialize};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListenAddress {
    /// No host means every address of the machine. Port 0 means any free one.
    Tcp { host: Option<String>, port: u16 },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Where to listen, and for which of the worker's servers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    pub address: ListenAddress,
    /// The port the program itself asks for; none means its first server.
    pub serves: Option<u16>,
    /// The only pool whose workers serve it; none means all that have no addresses of their own.
    pub pool: Option<Arc<str>>,
    /// What its connections begin with, where the address says so itself.
    pub opening: Option<Opening>,
}

/// Why text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected HOST:PORT, [IPv6]:PORT, :PORT, PORT or unix:PATH, each with an optional =PORT behind it, found \"{0}\""
)]
pub struct AddressError(String);

impl ListenAddress {
    /// Whether both are the same place, or one contains the other. What a host's name means is not looked up.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { port: 0, .. }, Self::Tcp { .. }) => false,
            (Self::Tcp { host, port }, Self::Tcp { host: other_host, port: other_port }) => {
                port == other_port && (host.is_none() || other_host.is_none() || host == other_host)
            }
            _ => self == other,
        }
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Some(path).filter(|path| !path.is_empty()).ok_or_else(error)?;
            return Ok(Self {
                address: ListenAddress::Unix(path.into()),
                serves: None,
                pool: None,
                opening: None,
            });
        }
        let (address, serves) = match text.split_once('=') {
            Some((address, port)) => (address, Some(port.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        Ok(Self { address: tcp(address).ok_or_else(error)?, serves, pool: None, opening: None })
    }
}

fn tcp(text: &str) -> Option<ListenAddress> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bare) => Some(bare.parse::<std::net::Ipv6Addr>().ok()?.to_string()),
        None if host.is_empty() || host == "*" => None,
        // More colons than the one before the port: an IPv6 address without brackets.
        None if host.contains([':', '[', ']', ' ', '/']) => return None,
        None => Some(host.to_owned()),
    };
    Some(ListenAddress::Tcp { host, port })
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host: None, port } => write!(f, "*:{port}"),
            Self::Tcp { host: Some(host), port } => match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{port}"),
                _ => write!(f, "{host}:{port}"),
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.serves.map_or(Ok(()), |port| write!(f, "={port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_form() {
        for (text, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:0", "[::1]:0"),
            ("localhost:80", "localhost:80"),
            (":3000", "*:3000"),
            ("3000", "*:3000"),
            ("*:3000=4000", "*:3000=4000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn knows_what_overlaps() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Listen>().unwrap().address);
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in
            [("80", "80"), ("80", "127.0.0.1:80"), ("[::1]:80", ":80"), ("unix:/a", "unix:/a")]
        {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [("80", "81"), ("127.0.0.1:80", "[::1]:80"), ("0", "0"), ("unix:/a", "unix:/b")] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "host", "host:", "::1:80", "1.2.3.4:99999", "unix:", ":80=x", "[::1:80", "a b:1"] {
            assert!(text.parse::<Listen>().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
