//! What a server may read from a connection, and when the connection is to be handed back.
//!
//! The gate stands between the socket and the server. It is shown what has arrived, still unread,
//! and lets through one message at a time, so that the head of the next request stays in the
//! kernel until it is known whose it is. It is shown what the server writes as well: a connection
//! is handed back only when every earlier request has been answered in full.
//!
//! No socket in here, and no clock.

use std::task::Waker;

use crate::framing::chunked::Chunked;
use crate::framing::request::{self, Head, Then};
use crate::framing::response::{Goes, Responses};
use crate::framing::{Body, Malformed};
use crate::session_key::Found;

/// Follows one connection.
#[derive(Debug)]
pub(crate) struct Gate {
    expected: Expected,
    responses: Responses,
    /// How many bytes may be read before the next look.
    granted: u64,
    /// The first request is answered here whoever owns its session.
    first_stays: bool,
    /// How much was there when a head was not complete.
    seen: usize,
    /// A reader that waits for responses to be finished.
    waiting: Option<Waker>,
}

/// What comes next from the client.
#[derive(Debug)]
enum Expected {
    Head,
    Chunks(Chunked, Then),
    /// Another protocol or another request, as the response under way says.
    Undecided,
}

/// Whose a request is.
pub(crate) trait Owners {
    /// True when a request is for another pool and can be taken there.
    fn is_elsewhere(&self, head: &Head<'_, '_>) -> bool;

    /// What a request says about its session.
    fn session(&self, head: &Head<'_, '_>) -> Found;

    /// True when a request of this session shall be answered here.
    fn serves(&self, sid: &str) -> bool;

    /// Sidetrack knows of no better worker for this session.
    fn stays(&self, sid: &str);
}

/// What to do with the bytes that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They do not tell yet.
    More,
    /// Read what is [`granted`](Gate::granted).
    Read,
    /// Read nothing until the responses under way are finished.
    Wait,
    /// The next request belongs to another worker. Nothing of it has been read.
    HandBack,
    /// Nothing that follows is any concern of the gate.
    Open,
}

impl Gate {
    pub(crate) fn new(first_stays: bool) -> Self {
        Self {
            expected: Expected::Head,
            responses: Responses::default(),
            granted: 0,
            first_stays,
            seen: 0,
            waiting: None,
        }
    }

    /// How many bytes may be read without another look.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// Notes that granted bytes have been read.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.granted = self.granted.saturating_sub(bytes as u64);
    }

    /// Looks at what comes next: everything that has arrived and is not read, from the first byte
    /// after what was granted. Not to be called while something is granted.
    pub(crate) fn look(&mut self, bytes: &[u8], owners: &impl Owners) -> Verdict {
        if bytes.is_empty() {
            return Verdict::More;
        }
        let verdict = match self.expected {
            Expected::Head => self.look_at_head(bytes, owners),
            Expected::Chunks(..) => self.look_at_chunks(bytes),
            Expected::Undecided => Ok(Verdict::Wait),
        };
        verdict.unwrap_or(Verdict::Open)
    }

    fn look_at_chunks(&mut self, bytes: &[u8]) -> Result<Verdict, Malformed> {
        if let Expected::Chunks(chunks, then) = &mut self.expected {
            self.granted = chunks.follow(bytes)? as u64;
            if chunks.has_ended() {
                self.expected = after(*then);
            }
        }
        Ok(Verdict::Read)
    }

    fn look_at_head(&mut self, bytes: &[u8], owners: &impl Owners) -> Result<Verdict, Malformed> {
        // A head ends with a line, and another protocol shows in control characters: without either
        // there is nothing to parse, however small the pieces are in which a hostile client sends.
        let fresh = bytes.get(self.seen..).unwrap_or(bytes);
        if self.seen > 0 && !fresh.iter().any(u8::is_ascii_control) {
            self.seen = bytes.len();
            return Ok(Verdict::More);
        }
        let mut storage = request::storage();
        let Some(head) = Head::parse(bytes, &mut storage)? else {
            self.seen = bytes.len();
            return Ok(Verdict::More);
        };
        self.seen = 0;
        let framing = head.framing()?;
        let elsewhere = !self.first_stays && owners.is_elsewhere(&head);
        let misplaced = match owners.session(&head) {
            _ if elsewhere => true,
            Found::Id(sid) if self.first_stays => {
                owners.stays(&sid);
                false
            }
            Found::Id(sid) => !owners.serves(&sid),
            Found::Nothing | Found::Ambiguous => false,
        };
        if misplaced {
            return Ok(if self.responses.outstanding() == 0 { Verdict::HandBack } else { Verdict::Wait });
        }
        self.first_stays = false;
        self.granted = head.length as u64;
        match framing.body {
            // No request on this connection follows it.
            _ if framing.then == Then::Nothing => return Ok(Verdict::Open),
            Body::Open => return Ok(Verdict::Open),
            Body::Length(length) => {
                self.granted = self.granted.saturating_add(length);
                self.expected = after(framing.then);
            }
            Body::Chunked => {
                let mut chunks = Chunked::new();
                self.granted += chunks.follow(&bytes[head.length..])? as u64;
                self.expected = if chunks.has_ended() {
                    after(framing.then)
                } else {
                    Expected::Chunks(chunks, framing.then)
                };
            }
        }
        self.responses.expect(framing.kind);
        Ok(Verdict::Read)
    }

    /// Remembers who is to be woken when responses have been finished.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        match &mut self.waiting {
            Some(waiting) => waiting.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Follows what the server has written. Afterwards the connection may be no concern of the
    /// gate any more.
    #[must_use]
    pub(crate) fn wrote(&mut self, bytes: &[u8]) -> Goes {
        let goes = self.responses.follow(bytes);
        if self.responses.outstanding() == 0 || goes == Goes::Elsewhere {
            if matches!(self.expected, Expected::Undecided) {
                self.expected = Expected::Head;
            }
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        goes
    }
}

