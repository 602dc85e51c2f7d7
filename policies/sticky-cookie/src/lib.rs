//! Sticky cookie: a client that says where it was comes back there.
//!
//! Sessions stick by themselves once they exist; this is for the first request of a new one. Options:
//!
//! - `cookie`, such as `{"cookie": "server"}`: the cookie to look at, by default `sidetrack`; or
//! - `header`, such as `{"header": "X-Server"}`: a header instead;
//! - `value`: `"name"`, the default, or `"hash"`.
//!
//! With `name` the value is a worker's name, that of its slot, such as `w2`, which the application
//! sets. That worker gets the connection, also when it is draining or weighs 0, since the client is one
//! that it already has. With `hash` the value is anything, such as a user's id, and belongs to one
//! worker by rendezvous hashing; see [`policy_common::Rendezvous`] and
//! [`policy_common::Eligible`].
//!
//! A request without a value, or with the name of no worker, is somebody else's to decide. Clients can
//! send what they like: this is for locality, not for access control. Nothing is remembered between
//! calls.

use policy_common::{Key, Options, Rendezvous, Value, cookie};
use sidetrack_policy::{Decision, Policy, Worker, WorkerId, export, request};

/// See the crate's documentation.
#[derive(Debug)]
pub struct StickyCookie {
    place: Place,
    by: By,
}

/// Where the value is.
#[derive(Debug)]
enum Place {
    Cookie(String),
    Header(String),
}

/// What the value says.
#[derive(Debug)]
enum By {
    /// Names and their workers.
    Name(Vec<(String, WorkerId)>),
    Hash(Key, Rendezvous),
}

impl Default for StickyCookie {
    fn default() -> Self {
        Self { place: Place::Cookie("sidetrack".to_owned()), by: By::Name(Vec::new()) }
    }
}

impl Place {
    fn value(&self) -> Option<String> {
        match self {
            Self::Cookie(name) => cookie(name),
            Self::Header(name) => request::header(name),
        }
    }

    fn key(&self) -> Key {
        match self {
            Self::Cookie(name) => Key::Cookie(name.clone()),
            Self::Header(name) => Key::Header(name.clone()),
        }
    }
}

impl Policy for StickyCookie {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let options = Options::parse(json, &["cookie", "header", "value"])?;
        let name = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let cookie = options.optional("cookie", "a cookie's name", name)?;
        let header = options.optional("header", "a header's name", name)?;
        let hash = options.optional("value", r#""name" or "hash""#, |value| match value.as_str()? {
            "name" => Some(false),
            "hash" => Some(true),
            _ => None,
        })?;
        match (cookie, header) {
            (Some(_), Some(header)) => {
                return Err(format!("header: expected none beside a cookie, found {header:?}"));
            }
            (Some(cookie), None) => self.place = Place::Cookie(cookie),
            (None, Some(header)) => self.place = Place::Header(header),
            (None, None) => {}
        }
        if hash == Some(true) {
            self.by = By::Hash(self.place.key(), Rendezvous::default());
        }
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        match &mut self.by {
            By::Name(names) => {
                names.clear();
                names.extend(workers.iter().map(|worker| (worker.name.clone(), worker.id)));
            }
            By::Hash(_, rendezvous) => *rendezvous = Rendezvous::new(workers),
        }
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        let worker = match &self.by {
            By::Name(names) => self
                .place
                .value()
                .and_then(|value| names.iter().find(|(name, _)| *name == value))
                .map(|&(_, id)| id),
            By::Hash(key, rendezvous) => key.hash().and_then(|key| rendezvous.pick(key)),
        };
        worker.map_or(Decision::Defer, Decision::Worker)
    }
}

export!(StickyCookie);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let complaint = |options| StickyCookie::default().configure(options).unwrap_err();
        for (options, expected) in [
            (r#"{"cookie": ""}"#, r#"cookie: expected a cookie's name, found """#),
            (r#"{"header": 1}"#, "header: expected a header's name, found 1"),
            (r#"{"value": "id"}"#, r#"value: expected "name" or "hash", found "id""#),
            (
                r#"{"cookie": "a", "header": "X-Server"}"#,
                r#"header: expected none beside a cookie, found "X-Server""#,
            ),
            (
                r#"{"cokie": "a"}"#,
                r#"cokie: no such option (its value is "a"): expected cookie, header, value"#,
            ),
        ] {
            assert_eq!(complaint(options), expected);
        }
    }
}
