//! Workers that join a sidetrack that runs, and come back to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use sidetrack_worker::wire::{self, encode};
use sidetrack_worker::{ChannelError, Join, JoinError, Keepalive, Listener, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::host::PATIENCE;

const JOINED: &str =
    r#"{"type":"sidetrack:joined","slot":"w4","id":5,"session_key":"query:sid","keepalive":"hand-back"}"#;

const JOINED_AGAIN: &str = r#"{"type":"sidetrack:joined","slot":"w4","id":6,"session_key":"query:sid","keepalive":"hand-back","session_idle":120,"sid_tag":"w4"}"#;

/// The socket of a sidetrack that takes workers.
struct Door {
    socket: UnixListener,
    folder: tempfile::TempDir,
}

impl Door {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { socket: UnixListener::bind(folder.path().join("join")).unwrap(), folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("join")
    }

    /// Lets one worker in; returns its channel and what it asked for.
    fn let_in(self, answer: &'static str) -> std::thread::JoinHandle<(Self, BufReader<UnixStream>, String)> {
        std::thread::spawn(move || {
            let (mut channel, _) = self.socket.accept().unwrap();
            channel.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut reader = BufReader::new(channel.try_clone().unwrap());
            let mut asked = String::new();
            reader.read_line(&mut asked).unwrap();
            channel.write_all(format!("{answer}\n").as_bytes()).unwrap();
            (self, reader, asked)
        })
    }
}

fn hand_over(channel: &BufReader<UnixStream>) -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    wire::send(channel.get_ref(), encode::CONNECTION, Some(accepted.as_fd())).unwrap();
    client
}

