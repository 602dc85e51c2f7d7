//! The head of the first unread request on a connection: its bytes, and where the parts are.

use std::mem::MaybeUninit;
use std::ops::Range;

use sidetrack_worker::session_key::{self, path_and_query};

/// More header lines than any real client sends. A head with more is refused.
const MAX_HEADERS: usize = 128;

/// A complete, valid HTTP/1.x request head.
///
/// Owns a copy of the peeked bytes; the kernel still holds the originals for the worker. Only the
/// request line is indexed: header lines are found again when somebody asks, since most
/// connections are routed without looking at any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    bytes: Box<[u8]>,
    method: Range<u32>,
    target: Range<u32>,
}

/// How far a prefix of the stream got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    Complete(Head),
}

/// Why bytes can never become a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the client speaks TLS to a plain listener")]
    Tls,
    #[error("the client speaks HTTP/2 without upgrade")]
    Http2,
    #[error("not an HTTP/1.x request: {0}")]
    Malformed(httparse::Error),
    #[error("HTTP version is not 1.0 or 1.1")]
    Version,
    #[error("more than {MAX_HEADERS} header lines")]
    TooManyHeaders,
}

/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Head {
    /// Parses what has arrived so far.
    ///
    /// # Errors
    /// When no continuation of `bytes` can be an HTTP/1.x request.
    pub fn parse(bytes: &[u8]) -> Result<Progress, HeadError> {
        match bytes {
            // A TLS record of type handshake, major version 3.
            [0x16] | [0x16, 0x03, ..] => return Err(HeadError::Tls),
            _ if bytes.len() >= 4 && HTTP2_PREFACE.starts_with(&bytes[..bytes.len().min(24)]) => {
                return Err(HeadError::Http2);
            }
            _ => {}
        }
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Partial) => Ok(Progress::Partial),
            Ok(httparse::Status::Complete(length)) => {
                let span = |part: Option<&str>| range_in(bytes, part.unwrap_or_default());
                Ok(Progress::Complete(Self {
                    method: span(request.method),
                    target: span(request.path),
                    bytes: bytes[..length].into(),
                }))
            }
            // The parser says the same of a version that is none at all.
            Err(httparse::Error::Version) if names_http(bytes) => Err(HeadError::Version),
            Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooManyHeaders),
            Err(error) => Err(HeadError::Malformed(error)),
        }
    }

    /// A made-up request's head.
    ///
    /// # Errors
    /// The text, when it is no head.
    pub fn compose(method: &str, target: &str, headers: &[(String, String)]) -> Result<Self, String> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("{method} {target} HTTP/1.1\r\n{headers}\r\n");
        match Self::parse(text.as_bytes()) {
            Ok(Progress::Complete(head)) => Ok(head),
            _ => Err(text),
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// The request target as sent: usually `/path?query`, sometimes absolute.
    #[must_use]
    pub fn target(&self) -> &str {
        self.text(&self.target)
    }

    /// The path part of the target, without scheme, authority and query.
    #[must_use]
    pub fn path(&self) -> &str {
        path_and_query(self.target()).0
    }

    /// The raw query, without the question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        path_and_query(self.target()).1
    }

    /// Every value of a header, in order, names compared without case. Values that are not UTF-8
    /// are left out.
    pub fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.lines(|known| known.eq_ignore_ascii_case(name)).into_iter().map(|(_, value)| value)
    }

    /// All header lines in order. Those whose values are not UTF-8 are left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines(|_| true).into_iter()
    }

    /// Every value of a header, in order and as it came, text or not.
    #[must_use]
    pub fn header_bytes(&self, name: &str) -> Vec<&[u8]> {
        self.lines_with(|header| header.name.eq_ignore_ascii_case(name).then_some(header.value))
    }

    fn lines(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
        self.lines_with(|header| {
            let text = || std::str::from_utf8(header.value).ok();
            if wanted(header.name) { Some((header.name, text()?)) } else { None }
        })
    }

    fn lines_with<'a, T>(&'a self, wanted: impl Fn(&httparse::Header<'a>) -> Option<T>) -> Vec<T> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        // The bytes parsed once before, so this cannot fail; if it did, there would be no headers.
        let parsed = request.parse(&self.bytes).is_ok();
        request.headers.iter().filter(|_| parsed).filter_map(wanted).collect()
    }

    /// True when the client asks to leave HTTP on this connection, as WebSocket does.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.header("upgrade").next().is_some()
    }

    fn text(&self, range: &Range<u32>) -> &str {
        // httparse only yields ASCII or UTF-8 here; a default head is empty.
        self.bytes
            .get(range.start as usize..range.end as usize)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl session_key::Head for Head {
    fn path(&self) -> &str {
        Self::path(self)
    }

    fn query(&self) -> &str {
        Self::query(self)
    }

    fn authority(&self) -> &str {
        session_key::authority(self.target())
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        Self::header(self, name)
    }
}

/// Where a part that httparse borrowed from `bytes` lies in them.
fn range_in(bytes: &[u8], part: &str) -> Range<u32> {
    let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    let place = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    place(start)..place(start + part.len())
}

/// True when the request line ends in some version of HTTP.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.windows(6).any(|window| window == b" HTTP/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] =
        b"GET /socket.io/?EIO=4&sid=abc HTTP/1.1\r\nHost: a\r\nCookie: x=1\r\ncookie: y=2\r\n\r\nBODY";

    fn head(bytes: &[u8]) -> Head {
        match Head::parse(bytes) {
            Ok(Progress::Complete(head)) => head,
            other => panic!("expected a head, got {other:?}"),
        }
    }

    #[test]
    fn finds_the_parts_and_leaves_the_body() {
        let head = head(PLAIN);
        assert_eq!(head.method(), "GET");
        assert_eq!(head.target(), "/socket.io/?EIO=4&sid=abc");
        assert_eq!(head.path(), "/socket.io/");
        assert_eq!(head.query(), "EIO=4&sid=abc");
        assert_eq!(head.header("COOKIE").collect::<Vec<_>>(), ["x=1", "y=2"]);
        assert!(!head.is_upgrade());
        assert!(!head.bytes.ends_with(b"BODY"));
    }

    #[test]
    fn every_prefix_is_partial_until_the_blank_line() {
        let end = PLAIN.len() - b"BODY".len();
        for length in 0..end {
            assert_eq!(Head::parse(&PLAIN[..length]), Ok(Progress::Partial), "prefix of {length}");
        }
        assert!(matches!(Head::parse(&PLAIN[..end]), Ok(Progress::Complete(_))));
    }

    #[test]
    fn other_protocols_have_names() {
        assert_eq!(Head::parse(&[0x16, 0x03, 0x01, 0x02]), Err(HeadError::Tls));
        assert_eq!(Head::parse(HTTP2_PREFACE), Err(HeadError::Http2));
        assert_eq!(Head::parse(b"PRI * HT"), Err(HeadError::Http2));
        assert_eq!(Head::parse(b"GET / HTTP/3.0\r\n\r\n"), Err(HeadError::Version));
        assert!(matches!(Head::parse(b"\x00\x01\x02"), Err(HeadError::Malformed(_))));
        assert!(matches!(Head::parse(b"what is this\r\n\r\n"), Err(HeadError::Malformed(_))));
    }
}
