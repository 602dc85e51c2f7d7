//! One client: a few connections, a few sessions, any request over any connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ledger::Ledger;
use crate::request::{self, Body, Sent};
use crate::support::{Client as Connection, Response};

const CONNECTIONS: usize = 3;
const SESSIONS: usize = 6;
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Node closes connections that are idle for 5 s.
const MOST_IDLE: Duration = Duration::from_secs(3);

/// Sessions are left alone for no longer: engine.io ends those that do not answer its pings.
const OLDEST: Duration = Duration::from_secs(15);

pub struct Client {
    address: SocketAddr,
    name: String,
    random: fastrand::Rng,
    ledger: Arc<Ledger>,
    connections: Vec<Option<Held>>,
    sessions: Vec<Session>,
    sequence: u64,
}

/// A connection and the worker that answered on it last.
struct Held {
    connection: Connection,
    holder: Option<u32>,
    used: Instant,
}

#[derive(Debug, Clone)]
struct Session {
    sid: String,
    owner: u32,
    /// Packets that engine.io waits for: answers to its pings.
    owed: usize,
    heard: Instant,
}

/// What a request must bring.
enum Wanted {
    /// Somebody's 200, whose session is new.
    Handshake,
    Anybody,
    /// The owner's 200.
    Owner(u32),
    Upload(u32, usize, String),
}