/// The next line, while the worker goes on.
async fn next(channel: &mut BufReader<UnixStream>) -> String {
    let copy = channel.get_ref().try_clone().unwrap();
    copy.set_nonblocking(true).unwrap();
    let mut text = String::new();
    let reading = async {
        while !text.ends_with('\n') {
            match channel.read_line(&mut text) {
                Ok(0) => panic!("the worker has gone after {text:?}"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                read => drop(read.unwrap()),
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
    copy.set_nonblocking(false).unwrap();
    text.trim_end().to_owned()
}

fn line(channel: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    channel.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[tokio::test]
async fn a_worker_joins_serves_on_when_sidetrack_goes_and_comes_back() {
    let door = Door::new();
    let path = door.path();
    let door = door.let_in(JOINED);
    let mut listener = Join::new(&path).slot("w4").name("test").listen().await.unwrap();
    let (door, mut channel, asked) = door.join().unwrap();
    let pid = std::process::id();
    assert_eq!(
        asked,
        format!("{{\"type\":\"sidetrack:join\",\"slot\":\"w4\",\"pid\":{pid},\"name\":\"test\"}}\n")
    );
    let settings = listener.settings();
    assert_eq!(settings.slot.as_deref(), Some("w4"));
    assert_eq!(settings.session_key.unwrap().to_string(), "query:sid");

    let sessions = listener.sessions();
    let session = sessions.open("s").await;
    sessions.open_fleeting("f").await;
    let (drain, mut client) = (listener.drain(), hand_over(&channel));
    let (mut stream, _) = listener.accept().await.unwrap().unwrap();
    let opened =
        [r#"{"sid":"s","type":"sidetrack:opened"}"#, r#"{"ends":false,"sid":"f","type":"sidetrack:opened"}"#];
    const READY: &str = r#"{"type":"sidetrack:ready","replays":true}"#;
    const ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
    for expected in [opened[0], opened[1], READY, ACK] {
        assert_eq!(next(&mut channel).await, expected);
    }

    // Sidetrack goes. What is open is served, even what would be another worker's.
    drop(channel);
    assert_eq!(sessions.tagged("a"), "a");
    assert_eq!(listener.settings().session_idle, Settings::default().session_idle);
    let door = door.let_in(JOINED_AGAIN);
    let accepting = tokio::spawn(async move {
        let accepted = listener.accept().await.unwrap().unwrap();
        (listener, accepted)
    });
    let back = tokio::task::spawn_blocking(|| door.join().unwrap());
    let (_door, mut channel, asked) = back.await.unwrap();
    assert!(asked.contains(r#""slot":"w4""#));
    let (request, response) = (*b"GET /?sid=s HTTP/1.1\r\n\r\n", *b"HTTP/1.1 204 No Content\r\n\r\n");
    client.write_all(&request).unwrap();
    timeout(PATIENCE, stream.read_exact(&mut request.clone())).await.unwrap().unwrap();
    stream.write_all(&response).await.unwrap();
    client.read_exact(&mut response.clone()).unwrap();

    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(next(&mut channel).await);
    }
    assert_eq!(again.pop().unwrap(), READY);
    again.sort();
    let mut expected = opened.to_vec();
    expected.sort_unstable();
    assert_eq!(again, expected);
    assert_eq!(sessions.tagged("a"), "w4.a");

    // A stream that came over the old channel is no concern of the new one.
    drop(stream);
    let _client = hand_over(&channel);
    let (listener, (new, _)) = timeout(PATIENCE, accepting).await.unwrap().unwrap();
    assert_eq!(next(&mut channel).await, ACK);
    assert_eq!(listener.settings().session_idle, Duration::from_secs(120));
    drop(session);
    assert_eq!(next(&mut channel).await, r#"{"sid":"s","type":"sidetrack:closed"}"#);
    drop(new);
    drop(listener);
    timeout(PATIENCE, drain).await.unwrap();
    let rest = [next(&mut channel).await, next(&mut channel).await];
    assert!(rest.iter().any(|line| line.contains(r#""count":1"#)), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("exitedAfterDisconnect")), "{rest:?}");
}

#[tokio::test]
async fn a_sidetrack_that_stops_ends_neither_the_worker_nor_its_connections() {
    let door = Door::new();
    let path = door.path();
    let door = door.let_in(JOINED);
    let mut listener = Listener::join(&path).await.unwrap();
    let (drain, sessions) = (listener.drain(), listener.sessions());
    let (door, mut channel, _) = door.join().unwrap();
    let session = sessions.open("s").await;
    let mut client = hand_over(&channel);
    wire::send(channel.get_ref(), &encode::disconnect(1), None).unwrap();
    // What was on its way is taken, and acknowledged before the channel ends.
    let (mut stream, _) = listener.accept().await.unwrap().unwrap();
    let door = door.let_in(JOINED_AGAIN);
    let accepting = tokio::spawn(async move { listener.accept().await.unwrap().unwrap() });
    let old = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        channel.read_to_string(&mut said).unwrap();
        said
    });
    let said = timeout(PATIENCE, old).await.unwrap().unwrap();
    assert!(said.ends_with("{\"cmd\":\"NODE_HANDLE_ACK\"}\n"), "{said}");

    let back = tokio::task::spawn_blocking(|| door.join().unwrap());
    let (_door, mut channel, _) = back.await.unwrap();
    let again = [next(&mut channel).await, next(&mut channel).await];
    assert!(again.iter().any(|line| line.contains(r#""sid":"s""#)), "{again:?}");
    let mut request = *b"GET /?sid=s HTTP/1.1\r\n\r\n";
    client.write_all(&request).unwrap();
    timeout(PATIENCE, stream.read_exact(&mut request)).await.unwrap().unwrap();
    assert!(timeout(Duration::ZERO, drain).await.is_err(), "nothing tells the program to shut down");
    let _client = hand_over(&channel);
    timeout(PATIENCE, accepting).await.unwrap().unwrap();
    drop(session);
}

#[tokio::test]
async fn without_sidetrack_foreign_requests_are_served_and_a_worker_may_leave() {
    let door = Door::new();
    let path = door.path();
    let door = door.let_in(JOINED);
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let listener = Listener::join(&path).await.unwrap();
    let mut listener = listener.leave_when(async { left.await.unwrap_or_default() });
    let (door, channel, _) = door.join().unwrap();
    let mut client = hand_over(&channel);
    let (mut stream, _) = listener.accept().await.unwrap().unwrap();
    drop((channel, door));
    // Long enough to notice, and to fail to come back.
    let waiting = timeout(std::time::Duration::from_millis(300), listener.accept()).await;
    assert!(waiting.is_err());
    let mut request = *b"GET /?sid=foreign HTTP/1.1\r\n\r\n";
    client.write_all(&request).unwrap();
    timeout(PATIENCE, stream.read_exact(&mut request)).await.unwrap().unwrap();
    leave.send(()).unwrap();
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn what_goes_wrong_is_said() {
    let door = Door::new();
    let path = door.path();
    let answers = [
        (
            r#"{"type":"sidetrack:refused","reason":"slot w4 is taken"}"#,
            "refuses this worker: slot w4 is taken",
        ),
        ("HTTP/1.1 400 Bad Request", "does not answer as sidetrack does: HTTP/1.1 400"),
        (
            r#"{"type":"sidetrack:joined","slot":"w1","id":1,"session_key":"query:sid","keepalive":"sometimes"}"#,
            "SIDETRACK_KEEPALIVE=sometimes",
        ),
    ];
    let mut door = Some(door);
    for (answer, expected) in answers {
        let guard = door.take().unwrap().let_in(answer);
        let error = Join::new(&path).listen().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        door = Some(guard.join().unwrap().0);
    }
    drop(door);
    let error = Join::new(&path).listen().await.unwrap_err();
    assert!(matches!(error, ChannelError::Join(JoinError::Unreachable { .. })), "{error}");
}

#[test]
fn the_environment_may_name_the_door() {
    let door = Door::new();
    let path = door.path();
    let door = door.let_in(
        r#"{"type":"sidetrack:joined","slot":"w7","id":1,"session_key":"path:2","keepalive":"close","session_idle":"soon","sid_tag":"w7"}"#,
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "join::joins", "--ignored", "--nocapture"])
        .env_remove(wire::CHANNEL_FD)
        .env(wire::JOIN, path)
        .env(wire::SLOT, "w7")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, mut channel, asked) = door.join().unwrap();
    assert!(asked.contains(r#""slot":"w7""#), "{asked}");
    assert_eq!(line(&mut channel), r#"{"type":"sidetrack:ready","replays":true}"#);
}

#[tokio::test]
#[ignore = "runs inside the_environment_may_name_the_door"]
async fn joins() {
    let mut listener = Listener::from_env().unwrap();
    listener.ready();
    let settings = listener.settings();
    assert_eq!(settings.keepalive, Keepalive::Close);
    assert_eq!(settings.session_idle, Settings::default().session_idle);
    assert_eq!(listener.sessions().tagged("a"), "w7.a");
}
