//! Which requests are for which pool of workers: by host and path.
//!
//! Sidetrack and its workers have to come to the same answer for the same request, so both use this
//! module. A [`Match`] is written `HOST`, `/PATH` or `HOST/PATH`:
//!
//! ```
//! use sidetrack_worker::matches::{Match, Matches};
//!
//! let wild: Match = "*.Example.com/v1/".parse()?;
//! assert_eq!(wild.to_string(), "*.example.com/v1");
//!
//! // As a worker is told: its own begin with a plus, the most particular come first.
//! let matches: Matches = "-example.com/socket.io +example.com -".parse()?;
//! assert_eq!(matches.to_string(), "-example.com/socket.io +example.com -");
//! # Ok::<(), sidetrack_worker::matches::MatchError>(())
//! ```

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use crate::session_key::Head;

/// A host, a path, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Match {
    host: Host,
    /// Without the slash at its end: empty for every path.
    path: String,
}

/// In lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Any,
    /// With its leading dot: of `*.example.com`, what ends in it.
    Under(String),
    Exactly(String),
}

/// Why something is no match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a host, a path or both, such as \"api.example.com\", \"*.example.com/v1\" or \"/socket.io\", found \"{0}\""
)]
pub struct MatchError(String);

/// Where a request wants to go. Its host is looked for only if somebody asks.
#[derive(Debug)]
pub struct Wanted<'a, H> {
    head: &'a H,
    host: OnceCell<&'a str>,
}

impl<'a, H: Head> Wanted<'a, H> {
    /// By a request's head.
    pub fn of(head: &'a H) -> Self {
        Self { head, host: OnceCell::new() }
    }

    /// Without its port; empty when it names none. An absolute target counts before the header, as RFC 9112
    /// wants it.
    fn host(&self) -> &'a str {
        self.host.get_or_init(|| {
            let authority = self.head.authority();
            let header = || self.head.header("host").next().unwrap_or_default();
            without_port(if authority.is_empty() { header() } else { authority })
        })
    }
}

impl Match {
    /// What every request fits.
    #[must_use]
    pub fn any() -> Self {
        Self { host: Host::Any, path: String::new() }
    }

    /// Whether a request fits it.
    #[must_use]
    pub fn fits<H: Head>(&self, wanted: &Wanted<'_, H>) -> bool {
        let host = match &self.host {
            Host::Any => true,
            Host::Exactly(host) => wanted.host().eq_ignore_ascii_case(host),
            Host::Under(end) => {
                let host = wanted.host();
                let cut = host.len().checked_sub(end.len()).filter(|cut| *cut > 0);
                cut.and_then(|cut| host.get(cut..)).is_some_and(|rest| rest.eq_ignore_ascii_case(end))
            }
        };
        // A path ends where a segment does.
        let rest = || wanted.head.path().strip_prefix(self.path.as_str());
        host && (self.path.is_empty() || rest().is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// By this, the most particular comes first: one host, then the longest `*.` one, then any; and of the
    /// same host the longest path.
    #[must_use]
    pub fn rank(&self) -> impl Ord + use<> {
        let host = match &self.host {
            Host::Exactly(_) => (2, 0),
            Host::Under(end) => (1, end.len()),
            Host::Any => (0, 0),
        };
        Reverse((host, self.path.len()))
    }
}

impl FromStr for Match {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Self, MatchError> {
        let error = || MatchError(text.to_owned());
        let (host, path) = text.find('/').map_or((text, ""), |slash| text.split_at(slash));
        if text.is_empty() || !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
            return Err(error());
        }
        let sound = |host: &str| {
            let name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let address = literal.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
            (name && !host.is_empty() && !host.starts_with('.') && !host.contains("..")) || address
        };
        let lower = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let host = match lower.strip_prefix("*.") {
            _ if host.is_empty() => Host::Any,
            Some(rest) if sound(rest) && !rest.starts_with('[') => Host::Under(format!(".{rest}")),
            None if sound(&lower) => Host::Exactly(lower),
            _ => return Err(error()),
        };
        Ok(Self { host, path: path.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any if self.path.is_empty() => f.write_str("/"),
            Host::Any => f.write_str(&self.path),
            Host::Under(end) => write!(f, "*{end}{}", self.path),
            Host::Exactly(host) => write!(f, "{host}{}", self.path),
        }
    }
}

/// The matches of all pools as one of their workers sees them.
///
/// Of those that a request fits the first counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches(Vec<(Whose, Match)>);

/// Whose requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of the worker's own pool.
    Own,
    /// Of another pool, or nobody's.
    Others,
}

impl Matches {
    /// Of all pools, in the order in which they count. `rest` says whose everything else is.
    pub fn new(matches: impl IntoIterator<Item = (Whose, Match)>, rest: Whose) -> Self {
        Self(matches.into_iter().chain([(rest, Match::any())]).collect())
    }

