//! The part of a request that a decision is made by.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sidetrack_policy::request::{self, hash_session};

/// Where in a request the key is, written like sidetrack's own session key.
///
/// An empty value counts as none, so that clients without the key do not all meet at one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `query:NAME`: a query parameter.
    Query(String),
    /// `header:NAME`: a header.
    Header(String),
    /// `cookie:NAME`: a cookie.
    Cookie(String),
    /// `path:N`: a segment of the path, counted from 1.
    Segment(usize),
    /// `path`: the whole path as sent, without the query.
    Path,
    /// `session`: the session id, where the configuration says it is.
    Session,
}

impl Key {
    /// The grammar, for error messages.
    pub const EXPECTED: &str =
        "query:NAME, header:NAME, cookie:NAME, path:N (counted from 1), path or session";

    /// The key's hash in the request of the running call: the same on every machine. None when the
    /// request has no such key.
    #[must_use]
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Query(name) => hashed(&request::query(name)?),
            Self::Header(name) => hashed(&request::header(name)?),
            Self::Cookie(name) => hashed(&cookie(name)?),
            Self::Segment(number) => hashed(&decoded(request::path().split('/').nth(*number)?)),
            Self::Path => hashed(&request::path()),
            // Sidetrack has it already.
            Self::Session => Some(request::session_hash()).filter(|&hash| hash != 0),
        }
    }
}

impl FromStr for Key {
    /// The caller knows which option it is, and says [`Key::EXPECTED`].
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "path" => Ok(Self::Path),
            None if text == "session" => Ok(Self::Session),
            None | Some((_, "")) => Err(()),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            Some(("header", name)) => Ok(Self::Header(name.to_owned())),
            Some(("cookie", name)) => Ok(Self::Cookie(name.to_owned())),
            Some(("path", number)) => {
                number.parse().ok().filter(|&number| number > 0).map(Self::Segment).ok_or(())
            }
            Some(_) => Err(()),
        }
    }
}

/// The first cookie of that name in the request of the running call, percent-decoded.
#[must_use]
pub fn cookie(name: &str) -> Option<String> {
    let header = request::header("cookie")?;
    header
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(known, _)| known.trim() == name)
        .map(|(_, value)| decoded(value.trim()))
}

fn hashed(value: &str) -> Option<u64> {
    (!value.is_empty()).then(|| hash_session(value))
}

/// Text as a server reads it from a path or a cookie.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidetrack_policy::native::{Script, scripted};

    fn hash(key: &str) -> Option<u64> {
        let script = Script {
            path: "/chat/r%20m//".into(),
            query: vec![("room".into(), "blue".into()), ("none".into(), String::new())],
            headers: vec![
                ("Cookie".into(), "xuser=decoy; user = a%2Db ;flag; user=second; eq=x=y".into()),
                ("X-Tenant".into(), "acme".into()),
            ],
            session: Some("s-1".into()),
            ..Script::default()
        };
        let key: Key = key.parse().unwrap();
        scripted(script, || key.hash()).0
    }

    #[test]
    fn each_kind_of_key_is_found() {
        for (key, value) in [
            ("query:room", "blue"),
            ("header:x-tenant", "acme"),
            ("cookie:user", "a-b"),
            ("cookie:eq", "x=y"),
            ("path:1", "chat"),
            ("path:2", "r m"),
            ("path", "/chat/r%20m//"),
            ("session", "s-1"),
        ] {
            assert_eq!(hash(key), Some(hash_session(value)), "{key}");
        }
    }

    #[test]
    fn what_is_absent_or_empty_is_no_key() {
        for key in ["query:Room", "query:none", "header:x", "cookie:use", "cookie:flag", "path:3", "path:9"] {
            assert_eq!(hash(key), None, "{key}");
        }
        let bare = |key: Key| scripted(Script::default(), || key.hash()).0;
        assert_eq!((bare(Key::Session), bare(Key::Cookie("a".into()))), (None, None));
    }

    #[test]
    fn the_grammar_is_that_of_the_session_key_and_two_words() {
        for wrong in
            ["", "room", "query", "query:", "path:0", "path:x", "path:-1", "Path", "sessions", "ip:1"]
        {
            assert_eq!(wrong.parse::<Key>(), Err(()), "{wrong:?}");
        }
    }
}
