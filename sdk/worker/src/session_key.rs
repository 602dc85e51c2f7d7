//! Where a request carries its session id.
//!
//! Sidetrack and its workers have to read the same id from the same request, so both use this
//! module. Ids are read as a server would read them: from the parsed head, percent-decoded, never
//! by scanning bytes.
//!
//! ```
//! use sidetrack_worker::session_key::{Found, Head, SessionKey};
//!
//! struct Request;
//!
//! impl Head for Request {
//!     fn path(&self) -> &str {
//!         "/socket.io/"
//!     }
//!     fn query(&self) -> &str {
//!         "EIO=4&sid=a%2Db"
//!     }
//!     fn header<'a>(&'a self, _name: &'a str) -> impl Iterator<Item = &'a str> {
//!         std::iter::empty()
//!     }
//! }
//!
//! let key: SessionKey = "query:sid".parse()?;
//! assert_eq!(key.find(&Request), Found::Id("a-b".to_owned()));
//! # Ok::<(), sidetrack_worker::session_key::KeyError>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// The longest session id in bytes. A longer one is treated as unknown.
pub const LONGEST: usize = 256;

/// The part of the request head that names the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionKey {
    /// A query parameter: Engine.IO's `sid`, SignalR's `id`.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// A header, as MCP's `Mcp-Session-Id`.
    Header(String),
    /// A segment of the path, counted from 1: 3 in SockJS's `/prefix/server/session/transport`.
    Path(usize),
}

/// What a request says about its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the request begins a session or needs none.
    Nothing,
    /// The session's id.
    Id(String),
    /// Different values, bytes that do not decode, or an id out of bounds. A server may read
    /// another one than we would, so we do not guess.
    Ambiguous,
}

/// A parsed request head, as far as session ids need it.
pub trait Head {
    /// The path of the target; see [`path_and_query`].
    fn path(&self) -> &str;

    /// The raw query without its question mark; empty when there is none.
    fn query(&self) -> &str;

    /// The authority of an absolute target; empty when there is none. See [`authority`].
    fn authority(&self) -> &str {
        ""
    }

    /// Every value of a header that is text, in order, names compared without case.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str>;
}

/// Why a session key setting is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected query:NAME, cookie:NAME, header:NAME or path:N (counted from 1), found \"{0}\"")]
pub struct KeyError(String);

impl SessionKey {
    /// Reads the id from a request head.
    #[must_use]
    pub fn find(&self, head: &impl Head) -> Found {
        match self {
            Self::Query(name) => one_of(parameter(head.query(), name)),
            Self::Cookie(name) => one_of(
                head.header("cookie")
                    .flat_map(cookie::Cookie::split_parse)
                    .filter_map(Result::ok)
                    .filter(|cookie| cookie.name() == name)
                    .map(|cookie| decoded(cookie.value()).into_owned().into()),
            ),
            Self::Header(name) => one_of(head.header(name).map(Cow::Borrowed)),
            Self::Path(number) => one_of(head.path().split('/').nth(*number).map(decoded).into_iter()),
        }
    }
}

impl SessionKey {
    /// True when clients make up the id, as in SockJS: the first request that names one begins the
    /// session.
    #[must_use]
    pub fn made_by_client(&self) -> bool {
        matches!(self, Self::Path(_))
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path(number) => write!(f, "path:{number}"),
        }
    }
}

impl FromStr for SessionKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let error = || KeyError(text.to_owned());
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(error)?;
        match kind {
            "query" => Ok(Self::Query(name.to_owned())),
            "cookie" => Ok(Self::Cookie(name.to_owned())),
            "header" => Ok(Self::Header(name.to_owned())),
            "path" => match name.parse() {
                Ok(number) if number > 0 => Ok(Self::Path(number)),
                _ => Err(error()),
            },
            _ => Err(error()),
        }
    }
}

/// The authority of an absolute request target, such as `example.com:80`; empty of any other.
#[must_use]
pub fn authority(target: &str) -> &str {
    behind_scheme(target).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default()
}

/// Cuts a request target as sent into its path and its raw query, both without scheme, authority
/// and fragment.
#[must_use]
pub fn path_and_query(target: &str) -> (&str, &str) {
    let origin = behind_scheme(target).map_or(target, |rest| match rest.find(['/', '?']) {
        Some(start) => &rest[start..],
        None => "",
    });
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    (path, query.split_once('#').map_or(query, |(query, _)| query))
}

/// What follows the scheme of an absolute request target; none for any other.
fn behind_scheme(target: &str) -> Option<&str> {
    // Nearly every target begins with its path, and is not searched.
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    (!scheme.contains(['/', '?'])).then_some(rest)
}

