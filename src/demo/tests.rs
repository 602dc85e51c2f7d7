//! The demo's worker as sidetrack and a browser see it: a channel, and clients on plain sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidetrack_worker::{Listener, wire};
use tokio::sync::oneshot;

use super::worker::serve_on;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A worker on a thread of its own, and sidetrack's end of its channel.
struct Fixture {
    channel: UnixStream,
    said: String,
    clients: TcpListener,
    stop: Option<oneshot::Sender<()>>,
    worker: JoinHandle<anyhow::Result<()>>,
}

impl Fixture {
    fn new() -> Self {
        let (channel, there) = UnixStream::pair().unwrap();
        channel.set_nonblocking(true).unwrap();
        let (stop, asked) = oneshot::channel();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let asked = async {
                    // A fixture without a say never asks.
                    if asked.await.is_err() {
                        std::future::pending().await
                    }
                };
                serve_on(Listener::new(there)?.leave_when(asked)).await
            })
        });
        let clients = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut fixture = Self { channel, said: String::new(), clients, stop: Some(stop), worker };
        fixture.hears(|line| line["type"] == "sidetrack:ready");
        fixture
    }

    /// A fresh connection, handed over with what the client sends already in it.
    fn connect(&self, request: &str) -> (TcpStream, SocketAddr) {
        let mut client = TcpStream::connect(self.clients.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let (accepted, addr) = self.clients.accept().unwrap();
        let line = wire::encode::CONNECTION;
        assert_eq!(wire::send(&self.channel, line, Some(accepted.as_fd())).unwrap(), line.len());
        (client, addr)
    }

    /// One request on a connection that ends with it.
    fn ask(&self, method: &str, target: &str, body: &str) -> (String, String) {
        let length = body.len();
        let (mut client, _) = self.connect(&format!(
            "{method} {target} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer ends with the connection");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn polling(&self, method: &str, sid: &str, body: &str) -> String {
        let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let (head, body) = self.ask(method, &target, body);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body
    }

    /// Opens a polling session; the announcement has to be there when the client learns the id.
    fn open(&mut self) -> String {
        let (_, body) = self.ask("GET", "/socket.io/?EIO=4&transport=polling", "");
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        self.listen();
        assert!(self.said.contains(&sid), "{}", self.said);
        self.hears(|line| line["type"] == "sidetrack:opened" && line["sid"] == *sid);
        sid
    }

    /// Polls until this packet comes; pings come when they like.
    fn poll(&self, sid: &str, prefix: &str) -> String {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let body = self.polling("GET", sid, "");
            if let Some(packet) = body.split('\x1e').find_map(|packet| packet.strip_prefix(prefix)) {
                return packet.to_owned();
            }
        }
        panic!("{prefix} never comes");
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = (&self.channel).read(&mut buffer) {
            self.said.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
        }
    }

    /// Waits until the worker has said this, and forgets all it said until then.
    fn hears(&mut self, this: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            self.listen();
            while let Some((line, rest)) = self.said.split_once('\n') {
                let heard = this(&serde_json::from_str(line).unwrap());
                self.said = rest.to_owned();
                if heard {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the worker never says it");
    }

    fn ended(self) {
        let (done, waiting) = mpsc::channel();
        std::thread::spawn(move || done.send(self.worker.join().unwrap()));
        waiting.recv_timeout(PATIENCE).expect("the worker ends").unwrap();
    }
}

#[test]
fn the_page_is_served() {
    let worker = Fixture::new();
    for (target, sign) in [
        ("/", "<title>sidetrack demo"),
        ("/demo.css", "#yard"),
        ("/demo.js", "import"),
        ("/engine.js", "export"),
    ] {
        let (head, body) = worker.ask("GET", target, "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains(sign), "{target}");
    }
}

#[test]
fn whoami_tells_worker_and_client() {
    let worker = Fixture::new();
    let (mut client, addr) =
        worker.connect("GET /whoami HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({ "pid": std::process::id(), "slot": "w?", "client": addr.to_string() }));
}

#[test]
fn a_polling_session_is_announced_answered_and_ended() {
    let mut worker = Fixture::new();
    let sid = worker.open();
    assert_eq!(worker.polling("POST", &sid, "40"), "ok");
    // The socket's id is the session's.
    assert_eq!(worker.poll(&sid, "40"), json!({ "sid": sid }).to_string());

    assert_eq!(worker.polling("POST", &sid, "427[\"who\"]"), "ok");
    let who: Value = serde_json::from_str(&worker.poll(&sid, "437")).unwrap();
    assert_eq!(who[0]["pid"], std::process::id());
    assert_eq!(who[0]["transport"], "polling");

    worker.polling("POST", &sid, "1");
    worker.hears(|line| line["type"] == "sidetrack:closed" && line["sid"] == *sid);
}

#[test]
fn a_session_that_never_connects_is_not_announced_for_ever() {
    let mut worker = Fixture::new();
    let sid = worker.open();
    worker.hears(|line| line["type"] == "sidetrack:closed" && line["sid"] == *sid);
}

#[test]
fn a_session_that_is_a_websocket_from_the_start_is_counted() {
    let mut worker = Fixture::new();
    let (mut client, _) = worker.connect(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    // "40" as a text frame, masked with zeros.
    client.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'4', b'0']).unwrap();
    worker.hears(|line| line["type"] == "sidetrack:opened");
    drop(client);
    worker.hears(|line| line["type"] == "sidetrack:closed");
}

#[test]
fn it_ends_when_asked_and_tells_its_clients() {
    let mut worker = Fixture::new();
    let sid = worker.open();
    worker.polling("POST", &sid, "40");
    worker.poll(&sid, "40");
    worker.stop.take().unwrap().send(()).unwrap();
    worker.hears(|line| line["act"] == "exitedAfterDisconnect");

    // Handed over before sidetrack knew: still served, whatever comes right behind it.
    let (mut late, _) = worker.connect("GET /whoami HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    let (mut polling, _) = worker.connect(&format!(
        "GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"
    ));
    wire::send(&worker.channel, &wire::encode::acknowledged(0, 1), None).unwrap();
    for client in [&mut late, &mut polling] {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    worker.ended();
}

#[test]
fn it_ends_when_sidetrack_says_so_or_is_gone() {
    let worker = Fixture::new();
    wire::send(&worker.channel, &wire::encode::disconnect(1), None).unwrap();
    worker.ended();

    let mut worker = Fixture::new();
    worker.channel = UnixStream::pair().unwrap().0;
    worker.ended();
}