fn after(then: Then) -> Expected {
    match then {
        Then::Undecided => Expected::Undecided,
        Then::Request | Then::Nothing => Expected::Head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_key::SessionKey;
    use std::cell::RefCell;

    /// Owns what begins with `own`.
    struct Own {
        key: SessionKey,
        kept: RefCell<Vec<String>>,
    }

    impl Own {
        fn new() -> Self {
            Self { key: "query:sid".parse().unwrap(), kept: RefCell::default() }
        }
    }

    impl Owners for Own {
        fn is_elsewhere(&self, head: &Head<'_, '_>) -> bool {
            use crate::session_key::Head as _;
            head.path().starts_with("/elsewhere")
        }

        fn session(&self, head: &Head<'_, '_>) -> Found {
            self.key.find(head)
        }

        fn serves(&self, sid: &str) -> bool {
            sid.starts_with("own")
        }

        fn stays(&self, sid: &str) {
            self.kept.borrow_mut().push(sid.to_owned());
        }
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn get(sid: &str) -> Vec<u8> {
        format!("GET /?sid={sid} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    }

    /// Reads all that is granted, as far as it has arrived.
    fn take(gate: &mut Gate, bytes: &mut &[u8]) -> usize {
        let taken = usize::try_from(gate.granted()).unwrap().min(bytes.len());
        gate.read(taken);
        *bytes = &bytes[taken..];
        taken
    }

    #[test]
    fn a_request_for_another_pool_goes_back_once_earlier_ones_are_answered() {
        let own = Own::new();
        let elsewhere = b"GET /elsewhere?sid=own1 HTTP/1.1\r\n\r\n";
        let mut first = Gate::new(true);
        assert_eq!(first.look(elsewhere, &own), Verdict::Read, "sidetrack has chosen this worker for it");
        let mut gate = Gate::new(false);
        let stream = [get("own1").as_slice(), elsewhere].concat();
        let mut rest = stream.as_slice();
        assert_eq!(gate.look(rest, &own), Verdict::Read);
        take(&mut gate, &mut rest);
        assert_eq!(gate.look(rest, &own), Verdict::Wait);
        assert_eq!(gate.wrote(OK), Goes::On);
        assert_eq!(gate.look(rest, &own), Verdict::HandBack);
    }

    #[test]
    fn one_request_at_a_time_is_let_through() {
        let own = Own::new();
        let mut gate = Gate::new(false);
        let stream = [get("own1"), get("own2"), get("other")].concat();
        let mut rest = stream.as_slice();
        for _ in 0..2 {
            assert_eq!(gate.look(rest, &own), Verdict::Read);
            assert_eq!(take(&mut gate, &mut rest), get("own1").len());
        }
        assert_eq!(gate.look(rest, &own), Verdict::Wait);
        assert_eq!(gate.wrote(OK), Goes::On);
        assert_eq!(gate.look(rest, &own), Verdict::Wait);
        assert_eq!(gate.wrote(OK), Goes::On);
        assert_eq!(gate.look(rest, &own), Verdict::HandBack);
        assert_eq!(rest, get("other"));
    }

    #[test]
    fn a_foreign_head_is_found_behind_every_kind_of_body_wherever_the_bytes_are_cut() {
        let requests = [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /?sid=own HTTP/1.1\r\nContent-Length: 28\r\n\r\nGET /?sid=other HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1c;x=y\r\nGET /?sid=other HTTP/1.1\r\n\r\n\r\n0\r\nTrailer: 1\r\n\r\n",
        ];
        let owned = requests.concat().len();
        let stream = [requests.concat().as_bytes(), &get("other")].concat();
        for step in 1..=stream.len() {
            let own = Own::new();
            let mut gate = Gate::new(false);
            let (mut read, mut arrived) = (0, 0);
            loop {
                let mut there = &stream[read..arrived];
                if gate.granted() > 0 {
                    read += take(&mut gate, &mut there);
                }
                if gate.granted() > 0 {
                    arrived = (arrived + step).min(stream.len());
                    continue;
                }
                match gate.look(there, &own) {
                    Verdict::Read => {}
                    Verdict::More => arrived = (arrived + step).min(stream.len()),
                    Verdict::Wait => assert_eq!(gate.wrote(OK), Goes::On),
                    verdict => {
                        assert_eq!(verdict, Verdict::HandBack);
                        break;
                    }
                }
            }
            assert_eq!(read, owned, "step {step}");
        }
    }

    #[test]
    fn only_the_first_request_stays() {
        let own = Own::new();
        let mut gate = Gate::new(true);
        let stream = [get("other"), get("other")].concat();
        let mut rest = stream.as_slice();
        assert_eq!(gate.look(rest, &own), Verdict::Read);
        take(&mut gate, &mut rest);
        assert_eq!(gate.wrote(OK), Goes::On);
        assert_eq!(gate.look(rest, &own), Verdict::HandBack);
        assert_eq!(*own.kept.borrow(), ["other"]);
    }

    #[test]
    fn an_id_that_is_not_certain_is_no_reason_to_hand_back() {
        let own = Own::new();
        for target in ["/", "/?sid=", "/?sid=a&sid=b", "/?sid=%ff"] {
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(Gate::new(false).look(request.as_bytes(), &own), Verdict::Read, "{target}");
        }
    }

    #[test]
    fn after_an_upgrade_everything_is_let_through_and_after_a_refusal_nothing_changes() {
        let own = Own::new();
        let upgrade = b"GET /?sid=own HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        for (answer, goes) in [
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Goes::Elsewhere),
            ("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", Goes::On),
        ] {
            let mut gate = Gate::new(false);
            assert_eq!(gate.look(upgrade, &own), Verdict::Read);
            gate.read(upgrade.len());
            // Frames, or another request: only the response tells.
            assert_eq!(gate.look(&get("other"), &own), Verdict::Wait);
            assert_eq!(gate.wrote(answer.as_bytes()), goes);
            if goes == Goes::On {
                assert_eq!(gate.look(&get("other"), &own), Verdict::HandBack);
            }
        }
    }

    #[test]
    fn what_can_be_followed_by_no_request_opens_the_gate() {
        let own = Own::new();
        for bytes in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(Gate::new(false).look(bytes.as_bytes(), &own), Verdict::Open, "{bytes:?}");
        }
        // Handed back all the same: its head was complete, and nothing of it read.
        let last = b"GET /?sid=other HTTP/1.1\r\nConnection: close\r\n\r\n";
        assert_eq!(Gate::new(false).look(last, &own), Verdict::HandBack);
    }

    /// What the gate says about a stream that comes in pieces: how much is let through, and why no
    /// more. Every request is answered at once.
    fn verdict_on(stream: &[u8], mut piece: impl FnMut() -> usize) -> (usize, Verdict) {
        let own = Own::new();
        let mut gate = Gate::new(false);
        let (mut read, mut arrived) = (0, 0);
        loop {
            let mut there = &stream[read..arrived];
            read += take(&mut gate, &mut there);
            let verdict = if gate.granted() > 0 { Verdict::More } else { gate.look(there, &own) };
            match verdict {
                Verdict::Read => {}
                Verdict::More if arrived == stream.len() => return (read, Verdict::More),
                Verdict::More => arrived = stream.len().min(arrived + piece()),
                Verdict::Wait => drop(gate.wrote(OK)),
                Verdict::HandBack | Verdict::Open => return (read, verdict),
            }
        }
    }

    #[test]
    fn what_is_let_through_does_not_depend_on_how_the_bytes_come() {
        let parts: [&[u8]; 8] = [
            b"GET /?sid=own HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HEAD / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 13\r\n\r\nGET /?sid=x\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1a;x\r\nGET /?sid=y HTTP/1.1\r\n\r\n\r\n0\r\nT: 1\r\n\r\n",
            b"\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET /?sid=other HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        ];
        let mut ends = std::collections::HashSet::new();
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut stream: Vec<u8> =
                (0..random.usize(1..6)).flat_map(|_| parts[random.usize(..parts.len())]).copied().collect();
            // Two in three are damaged.
            for _ in 0..random.usize(..3) {
                let place = random.usize(..stream.len());
                match random.u8(..3) {
                    0 => stream[place] = random.u8(..),
                    1 => drop(stream.remove(place)),
                    _ => stream.insert(place, b"\r\n;: 0"[random.usize(..6)]),
                }
            }
            // A fault may show at once or only at the end of its line; the server sees it then.
            let whole = verdict_on(&stream, || usize::MAX / 2);
            let single = verdict_on(&stream, || 1);
            let pieces = verdict_on(&stream, || random.usize(1..20));
            if [whole.1, single.1, pieces.1].contains(&Verdict::Open) {
                for verdict in [whole.1, single.1, pieces.1] {
                    assert_ne!(verdict, Verdict::HandBack, "seed {seed}: {}", stream.escape_ascii());
                }
            } else {
                assert_eq!((whole, whole), (single, pieces), "seed {seed}: {}", stream.escape_ascii());
            }
            ends.insert(format!("{:?}", whole.1));
        }
        assert_eq!(ends.len(), 3, "{ends:?}");
    }
}
