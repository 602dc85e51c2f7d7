//! Where HTTP/1 messages begin and end, in both directions of a connection.
//!
//! Pure: no socket, no clock. Bytes go in as they pass by, and out comes how many of them belong
//! to the message under way. Nothing here changes or keeps a body. Whatever is not understood is
//! [`Malformed`], and the caller then leaves the connection alone: the server will say what is
//! wrong with it. Bounds are as strict as hyper's, since two readers that disagree about an end
//! would take a body for a request.

pub(crate) mod chunked;
pub(crate) mod request;
pub(crate) mod response;

use httparse::Header;

/// Bytes that are not HTTP/1, or not of a shape whose end is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// More header lines than any real peer sends.
const MOST_HEADERS: usize = 128;

/// What a method changes about the response to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// A response has no body, whatever its head says.
    Head,
    /// A response of success is the end of HTTP.
    Connect,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
    /// Until the connection closes.
    Open,
}

/// Every value of a header, as text.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
}

/// True when a list-valued header holds a token.
fn lists(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn has(headers: &[Header<'_>], name: &str) -> bool {
    headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
}

/// The length all `Content-Length` lines agree on.
fn content_length(headers: &[Header<'_>]) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length")) {
        // `parse` alone would take a sign.
        if header.value.is_empty() || !header.value.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let value = std::str::from_utf8(header.value).ok().and_then(|text| text.parse::<u64>().ok());
        let value = value.ok_or(Malformed)?;
        if length.is_some_and(|other| other != value) {
            return Err(Malformed);
        }
        length = Some(value);
    }
    Ok(length)
}

/// True when the last coding applied is `chunked`.
fn ends_chunked(headers: &[Header<'_>]) -> bool {
    values(headers, "transfer-encoding")
        .last()
        .and_then(|value| value.rsplit(',').next())
        .is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}
