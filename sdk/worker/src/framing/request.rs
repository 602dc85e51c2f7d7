//! A request's head: its length, what follows it, and where it names its session.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::{Body, Kind, MOST_HEADERS, Malformed, content_length, ends_chunked, has, lists, values};
use crate::session_key;

/// Room for the header lines of one head, on the caller's stack.
pub(crate) type Storage<'b> = [MaybeUninit<Header<'b>>; MOST_HEADERS];

pub(crate) const fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; MOST_HEADERS]
}

/// A complete request head.
#[derive(Debug)]
pub(crate) struct Head<'h, 'b> {
    /// In bytes, blank line included.
    pub(crate) length: usize,
    method: &'b str,
    path: &'b str,
    query: &'b str,
    authority: &'b str,
    minor: u8,
    headers: &'h [Header<'b>],
}

/// What a head says about the bytes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) kind: Kind,
    pub(crate) body: Body,
    pub(crate) then: Then,
}

/// What comes after a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Request,
    /// The response decides: another protocol, or another request.
    Undecided,
    /// Nothing: the connection closes after this one.
    Nothing,
}

impl<'h, 'b> Head<'h, 'b> {
    /// None when more bytes are needed.
    pub(crate) fn parse(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, Malformed> {
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(bytes, storage).map_err(|_| Malformed)?;
        let Status::Complete(length) = status else { return Ok(None) };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(Malformed);
        };
        let (path, query) = session_key::path_and_query(target);
        let authority = session_key::authority(target);
        Ok(Some(Self { length, method, path, query, authority, minor, headers: request.headers }))
    }

    pub(crate) fn framing(&self) -> Result<Framing, Malformed> {
        let body = if has(self.headers, "transfer-encoding") {
            // Any other shape is a server's to refuse.
            if self.minor == 0 || !ends_chunked(self.headers) {
                return Err(Malformed);
            }
            Body::Chunked
        } else {
            Body::Length(content_length(self.headers)?.unwrap_or(0))
        };
        let kind = match self.method {
            "HEAD" => Kind::Head,
            "CONNECT" => Kind::Connect,
            _ => Kind::Plain,
        };
        let stays_open = match self.minor {
            0 => lists(self.headers, "connection", "keep-alive"),
            _ => !lists(self.headers, "connection", "close"),
        };
        let then = if kind == Kind::Connect || has(self.headers, "upgrade") {
            Then::Undecided
        } else if stays_open {
            Then::Request
        } else {
            Then::Nothing
        };
        Ok(Framing { kind, body, then })
    }
}

impl session_key::Head for Head<'_, '_> {
    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> &str {
        self.query
    }

    fn authority(&self) -> &str {
        self.authority
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        values(self.headers, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<Framing, Malformed> {
        let mut storage = storage();
        Head::parse(head.as_bytes(), &mut storage)?.expect("a whole head").framing()
    }

    fn plain(body: Body, then: Then) -> Result<Framing, Malformed> {
        Ok(Framing { kind: Kind::Plain, body, then })
    }

    #[test]
    fn a_head_is_partial_until_its_blank_line() {
        let bytes = b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        for length in 0..bytes.len() {
            let mut storage = storage();
            let head = Head::parse(&bytes[..length], &mut storage).unwrap();
            assert_eq!(head.map(|head| head.length), (length >= bytes.len() - 4).then_some(bytes.len() - 4));
        }
    }

    #[test]
    fn the_body_is_as_long_as_the_head_says() {
        use Then::{Nothing, Request};
        assert_eq!(framing("GET / HTTP/1.1\r\n\r\n"), plain(Body::Length(0), Request));
        assert_eq!(framing("PUT / HTTP/1.1\r\nContent-Length: 7\r\n\r\n"), plain(Body::Length(7), Request));
        let twice = "PUT / HTTP/1.1\r\nContent-Length: 7\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(framing(twice), plain(Body::Length(7), Request));
        let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(framing(chunked), plain(Body::Chunked, Request));
        assert_eq!(framing("GET / HTTP/1.0\r\n\r\n"), plain(Body::Length(0), Nothing));
        let kept = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(framing(kept), plain(Body::Length(0), Request));
        let last = "GET / HTTP/1.1\r\nConnection: foo, close\r\n\r\n";
        assert_eq!(framing(last), plain(Body::Length(0), Nothing));
    }

    #[test]
    fn doubtful_lengths_are_left_to_the_server() {
        for headers in [
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: \r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        ] {
            assert_eq!(framing(&format!("PUT / HTTP/1.1\r\n{headers}\r\n")), Err(Malformed), "{headers}");
        }
        assert_eq!(framing("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Malformed));
    }

    #[test]
    fn some_requests_lead_out_of_http() {
        let upgrade = framing("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(upgrade, plain(Body::Length(0), Then::Undecided));
        let connect = framing("CONNECT host:80 HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((connect.kind, connect.then), (Kind::Connect, Then::Undecided));
        assert_eq!(framing("HEAD / HTTP/1.1\r\n\r\n").unwrap().kind, Kind::Head);
    }

    #[test]
    fn other_protocols_are_malformed() {
        for bytes in
            [b"\x16\x03\x01\x02\x00".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\r\n\r\n"]
        {
            assert_eq!(Head::parse(bytes, &mut storage()).err(), Some(Malformed), "{}", bytes.escape_ascii());
        }
    }
}