/// The values of a query's parameter, decoded. Of the others only those are decoded whose names may be its
/// own in disguise.
fn parameter<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    let may_be = move |pair: &&[u8]| {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        key == name.as_bytes() || key.iter().any(|byte| matches!(byte, b'%' | b'+'))
    };
    let pairs = query.as_bytes().split(|byte| *byte == b'&').filter(may_be);
    let decoded = pairs.flat_map(form_urlencoded::parse);
    decoded.filter(move |(key, _)| key == name).map(|(_, value)| value)
}

/// Text as a server reads it from a path or a cookie.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// The one value all of them agree on.
pub(crate) fn one_of<'a>(mut values: impl Iterator<Item = Cow<'a, str>>) -> Found {
    let Some(first) = values.next() else { return Found::Nothing };
    if values.any(|other| other != first)
        || first.len() > LONGEST
        || first.contains(char::REPLACEMENT_CHARACTER)
    {
        return Found::Ambiguous;
    }
    if first.is_empty() { Found::Nothing } else { Found::Id(first.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::request;

    fn find(key: &str, target: &str, headers: &str) -> Found {
        let bytes = format!("GET {target} HTTP/1.1\r\n{headers}\r\n");
        let mut storage = request::storage();
        let head = request::Head::parse(bytes.as_bytes(), &mut storage).unwrap().unwrap();
        key.parse::<SessionKey>().unwrap().find(&head)
    }

    fn id(id: &str) -> Found {
        Found::Id(id.to_owned())
    }

    #[test]
    fn the_query_is_parsed_not_scanned() {
        assert_eq!(find("query:sid", "/socket.io/?EIO=4&sid=abc", ""), id("abc"));
        assert_eq!(find("query:sid", "/?foo_sid=decoy&sid=abc", ""), id("abc"));
        assert_eq!(find("query:sid", "/?foo_sid=decoy", ""), Found::Nothing);
        assert_eq!(find("query:sid", "/sid=abc?x=sid%3Dabc", ""), Found::Nothing);
        assert_eq!(find("query:sid", "/?SID=abc", ""), Found::Nothing);
        assert_eq!(find("query:sid", "/?sid=", ""), Found::Nothing);
    }

    #[test]
    fn both_sides_are_decoded() {
        assert_eq!(find("query:sid", "/?%73id=a%2Db", ""), id("a-b"));
        assert_eq!(find("query:sid", "/?sid=a+b", ""), id("a b"));
        assert_eq!(find("query:sid", "/?sid=%zz", ""), id("%zz"));
    }

    #[test]
    fn doubt_is_not_guessed_away() {
        assert_eq!(find("query:sid", "/?sid=a&sid=b", ""), Found::Ambiguous);
        assert_eq!(find("query:sid", "/?sid=a&sid=a", ""), id("a"));
        assert_eq!(find("query:sid", "/?sid=%ff%fe", ""), Found::Ambiguous);
        assert_eq!(find("query:sid", &format!("/?sid={}", "x".repeat(257)), ""), Found::Ambiguous);
        assert_eq!(find("query:sid", &format!("/?sid={}", "x".repeat(256)), ""), id(&"x".repeat(256)));
    }

    #[test]
    fn the_other_kinds() {
        assert_eq!(find("cookie:io", "/", "Cookie: a=1; io=x%20y; b=2\r\n"), id("x y"));
        assert_eq!(find("cookie:io", "/", "Cookie: a=1\r\nCookie: io=2\r\n"), id("2"));
        assert_eq!(find("cookie:io", "/", "Cookie: xio=1\r\n"), Found::Nothing);
        assert_eq!(find("header:Mcp-Session-Id", "/", "mcp-session-id: q7\r\n"), id("q7"));
        assert_eq!(find("path:3", "/echo/000/s1/xhr", ""), id("s1"));
        assert_eq!(find("path:3", "http://host/echo/000/s1/xhr?x", ""), id("s1"));
        assert_eq!(find("path:3", "/echo", ""), Found::Nothing);
    }

    #[test]
    fn absolute_targets_lose_their_authority() {
        assert_eq!(path_and_query("http://host:80/p?sid=1#x"), ("/p", "sid=1"));
        assert_eq!(path_and_query("http://host"), ("", ""));
        assert_eq!(path_and_query("/p?next=http://x/?sid=2"), ("/p", "next=http://x/?sid=2"));
        assert_eq!(path_and_query("*"), ("*", ""));
    }

    #[test]
    fn settings_that_are_not_keys_say_what_would_be() {
        for wrong in ["sid", "query:", "path:0", "path:x", "body:sid"] {
            assert!(wrong.parse::<SessionKey>().unwrap_err().to_string().contains(wrong));
        }
        for right in ["query:sid", "cookie:io", "header:X", "path:2"] {
            assert_eq!(right.parse::<SessionKey>().unwrap().to_string(), right);
        }
    }
}
