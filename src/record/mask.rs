//! What a recording says of people: pseudonyms, unless it is to be full.
//!
//! A value is replaced by `~` and eleven letters of its keyed hash. The key is drawn for each recording
//! and kept nowhere: equal values stay equal within a recording, and nobody can try out guesses. What a
//! policy reads to find a worker stays: a value that is a worker's name, and a worker's name in front of
//! a session id.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::session::SessionKey;
use crate::types::{Head, Request};

/// Headers whose values say nothing of people.
const PLAIN_HEADERS: [&str; 4] = ["host", "upgrade", "content-type", "x-forwarded-proto"];
/// Headers that policies like to look at, under pseudonyms. All others are left out.
const MASKED_HEADERS: [&str; 6] =
    ["cookie", "authorization", "user-agent", "origin", "x-forwarded-for", "x-real-ip"];
/// Query parameters of Engine.IO that say nothing of people.
const PLAIN_QUERY: [&str; 3] = ["EIO", "transport", "b64"];

/// How much a recording says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Form {
    /// Everything as it was.
    Full,
    /// With pseudonyms but for what is to be kept.
    #[default]
    Hashed,
}

/// Something to keep as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    Query(String),
    Cookie(String),
    /// In lower case.
    Header(String),
    Session,
    Peer,
}

/// A text that names nothing to keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected query:NAME, cookie:NAME, header:NAME, session or peer, found \"{0}\"")]
pub struct KeepError(String);

impl FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Self, KeepError> {
        match text.split_once(':') {
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            None if text == "session" => Ok(Self::Session),
            None if text == "peer" => Ok(Self::Peer),
            _ => Err(KeepError(text.to_owned())),
        }
    }
}

/// Replaces what is to be replaced.
#[derive(Debug)]
pub struct Mask {
    form: Form,
    keep: Vec<Keep>,
    session_key: SessionKey,
    key: [u8; 32],
    /// Of all workers seen so far: one that has left is still meant by the ids that name it.
    names: BTreeSet<String>,
}

/// A request as a recording says it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Masked {
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub peer: Option<IpAddr>,
    pub session: Option<String>,
    /// What was replaced, and by what.
    replaced: Vec<(String, String)>,
}