    /// Whether a request is for the worker's own pool.
    #[must_use]
    pub fn is_own(&self, head: &impl Head) -> bool {
        let wanted = Wanted::of(head);
        self.0.iter().find(|(_, known)| known.fits(&wanted)).is_none_or(|(whose, _)| *whose == Whose::Own)
    }
}

impl FromStr for Matches {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Self, MatchError> {
        let one = |word: &str| match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(""), _) => Ok((Whose::Own, Match::any())),
            (_, Some("")) => Ok((Whose::Others, Match::any())),
            (Some(rest), _) => Ok((Whose::Own, rest.parse()?)),
            (_, Some(rest)) => Ok((Whose::Others, rest.parse()?)),
            _ => Err(MatchError(word.to_owned())),
        };
        text.split_ascii_whitespace().map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (whose, known)) in self.0.iter().enumerate() {
            let sign = if *whose == Whose::Own { "+" } else { "-" };
            let between = if place > 0 { " " } else { "" };
            if *known == Match::any() {
                write!(f, "{between}{sign}")?;
            } else {
                write!(f, "{between}{sign}{known}")?;
            }
        }
        Ok(())
    }
}

/// A host as it is compared: without user, port, and the dot of its root.
fn without_port(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).trim();
    let port = |(host, port): (&'_ str, &str)| {
        (port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')))
            .then_some(host.len())
    };
    let host = host.rsplit_once(':').and_then(port).and_then(|end| host.get(..end)).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::request;

    /// The same for every language.
    const CASES: &str = include_str!("../../../tests/matches.json");

    #[test]
    fn all_languages_agree() {
        let cases: serde_json::Value = serde_json::from_str(CASES).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let matches: Matches = case["matches"].as_str().unwrap().parse().unwrap();
            assert_eq!(matches.to_string(), case["matches"].as_str().unwrap());
            for (own, key) in [(true, "own"), (false, "others")] {
                for request in case[key].as_array().unwrap() {
                    let (target, host) = (request[0].as_str().unwrap(), request[1].as_str());
                    let host = host.map_or_else(String::new, |host| format!("Host: {host}\r\n"));
                    let bytes = format!("GET {target} HTTP/1.1\r\n{host}\r\n");
                    let mut storage = request::storage();
                    let head = request::Head::parse(bytes.as_bytes(), &mut storage).unwrap().unwrap();
                    assert_eq!(matches.is_own(&head), own, "{matches}: {request}");
                }
            }
        }
    }

    #[test]
    fn the_most_particular_comes_first() {
        let mut matches: Vec<Match> = [
            "/",
            "/a/b",
            "*.example.com",
            "*.b.example.com/x",
            "example.com",
            "example.com/a",
            "/a",
            "*.example.com/z/z",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        matches.sort_by_key(Match::rank);
        let order: Vec<String> = matches.iter().map(ToString::to_string).collect();
        assert_eq!(
            order,
            [
                "example.com/a",
                "example.com",
                "*.b.example.com/x",
                "*.example.com/z/z",
                "*.example.com",
                "/a/b",
                "/a",
                "/"
            ]
        );
    }

    #[test]
    fn what_is_no_match_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "exa mple.com",
            "a..b",
            ".a",
            "https://a",
            "a:80",
            "/a?b",
            "/ä",
            "[::1",
            "*.[::1]",
            "*.*.a",
        ] {
            assert!(text.parse::<Match>().is_err(), "{text}");
        }
        for (text, shown) in [
            ("EXAMPLE.com.", "example.com"),
            ("/", "/"),
            ("a/", "a"),
            ("/a/b//", "/a/b"),
            ("[::1]/x", "[::1]/x"),
        ] {
            assert_eq!(text.parse::<Match>().unwrap().to_string(), shown);
        }
        assert!("+a b".parse::<Matches>().is_err());
    }
}