impl Client {
    pub fn new(address: SocketAddr, seed: u64, number: u64, ledger: Arc<Ledger>) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(number));
        let connections = (0..CONNECTIONS).map(|_| None).collect();
        let name = format!("client {number}");
        Self { address, name, random, ledger, connections, sessions: Vec::new(), sequence: 0 }
    }

    pub fn run(mut self) {
        let ledger = Arc::clone(&self.ledger);
        while ledger.next() {
            self.sequence += 1;
            self.sessions
                .retain(|session| !ledger.is_dead(session.owner) && session.heard.elapsed() < OLDEST);
            if self.sessions.len() < SESSIONS {
                self.open();
                continue;
            }
            match self.random.u32(0..100) {
                0..4 => self.open(),
                4..14 => self.anybody(),
                14..20 => self.probe(),
                20..32 => self.pipelined(),
                32..64 => self.upload(),
                _ => self.echo(),
            }
        }
    }

    fn open(&mut self) {
        if self.random.bool() {
            // On a new connection the policy chooses, and sessions get spread.
            let place = self.random.usize(..CONNECTIONS);
            self.connections[place] = None;
        }
        let request = request::cut(&mut self.random, request::get(POLLING));
        let Some(response) = self.ask("handshake", &request, &Wanted::Handshake) else { return };
        let text = response.text();
        let open: Value =
            serde_json::from_str(text.strip_prefix('0').unwrap_or_default()).unwrap_or_default();
        let (Some(sid), Some(owner)) = (open["sid"].as_str(), pid(&response)) else {
            return self.ledger.failed(format!("{}: a handshake says {text:?}", self.name));
        };
        let session = Session { sid: sid.to_owned(), owner, owed: 0, heard: Instant::now() };
        // Enters the namespace; the answer is fetched like any other.
        if self.packet(&session, "40").is_some() && self.poll(&session, "40{").is_some() {
            if self.sessions.len() >= SESSIONS {
                self.sessions.swap_remove(self.random.usize(..SESSIONS));
            }
            self.sessions.push(session);
        }
    }

    fn anybody(&mut self) {
        let request = request::cut(&mut self.random, request::get("/pid"));
        self.ask("no session", &request, &Wanted::Anybody);
    }

    /// A packet into the session, answered by one out of it.
    fn echo(&mut self) {
        let place = self.random.usize(..self.sessions.len());
        let session = self.sessions[place].clone();
        let length = if self.random.u8(..) < 8 { 300_000 } else { self.random.usize(0..3000) };
        let payload: String = (0..length).map(|_| self.random.alphanumeric()).collect();
        let number = self.sequence;
        let mut packets = vec!["3"; session.owed].join("\u{1e}");
        if !packets.is_empty() {
            packets.push('\u{1e}');
        }
        packets.push_str(&format!("42{number}[\"echo\",\"{payload}\"]"));
        if self.packet(&session, &packets).is_none() {
            return;
        }
        self.sessions[place].owed = 0;
        let wanted = format!("43{number}[\"{payload}\"]");
        if let Some(owed) = self.poll(&session, &wanted) {
            self.sessions[place].owed = owed;
            self.sessions[place].heard = Instant::now();
        }
    }

    fn packet(&mut self, session: &Session, packets: &str) -> Option<Response> {
        let target = format!("{POLLING}&sid={}", session.sid);
        let request = request::post(&target, packets.as_bytes());
        let request = request::cut(&mut self.random, request);
        self.ask("packet", &request, &Wanted::Owner(session.owner))
    }

    /// Polls until a packet that begins like this has come; how many pings came with it.
    fn poll(&mut self, session: &Session, wanted: &str) -> Option<usize> {
        let target = format!("{POLLING}&sid={}", session.sid);
        let mut pings = 0;
        for _ in 0..8 {
            let request = request::cut(&mut self.random, request::get(&target));
            let response = self.ask("poll", &request, &Wanted::Owner(session.owner))?;
            let text = response.text();
            pings += text.split('\u{1e}').filter(|packet| *packet == "2").count();
            if text.split('\u{1e}').any(|packet| packet.starts_with(wanted)) {
                return Some(pings);
            }
        }
        let begins: String = wanted.chars().take(20).collect();
        self.ledger.failed(format!("{}: session {} never says {begins}", self.name, session.sid));
        None
    }

    fn upload(&mut self) {
        let session = self.random.choice(&self.sessions).unwrap().clone();
        let Body { bytes, sha1 } = request::body(&mut self.random);
        let target = format!("/upload?sid={}", session.sid);
        let request = request::upload(&mut self.random, &target, &bytes);
        let request = request::cut(&mut self.random, request);
        self.ask("upload", &request, &Wanted::Upload(session.owner, bytes.len(), sha1));
    }

    /// Several requests of several sessions behind one another.
    fn pipelined(&mut self) {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for _ in 0..self.random.usize(2..5) {
            let session = self.random.choice(&self.sessions).unwrap().clone();
            if self.random.bool() {
                bytes.extend(request::get(&format!("/pid?sid={}", session.sid)));
                wanted.push(Wanted::Owner(session.owner));
            } else {
                let Body { bytes: body, sha1 } = request::body(&mut self.random);
                let target = format!("/upload?sid={}", session.sid);
                bytes.extend(request::upload(&mut self.random, &target, &body));
                wanted.push(Wanted::Upload(session.owner, body.len(), sha1));
            }
        }
        let request = request::cut(&mut self.random, bytes);
        self.exchange("pipelined", &request, &wanted);
    }

    /// A WebSocket for a session that polls, on a used connection. What becomes of a session whose
    /// upgrade is broken off is the server's affair: it is not used any more.
    fn probe(&mut self) {
        let session = self.sessions.swap_remove(self.random.usize(..self.sessions.len()));
        let place = self.random.usize(..CONNECTIONS);
        let start = Instant::now();
        let Some(mut held) = self.take(place, "probe", start) else { return };
        let head = format!(
            "GET /socket.io/?EIO=4&transport=websocket&sid={} HTTP/1.1\r\nHost: torture\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            session.sid
        );
        let probe = |connection: &mut Connection| {
            connection.try_send(head)?;
            let response = connection.try_response()?;
            if response.status != 101 {
                return Err(io::Error::other(format!("{response:?}")));
            }
            connection.send_frame("2probe");
            Ok((pid(&response), connection.try_frame()?))
        };
        match probe(&mut held.connection) {
            Ok((owner, frame)) if owner == Some(session.owner) && frame == "3probe" => {
                self.ledger.served("probe");
            }
            _ if self.excusable(&held, Some(session.owner), start) => self.ledger.excused("probe"),
            other => self.fail("probe", &held, Some(session.owner), &format!("{other:?}")),
        }
    }

    fn ask(&mut self, kind: &'static str, request: &Sent, wanted: &Wanted) -> Option<Response> {
        self.exchange(kind, request, std::slice::from_ref(wanted)).pop()
    }

    /// Sends, and checks each answer. All of them come back, or none.
    fn exchange(&mut self, kind: &'static str, request: &Sent, wanted: &[Wanted]) -> Vec<Response> {
        let place = self.random.usize(..CONNECTIONS);
        let start = Instant::now();
        let Some(mut held) = self.take(place, kind, start) else { return Vec::new() };
        let sending = self.send(&mut held.connection, request);
        let mut responses = Vec::new();
        for wanted in wanted {
            let owner = wanted.owner();
            // What could not be sent may have been answered all the same, and then closed.
            let outcome = held.connection.try_response();
            match outcome.map_err(|error| error.to_string()).and_then(|response| wanted.check(response)) {
                Ok(response) => {
                    held.holder = pid(&response).or(held.holder);
                    responses.push(response);
                }
                Err(_) if self.excusable(&held, owner, start) => {
                    self.ledger.excused(kind);
                    return Vec::new();
                }
                Err(problem) => {
                    let sending = sending.as_ref().err().map(|error| format!(" (sending: {error})"));
                    self.fail(kind, &held, owner, &format!("{problem}{}", sending.unwrap_or_default()));
                    return Vec::new();
                }
            }
        }
        self.ledger.served(kind);
        held.used = Instant::now();
        self.connections[place] = Some(held);
        responses
    }

    fn send(&mut self, connection: &mut Connection, request: &Sent) -> io::Result<()> {
        let mut start = 0;
        for &end in &request.cuts {
            connection.try_send(&request.bytes[start..end])?;
            start = end;
            if end < request.bytes.len() && self.random.bool() {
                // So that pieces arrive as pieces: there is no event for that.
                thread::sleep(Duration::from_micros(self.random.u64(..2000)));
            }
        }
        Ok(())
    }

    /// A connection whose worker lives.
    fn take(&mut self, place: usize, kind: &'static str, start: Instant) -> Option<Held> {
        let living = |held: &Held| {
            held.used.elapsed() < MOST_IDLE && held.holder.is_none_or(|pid| !self.ledger.is_dead(pid))
        };
        if let Some(held) = self.connections[place].take().filter(living) {
            return Some(held);
        }
        match Connection::try_connect(self.address) {
            Ok(connection) => Some(Held { connection, holder: None, used: Instant::now() }),
            Err(error) => {
                self.ledger.failed(format!(
                    "{}: {kind}: connecting after {:?}: {error}",
                    self.name,
                    start.elapsed()
                ));
                None
            }
        }
    }

    /// Its worker, or the one it was for, was killed. A request without a session may have been anybody's
    /// whom the policy has chosen for it. What two workers that live have to do with is never lost.
    fn excusable(&self, held: &Held, owner: Option<u32>, start: Instant) -> bool {
        let mut concerned = [held.holder, owner].into_iter().flatten();
        concerned.any(|pid| self.ledger.is_dead(pid)) || owner.is_none() && self.ledger.killed_since(start)
    }

    fn fail(&self, kind: &str, held: &Held, owner: Option<u32>, problem: &str) {
        let problem: String = problem.chars().take(300).collect();
        let Self { name, sequence, .. } = self;
        let text = format!(
            "{name}, request {sequence}, {kind}: on a connection of {:?} for {owner:?}: {problem}",
            held.holder
        );
        self.ledger.failed(text);
    }
}

impl Wanted {
    fn owner(&self) -> Option<u32> {
        match self {
            Self::Handshake | Self::Anybody => None,
            Self::Owner(owner) | Self::Upload(owner, ..) => Some(*owner),
        }
    }

    fn check(&self, response: Response) -> Result<Response, String> {
        if response.status != 200 {
            return Err(format!("status {}: {}", response.status, response.text()));
        }
        if let Some(owner) = self.owner()
            && pid(&response) != Some(owner)
        {
            return Err(format!("wrong route: {:?} answers", pid(&response)));
        }
        if let Self::Upload(_, length, sha1) = self {
            let got = response.json();
            if got["bytes"] != *length || got["sha1"] != **sha1 {
                return Err(format!("altered: {length} bytes sent, {got}"));
            }
        }
        Ok(response)
    }
}

/// The process that answered: in a header of Engine.IO's answers, in the body of all others.
fn pid(response: &Response) -> Option<u32> {
    if let Some(pid) = response.header("x-worker-pid") {
        return pid.parse().ok();
    }
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    body["pid"].as_u64()?.try_into().ok()
}