impl Mask {
    /// One with a key of its own.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new(form: Form, keep: Vec<Keep>, session_key: SessionKey) -> io::Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self { form, keep, session_key, key, names: BTreeSet::new() })
    }

    /// One with the same pseudonyms for requests that carry their session elsewhere.
    #[must_use]
    pub fn with_session_key(&self, session_key: SessionKey) -> Self {
        let Self { form, keep, key, .. } = self;
        Self { form: form.clone(), keep: keep.clone(), session_key, key: *key, names: BTreeSet::new() }
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.form == Form::Full
    }

    /// A worker of that name exists.
    pub fn worker(&mut self, name: &str) {
        if !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
    }

    /// A request as it is to be told.
    #[must_use]
    pub fn request(&self, request: &Request) -> Masked {
        let Request { head, peer, session, .. } = request;
        let peer = peer.map(|peer| peer.ip().to_canonical());
        if self.is_full() {
            let headers = head.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let (target, headers) = (head.target().to_owned(), headers.collect());
            return Masked { target, headers, peer, session: session.clone(), replaced: vec![] };
        }
        let mut masked = Masked::default();
        masked.session = session.as_ref().map(|sid| masked.note(sid, self.sid(sid)));
        masked.peer = peer.map(|peer| {
            let shown = self.peer(peer);
            masked.note(&peer.to_string(), shown.to_string());
            shown
        });
        masked.target = self.target(head, &mut masked);
        masked.headers = head
            .headers()
            .filter_map(|(name, value)| {
                self.header(name, value, &mut masked).map(|value| (name.to_owned(), value))
            })
            .collect();
        masked
    }

    /// A session id as it is to be told.
    #[must_use]
    pub fn sid(&self, sid: &str) -> String {
        if self.is_full() || self.keep.contains(&Keep::Session) {
            return sid.to_owned();
        }
        let tagged = |name: &&String| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let next = sid.strip_prefix(name.as_str()).and_then(|rest| rest.chars().next());
            plain && next.is_some_and(|next| ".-_~".contains(next))
        };
        match self.names.iter().filter(tagged).max_by_key(|name| name.len()) {
            Some(name) => sid.chars().take(name.chars().count() + 1).chain(self.hash(sid).chars()).collect(),
            None => self.hash(sid),
        }
    }

    fn target(&self, head: &Head, masked: &mut Masked) -> String {
        let path = match self.session_key {
            SessionKey::Path(_) => {
                let session = masked.replaced.first().cloned();
                let segment = |segment: &str| match &session {
                    Some((sid, shown)) if decoded(segment) == *sid => shown.clone(),
                    _ => segment.to_owned(),
                };
                head.path().split('/').map(segment).collect::<Vec<_>>().join("/")
            }
            _ => head.path().to_owned(),
        };
        if head.query().is_empty() {
            return path;
        }
        let query: Vec<String> =
            head.query().split('&').map(|parameter| self.parameter(parameter, masked)).collect();
        format!("{path}?{}", query.join("&"))
    }

    fn parameter(&self, parameter: &str, masked: &mut Masked) -> String {
        let Some((name, value)) = parameter.split_once('=') else {
            // A name, or a value without one.
            return if parameter.is_empty() { String::new() } else { self.value(parameter, masked) };
        };
        let (known, plain) = (form_decoded(name), form_decoded(value));
        let session = matches!(&self.session_key, SessionKey::Query(key) if *key == known);
        let kept = PLAIN_QUERY.contains(&&*known) || self.keep.contains(&Keep::Query(known));
        let shown = if session {
            masked.note(&plain, self.sid(&plain))
        } else if kept || plain.is_empty() {
            plain.clone()
        } else {
            self.value(&plain, masked)
        };
        // What stays stays as it was sent: decoded it might be no target any more.
        format!("{name}={}", if shown == plain { value } else { &shown })
    }

    /// None when it is left out.
    fn header(&self, name: &str, value: &str, masked: &mut Masked) -> Option<String> {
        let name = name.to_ascii_lowercase();
        let session = matches!(&self.session_key, SessionKey::Header(key) if key.eq_ignore_ascii_case(&name));
        if session {
            return Some(masked.note(value, self.sid(value)));
        }
        let known = &&*name;
        if PLAIN_HEADERS.contains(known) || self.keep.contains(&Keep::Header(name.clone())) {
            return Some(value.to_owned());
        }
        if !MASKED_HEADERS.contains(known) {
            return None;
        }
        let list = |separator: char, each: &mut dyn FnMut(&str) -> String| {
            let items = value.split(separator).map(|item| each(item.trim()));
            items.collect::<Vec<_>>().join(&format!("{separator} "))
        };
        Some(match *known {
            "cookie" => list(';', &mut |item| self.cookie(item, masked)),
            "x-forwarded-for" | "x-real-ip" => list(',', &mut |item| match item.parse() {
                Ok(address) => masked.note(item, self.peer(address).to_string()),
                Err(_) => self.value(item, masked),
            }),
            _ => self.value(value, masked),
        })
    }

    fn cookie(&self, cookie: &str, masked: &mut Masked) -> String {
        let Some((name, value)) = cookie.split_once('=') else { return self.value(cookie, masked) };
        let session = matches!(&self.session_key, SessionKey::Cookie(key) if key == name);
        let value = if session {
            let plain = decoded(value);
            let shown = masked.note(&plain, self.sid(&plain));
            if shown == plain { value.to_owned() } else { shown }
        } else if value.is_empty() || self.keep.contains(&Keep::Cookie(name.to_owned())) {
            value.to_owned()
        } else {
            self.value(value, masked)
        };
        format!("{name}={value}")
    }

    fn value(&self, value: &str, masked: &mut Masked) -> String {
        if self.names.contains(value) { value.to_owned() } else { masked.note(value, self.hash(value)) }
    }

    /// Another address of the same family.
    fn peer(&self, peer: IpAddr) -> IpAddr {
        if self.keep.contains(&Keep::Peer) {
            return peer;
        }
        let digest = self.digest(peer.to_string().as_bytes());
        let take = |place: usize| digest.get(place).copied().unwrap_or_default();
        match peer {
            IpAddr::V4(_) => IpAddr::from(std::array::from_fn::<u8, 4, _>(take)),
            IpAddr::V6(_) => IpAddr::from(std::array::from_fn::<u8, 16, _>(take)),
        }
    }

    fn hash(&self, text: &str) -> String {
        let digest = self.digest(text.as_bytes());
        format!("~{}", URL_SAFE_NO_PAD.encode(&digest[..8]))
    }

    /// Only parts of it are ever shown, so a key in front is enough.
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(bytes).finalize().into()
    }
}

