//! Natively there is no sidetrack to ask, so each thread has a stand-in: silent, without a request,
//! random. [`scripted`] replaces it for a test.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use crate::WorkerId;
use crate::host::Level;
use crate::request::{hash_session, mix};

/// What [`request`](crate::request) and [`host`](crate::host) answer while a test runs, and what
/// they were told.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub method: String,
    pub path: String,
    /// Parameters and headers in order, decoded.
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub peer: Option<IpAddr>,
    pub session: Option<String>,
    pub is_upgrade: bool,
    pub attempt: u32,
    /// The session table.
    pub owners: HashMap<String, WorkerId>,
    /// Taken one by one by `random_u64`; afterwards a generator that starts at `seed` goes on.
    pub random: VecDeque<u64>,
    pub seed: u64,
    /// What `now` says, in nanoseconds.
    pub now: u64,
    /// What [`store`](crate::store) holds. It has no bounds here.
    pub stored: HashMap<String, Vec<u8>>,
    /// What the policy logged.
    pub logged: Vec<(Level, String)>,
    /// What the policy explained last.
    pub explained: Option<String>,
}

/// The stand-in of a thread.
struct Host {
    script: Option<Script>,
    /// The request of a running call, before the script's.
    request: Option<Script>,
    /// State of the SplitMix64 generator.
    seed: u64,
    started: Instant,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host {
        script: None,
        request: None,
        // The standard library's only source of randomness.
        seed: RandomState::new().hash_one(0),
        started: Instant::now(),
    });
}

/// Runs `body` on this thread with `script` for a host, and returns the script as `body` left it.
pub fn scripted<R>(script: Script, body: impl FnOnce() -> R) -> (R, Script) {
    /// Puts the outer script back also when `body` panics.
    struct Restore(Option<Script>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.with_borrow_mut(|host| host.script = self.0.take());
        }
    }
    let outer = Restore(HOST.with_borrow_mut(|host| host.script.replace(script)));
    let result = body();
    let script = HOST.with_borrow_mut(|host| host.script.take()).unwrap_or_default();
    drop(outer);
    (result, script)
}

/// Runs `body` on this thread with a request to look at: that part of `request` which describes one.
/// Randomness, the clock and the rest stay as they are.
pub fn with_request<R>(request: Script, body: impl FnOnce() -> R) -> R {
    /// Takes the request away also when `body` panics.
    struct Restore(Option<Script>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.with_borrow_mut(|host| host.request = self.0.take());
        }
    }
    let _outer = Restore(HOST.with_borrow_mut(|host| host.request.replace(request)));
    body()
}

/// Asks about the request of the running call.
fn ask_request<R: Default>(question: impl FnOnce(&Script) -> R) -> R {
    HOST.with_borrow(|host| host.request.as_ref().or(host.script.as_ref()).map(question)).unwrap_or_default()
}

/// Asks the script, or answers with the default when there is none.
fn ask<R: Default>(question: impl FnOnce(&mut Script) -> R) -> R {
    HOST.with_borrow_mut(|host| host.script.as_mut().map(question)).unwrap_or_default()
}

fn first(pairs: &[(String, String)], same: impl Fn(&str) -> bool) -> Option<String> {
    pairs.iter().find(|(name, _)| same(name)).map(|(_, value)| value.clone())
}

pub(crate) fn method() -> String {
    ask_request(|script| script.method.clone())
}

pub(crate) fn path() -> String {
    ask_request(|script| script.path.clone())
}

pub(crate) fn query(name: &str) -> Option<String> {
    ask_request(|script| first(&script.query, |known| known == name))
}

pub(crate) fn header(name: &str) -> Option<String> {
    ask_request(|script| first(&script.headers, |known| known.eq_ignore_ascii_case(name)))
}

pub(crate) fn peer() -> Option<String> {
    ask_request(|script| script.peer.map(|peer| peer.to_string()))
}

pub(crate) fn session() -> Option<String> {
    ask_request(|script| script.session.clone())
}

