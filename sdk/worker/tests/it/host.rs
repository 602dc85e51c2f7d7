//! As much of sidetrack as connections need that travel between workers of one process.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::socket::{MsgFlags, recvmsg};
use serde_json::{Value, json};
use sidetrack_worker::session_key::{Found, Head, SessionKey, path_and_query};
use sidetrack_worker::wire::{self, Decoder, encode};
use sidetrack_worker::{Listener, Settings};
use tokio::net::TcpStream;

/// Longer than anything a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Cheap to clone.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    key: SessionKey,
    channels: Vec<UnixStream>,
    owners: Mutex<HashMap<String, usize>>,
    /// Lines of each worker that are not about sessions or acknowledgements.
    pub lines: Mutex<Vec<String>>,
    handed_back: AtomicUsize,
    acknowledged: AtomicUsize,
    turn: AtomicUsize,
}

impl Host {
    /// Sidetrack and the listeners of this many workers.
    pub fn with_workers(count: usize, key: &str) -> (Self, Vec<Listener>) {
        let key: SessionKey = key.parse().unwrap();
        let settings = Settings { session_key: Some(key.clone()), ..Settings::default() };
        let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
        let (channels, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let listeners = theirs
            .into_iter()
            .map(|there| Listener::with_settings(there, settings.clone()).unwrap())
            .collect();
        let shared = Shared {
            key,
            channels,
            owners: Mutex::default(),
            lines: Mutex::default(),
            handed_back: 0.into(),
            acknowledged: 0.into(),
            turn: 0.into(),
        };
        let host = Self { shared: Arc::new(shared) };
        for worker in 0..count {
            tokio::spawn(host.clone().attend(worker));
        }
        (host, listeners)
    }

    /// A client whose connection goes to this worker, whatever it will ask for.
    pub async fn client(&self, worker: usize) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_nonblocking(true).unwrap();
        self.send(worker, encode::CONNECTION, Some(&accepted.into())).await;
        TcpStream::from_std(client).unwrap()
    }

    pub async fn send(&self, worker: usize, line: &[u8], descriptor: Option<&OwnedFd>) {
        let mut rest = line;
        while !rest.is_empty() {
            let descriptor = descriptor.filter(|_| rest.len() == line.len()).map(AsFd::as_fd);
            match wire::send(&self.shared.channels[worker], rest, descriptor) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(error) => panic!("worker {worker} is gone: {error}"),
            }
        }
    }

    pub fn handed_back(&self) -> usize {
        self.shared.handed_back.load(Ordering::Relaxed)
    }

    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Lines that are not about sessions or acknowledgements.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// Waits until sidetrack has heard of a session.
    pub async fn knows(&self, sid: &str) {
        until(|| self.shared.owners.lock().unwrap().contains_key(sid)).await;
    }

    async fn attend(self, worker: usize) {
        let channel = self.shared.channels[worker].try_clone().unwrap();
        channel.set_nonblocking(true).unwrap();
        let channel = tokio::net::UnixStream::from_std(channel).unwrap();
        let (mut inbox, mut buffer) = (Decoder::new(16 << 20), [0; 4096]);
        loop {
            channel.readable().await.unwrap();
            let read = channel.try_io(tokio::io::Interest::READABLE, || wire::receive(&channel, &mut buffer));
            match read {
                Ok(received) if received.bytes == 0 => return,
                Ok(received) => inbox.push(&buffer[..received.bytes], received.descriptors),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            while let Some(line) = inbox.next_line().unwrap() {
                let line: Value = serde_json::from_slice(line).unwrap();
                let descriptor = (line["cmd"] == "NODE_HANDLE").then(|| inbox.take_descriptor().unwrap());
                self.hear(worker, &line, descriptor).await;
            }
        }
    }

    async fn hear(&self, worker: usize, line: &Value, descriptor: Option<OwnedFd>) {
        let sid = || line["sid"].as_str().unwrap().to_owned();
        if let Some(descriptor) = descriptor {
            assert_eq!(line["msg"]["type"], "sidetrack:hand-back");
            self.send(worker, encode::HANDLE_ACK, None).await;
            self.shared.handed_back.fetch_add(1, Ordering::Relaxed);
            let data = BASE64.decode(line["msg"]["data"].as_str().unwrap()).unwrap();
            return self.route(descriptor, data).await;
        }
        match line["type"].as_str() {
            Some("sidetrack:opened") => {
                self.shared.owners.lock().unwrap().entry(sid()).or_insert(worker);
            }
            Some("sidetrack:closed") => {
                self.shared.owners.lock().unwrap().remove(&sid());
            }
            _ if line["cmd"] == "NODE_HANDLE_ACK" => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.shared.lines.lock().unwrap().push(line.to_string()),
        }
    }

    /// To the owner of the next request's session, or to any worker for good.
    async fn route(&self, descriptor: OwnedFd, data: Vec<u8>) {
        let mut bytes = data.clone();
        bytes.extend(peek(&descriptor));
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(&bytes).unwrap().is_complete(), "handed back with an unfinished head");
        let Found::Id(sid) = self.shared.key.find(&Parsed(&request)) else {
            panic!("handed back without a session: {}", bytes.escape_ascii())
        };
        let owner = self.shared.owners.lock().unwrap().get(&sid).copied();
        let worker = owner
            .unwrap_or_else(|| self.shared.turn.fetch_add(1, Ordering::Relaxed) % self.shared.channels.len());
        self.send(worker, &with_luggage(&data, owner.is_none()), Some(&descriptor)).await;
    }
}

/// A hand-off of a connection of which something has been read.
pub fn with_luggage(data: &[u8], last: bool) -> Vec<u8> {
    // The reference is the documentation; the encoder used is the one under test only for base64.
    let line = encode::hand_back(data, None);
    let line: Value = serde_json::from_slice(&line).unwrap();
    let data = line["msg"]["data"].clone();
    let msg =
        json!({ "type": "sticky:connection", "data": "", "sidetrack": { "data": data, "final": last } });
    let mut line = json!({ "cmd": "NODE_HANDLE", "type": "net.Socket", "msg": msg }).to_string().into_bytes();
    line.push(b'\n');
    line
}

fn peek(descriptor: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let bytes = recvmsg::<()>(descriptor.as_raw_fd(), &mut parts, None, flags).map_or(0, |read| read.bytes);
    buffer.truncate(bytes);
    buffer
}

struct Parsed<'r, 'h, 'b>(&'r httparse::Request<'h, 'b>);

impl Head for Parsed<'_, '_, '_> {
    fn path(&self) -> &str {
        path_and_query(self.0.path.unwrap()).0
    }

    fn query(&self) -> &str {
        path_and_query(self.0.path.unwrap()).1
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let ours = self.0.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        ours.filter_map(|header| std::str::from_utf8(header.value).ok())
    }
}

/// Waits until something is so.
pub async fn until(so: impl Fn() -> bool) {
    let poll = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.expect("it happens in time");
}
