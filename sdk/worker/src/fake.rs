//! Sidetrack's end of a channel, for tests.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::wire::{self, encode};
use crate::{Listener, Settings};

/// Longer than anything a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Fake {
    channel: UnixStream,
    read: Vec<u8>,
}

impl Fake {
    /// Both ends, within a runtime. No connection is handed back.
    pub(crate) fn with_listener() -> (Self, Listener) {
        Self::with_settings(Settings::default())
    }

    /// Both ends, of a worker that hands back what is not its own by this session key.
    #[cfg_attr(not(feature = "tower"), expect(dead_code, reason = "for tests of the layers"))]
    pub(crate) fn with_key(key: &str) -> (Self, Listener) {
        Self::with_settings(Settings { session_key: Some(key.parse().unwrap()), ..Settings::default() })
    }

    pub(crate) fn with_settings(settings: Settings) -> (Self, Listener) {
        let (here, there) = UnixStream::pair().unwrap();
        (Self::new(here), Listener::with_settings(there, settings).unwrap())
    }

    pub(crate) fn new(channel: UnixStream) -> Self {
        channel.set_nonblocking(true).unwrap();
        Self { channel, read: Vec::new() }
    }

    pub(crate) fn channel(&self) -> &UnixStream {
        &self.channel
    }

    pub(crate) fn hand_over(&self, connection: BorrowedFd<'_>) {
        self.send(encode::CONNECTION, Some(connection));
    }

    pub(crate) fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) {
        assert_eq!(wire::send(&self.channel, bytes, descriptor).unwrap(), bytes.len());
    }

    /// The lines that are there now.
    pub(crate) fn waiting(&mut self) -> Vec<String> {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = (&self.channel).read(&mut buffer) {
            self.read.extend_from_slice(&buffer[..bytes]);
        }
        let end = self.read.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1);
        let lines: Vec<u8> = self.read.drain(..end).collect();
        String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect()
    }

    /// The lines up to one with a descriptor, and that.
    pub(crate) async fn with_descriptor(&mut self) -> (Vec<String>, OwnedFd) {
        let arrival = async {
            let mut buffer = [0; 4096];
            let mut descriptor = None;
            while descriptor.is_none() || !self.read.ends_with(b"\n") {
                match wire::receive(&self.channel, &mut buffer) {
                    Ok(received) => {
                        self.read.extend_from_slice(&buffer[..received.bytes]);
                        descriptor = received.descriptors.into_iter().next().or(descriptor);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            descriptor.unwrap()
        };
        let descriptor = tokio::time::timeout(PATIENCE, arrival).await.expect("a descriptor comes in time");
        let lines = String::from_utf8(std::mem::take(&mut self.read)).unwrap();
        (lines.lines().map(str::to_owned).collect(), descriptor)
    }

    /// As many lines, however long they take.
    pub(crate) async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let complete = async {
            while lines.len() < count {
                lines.extend(self.waiting());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, complete).await.expect("the lines come in time");
        lines
    }
}

/// A client's end and an accepted end.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (accepted, addr) = listener.accept().unwrap();
    (client, accepted, addr)
}

/// Hands over a fresh TCP connection and returns the client's end.
pub(crate) fn connect(fake: &Fake) -> (TcpStream, SocketAddr) {
    let (client, accepted, addr) = tcp_pair();
    fake.hand_over(accepted.as_fd());
    (client, addr)
}