pub(crate) fn session_hash() -> u64 {
    ask_request(|script| script.session.as_deref().map_or(0, hash_session))
}

pub(crate) fn is_upgrade() -> bool {
    ask_request(|script| script.is_upgrade)
}

pub(crate) fn attempt() -> u32 {
    ask_request(|script| script.attempt)
}

pub(crate) fn session_owner(sid: &str) -> Option<WorkerId> {
    ask(|script| script.owners.get(sid).copied())
}

pub(crate) fn random_u64() -> u64 {
    HOST.with_borrow_mut(|host| {
        let seed = match &mut host.script {
            Some(script) => match script.random.pop_front() {
                Some(value) => return value,
                None => &mut script.seed,
            },
            None => &mut host.seed,
        };
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*seed)
    })
}

pub(crate) fn now() -> u64 {
    HOST.with_borrow_mut(|host| match &host.script {
        Some(script) => script.now,
        None => u64::try_from(host.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
    })
}

pub(crate) fn log(level: Level, text: &str) {
    ask(|script| script.logged.push((level, text.to_owned())));
}

pub(crate) fn explain(text: &str) {
    ask(|script| script.explained = Some(text.to_owned()));
}

/// The stand-in of the store.
pub(crate) mod store {
    use super::ask;

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        ask(|script| script.stored.get(key).cloned())
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> bool {
        ask(|script| script.stored.insert(key.to_owned(), value.to_vec()));
        true
    }

    pub(crate) fn delete(key: &str) {
        ask(|script| script.stored.remove(key));
    }

    pub(crate) fn add(key: &str, number: i64) -> i64 {
        let old = get(key).and_then(|value| value.try_into().ok()).map_or(0, i64::from_le_bytes);
        let sum = old.wrapping_add(number);
        set(key, &sum.to_le_bytes());
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host, request, store};

    #[test]
    fn a_script_answers_and_remembers() {
        let script = Script {
            headers: vec![("Host".into(), "a".into())],
            session: Some("s".into()),
            owners: HashMap::from([("s".into(), 7)]),
            random: VecDeque::from([u64::MAX, 0]),
            ..Script::default()
        };
        let (picks, script) = scripted(script, || {
            host::log(Level::Info, "hello");
            host::explain("why");
            assert_eq!(request::header("host").as_deref(), Some("a"));
            assert_eq!(request::session_hash(), hash_session("s"));
            assert_eq!(host::session_owner("s"), Some(7));
            assert_eq!((store::add("count", 2), store::add("count", -5)), (2, -3));
            assert!(store::set("key", b"value"));
            store::delete("count");
            (host::random_below(10), host::random_below(10), host::random_u64())
        });
        assert_eq!((picks.0, picks.1), (9, 0));
        assert_eq!(script.logged, [(Level::Info, "hello".to_owned())]);
        assert_eq!(script.explained.as_deref(), Some("why"));
        assert_eq!(script.stored, HashMap::from([("key".to_owned(), b"value".to_vec())]));
        let (again, _) = scripted(Script::default(), host::random_u64);
        assert_eq!(picks.2, again, "the generator starts at the seed");
    }

    #[test]
    fn a_request_hides_the_script_s_and_nothing_else() {
        let script = Script { path: "/outer".into(), seed: 7, ..Script::default() };
        let ((during, after), _) = scripted(script, || {
            let request = Script { path: "/inner".into(), ..Script::default() };
            let during = with_request(request, || (request::path(), host::random_u64()));
            (during, request::path())
        });
        let (random, _) = scripted(Script { seed: 7, ..Script::default() }, host::random_u64);
        assert_eq!((during, after.as_str()), (("/inner".to_owned(), random), "/outer"));
    }

    #[test]
    fn without_a_script_nothing_is_known_and_numbers_differ() {
        assert_eq!((request::method(), request::peer(), request::session_hash()), (String::new(), None, 0));
        assert_ne!(host::random_u64(), host::random_u64());
        assert_eq!(host::random_below(0), 0);
    }
}