impl Masked {
    /// Remembers a replacement, for words of others.
    fn note(&mut self, value: &str, shown: String) -> String {
        if value != shown {
            self.replaced.push((value.to_owned(), shown.clone()));
        }
        shown
    }

    /// Words about the request, with what was replaced in it replaced here too.
    #[must_use]
    pub fn words(&self, text: &str) -> String {
        // A letter or two may stand for anything.
        const SHORTEST: usize = 3;
        let long = |(value, _): &&(String, String)| value.len() >= SHORTEST;
        self.replaced
            .iter()
            .filter(long)
            .fold(text.to_owned(), |text, (value, shown)| text.replace(value.as_str(), shown))
    }
}

/// As a server would read a path.
fn decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (bytes, mut plain) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2)));
        match code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(code) if byte == b'%' => {
                plain.push(code);
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// As a server would read a query.
fn form_decoded(text: &str) -> String {
    decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(form: Form, keep: &[&str], key: &str) -> Mask {
        let keep = keep.iter().map(|text| text.parse().unwrap()).collect();
        let mut mask = Mask::new(form, keep, key.parse().unwrap()).unwrap();
        mask.worker("w0");
        mask.worker("w2");
        mask
    }

    fn request(target: &str, headers: &[(&str, &str)], session: Option<&str>) -> Request {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let head = Head::compose("GET", target, &headers).unwrap();
        let peer = Some("[::ffff:192.0.2.7]:1".parse().unwrap());
        Request { head, peer, session: session.map(str::to_owned), attempt: 0 }
    }

    #[test]
    fn nothing_of_people_is_left_and_equal_values_stay_equal() {
        let mask = mask(Form::Hashed, &[], "query:sid");
        let headers = [
            ("Host", "example.org"),
            ("Cookie", "user=secret-1; server=w2"),
            ("Authorization", "Bearer secret-2"),
            ("X-Forwarded-For", "203.0.113.9, 2001:db8::1"),
            ("X-Secret", "secret-3"),
        ];
        let target = "/socket.io/?EIO=4&sid=secret-4&token=secret-5&secret-6&user=secret%2D1";
        let masked = mask.request(&request(target, &headers, Some("secret-4")));
        let text = format!("{:?} {:?} {:?}", masked.target, masked.headers, masked.peer);
        for secret in ["secret", "203.0.113.9", "2001:db8", "192.0.2.7"] {
            assert!(!text.contains(secret), "{secret} is left in {text}");
        }
        let session = masked.session.clone().unwrap();
        assert!(masked.target.starts_with(&format!("/socket.io/?EIO=4&sid={session}&token=~")), "{text}");
        assert_eq!(session.len(), 12);
        let [(_, host), (_, cookie), _, (_, forwarded)] = &masked.headers[..] else { panic!("{text}") };
        assert_eq!(host, "example.org");
        let (user, server) = cookie.split_once("; ").unwrap();
        assert_eq!(server, "server=w2", "a worker's name stays");
        assert!(masked.target.ends_with(user), "{text}");
        assert!(forwarded.split(", ").all(|address| address.parse::<IpAddr>().is_ok()), "{forwarded}");
        assert_eq!(mask.sid("secret-4"), session);
        assert_eq!(
            masked.words("session secret-4 of secret-1"),
            format!("session {session} of {}", &user[5..])
        );
    }

    #[test]
    fn another_recording_has_other_pseudonyms() {
        let masks = [(); 2].map(|()| mask(Form::Hashed, &[], "query:sid"));
        assert_ne!(masks[0].sid("abc"), masks[1].sid("abc"));
    }

    #[test]
    fn what_is_to_be_kept_is() {
        let keep = ["query:room", "cookie:user", "header:X-Tenant", "session", "peer"];
        let mask = mask(Form::Hashed, &keep, "query:sid");
        let headers = [("Cookie", "user=ann; other=x"), ("x-tenant", "blue")];
        let masked = mask.request(&request("/?room=a%20b&sid=s1", &headers, Some("s1")));
        assert_eq!(masked.target, "/?room=a%20b&sid=s1");
        assert!(masked.headers[0].1.starts_with("user=ann; other=~"));
        assert_eq!(masked.headers[1].1, "blue");
        assert_eq!(
            (masked.session.as_deref(), masked.peer),
            (Some("s1"), Some("192.0.2.7".parse().unwrap()))
        );
        for text in ["", "query:", "body", "session:x"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_worker_s_name_in_front_of_a_session_id_stays() {
        let mask = mask(Form::Hashed, &[], "query:sid");
        assert!(mask.sid("w2.abc").starts_with("w2.~"), "{}", mask.sid("w2.abc"));
        for sid in ["w2", "w20.abc", "w9.abc"] {
            assert!(mask.sid(sid).starts_with('~'), "{sid}");
        }
    }

    #[test]
    fn the_session_is_hidden_wherever_it_is() {
        for (key, target, header) in [
            ("cookie:io", "/", ("Cookie", "io=secret")),
            ("header:Mcp-Session-Id", "/", ("mcp-session-id", "secret")),
            ("path:2", "/echo/secret/x", ("Host", "a")),
            ("path:2", "/echo/s%65cret/x", ("Host", "a")),
        ] {
            let mask = mask(Form::Hashed, &[], key);
            let masked = mask.request(&request(target, &[header], Some("secret")));
            assert!(!masked.target.contains("cret"), "{}", masked.target);
            let text = format!("{} {:?}", masked.target, masked.headers);
            assert!(!text.contains("secret"), "{key}: {text}");
            assert!(text.contains(&mask.sid("secret")), "{key}: {text}");
        }
    }

    #[test]
    fn what_stays_stays_as_it_was_sent() {
        let mut mask = mask(Form::Hashed, &["session"], "query:sid");
        mask.worker("w 3");
        let target = "/?sid=a%26b+c&at=w%203&%=%&x=%zz";
        let masked = mask.request(&request(target, &[], Some("a&b c")));
        assert!(masked.target.starts_with("/?sid=a%26b+c&at=w%203&%=~"), "{}", masked.target);
        assert_eq!(masked.session.as_deref(), Some("a&b c"));
        assert!(Head::compose("GET", &masked.target, &[]).is_ok());
    }

    #[test]
    fn full_is_full() {
        let mask = mask(Form::Full, &[], "query:sid");
        let request = request("http://a/?sid=s&x=1", &[("X-Any", "thing")], Some("s"));
        let masked = mask.request(&request);
        assert_eq!(masked.target, "http://a/?sid=s&x=1");
        assert_eq!(masked.headers, [("X-Any".to_owned(), "thing".to_owned())]);
        assert_eq!((masked.session.as_deref(), masked.words("s")), (Some("s"), "s".to_owned()));
    }
}
