//! What is fuzzed: functions that take any bytes whatever and hold what they are given to what must be
//! true of it. `fuzz/run` searches for bytes that break one, and `tests/fuzz.rs` gives them all that was
//! ever found.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use sidetrack::config::{self, Config};
use sidetrack::front::Preamble;
use sidetrack::types::{Head, Progress};
use sidetrack_worker::session_key::{Found, LONGEST, SessionKey};
use sidetrack_worker::wire::{Decoder, FromWorker, Luggage, ToWorker, encode};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 4] =
    [("head", head), ("frames", frames), ("config", config), ("preamble", preamble)];

/// A request head: what a client sends.
pub fn head(bytes: &[u8]) {
    let Ok(Progress::Complete(head)) = Head::parse(bytes) else { return };
    assert!(!head.method().is_empty() && !head.target().is_empty());
    assert!(head.target().contains(head.path()) && head.target().contains(head.query()));
    for (name, value) in head.headers() {
        assert!(head.header(name).any(|known| known == value));
    }
    let _ = head.is_upgrade();
    for key in ["query:sid", "cookie:io", "header:Mcp-Session-Id", "path:3"] {
        let key: SessionKey = key.parse().expect("a session key");
        if let Found::Id(id) = key.find(&head) {
            assert!(!id.is_empty() && id.len() <= LONGEST);
        }
    }
    // The body is no part of it, and a part of it is no head.
    let whole = [bytes, b"\r\n\r\nmore"].concat();
    assert_eq!(Head::parse(&whole), Ok(Progress::Complete(head)));
}

/// What comes over a channel, in pieces of any length: from a worker, and from sidetrack.
pub fn frames(bytes: &[u8]) {
    const LIMIT: usize = 4096;
    let Some((&first, stream)) = bytes.split_first() else { return };
    carried(stream, first);
    let mut decoder = Decoder::new(LIMIT);
    let mut lines = 0;
    'pieces: for piece in stream.chunks(usize::from(first) + 1) {
        decoder.push(piece, std::iter::empty::<OwnedFd>());
        loop {
            match decoder.next_line() {
                Ok(Some(line)) => {
                    assert!(line.len() <= LIMIT && !line.contains(&b'\n'));
                    lines += 1;
                    said(line);
                }
                Ok(None) => break,
                Err(_) => break 'pieces,
            }
        }
    }
    assert!(lines <= stream.iter().filter(|&&byte| byte == b'\n').count());
    assert!(decoder.take_descriptor().is_none());
}

fn said(line: &[u8]) {
    match FromWorker::parse(line) {
        Ok(FromWorker::HandBack(back)) => drop(back.data()),
        Ok(FromWorker::SessionOpened { sid, .. }) => {
            let again = encode::session_opened(&sid);
            let read = FromWorker::parse(again.trim_ascii_end());
            assert!(matches!(read, Ok(FromWorker::SessionOpened { sid: read, ends: true }) if read == sid));
        }
        _ => {}
    }
    drop(ToWorker::parse(line));
}

/// What a connection brings along arrives as it was sent.
fn carried(data: &[u8], bits: u8) {
    let octets = data.first_chunk::<16>();
    let peer = octets.map(|octets| SocketAddr::new(Ipv6Addr::from(*octets).into(), u16::from(bits)));
    let luggage = Luggage { data: data.into(), last_stop: bits & 1 != 0, peer };
    let mut line = Vec::new();
    encode::connection(&mut line, &luggage);
    assert!(line.ends_with(b"\n") && line.iter().filter(|&&byte| byte == b'\n').count() == 1);
    let read = ToWorker::parse(line.trim_ascii_end()).expect("a message");
    assert_eq!(read, ToWorker::Connection(luggage));
    let line = encode::hand_back(data, peer);
    match FromWorker::parse(line.trim_ascii_end()) {
        Ok(FromWorker::HandBack(back)) => {
            assert_eq!((back.data().as_deref(), back.peer()), (Some(data), peer));
        }
        other => panic!("no hand-back: {other:?}"),
    }
}

/// A configuration file: it makes a configuration, or problems that name their places.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let problems = match config::parse(text, "sidetrack.toml") {
        Ok(settings) => Config::new(&settings).err(),
        Err(problems) => Some(problems),
    };
    if let Some(problems) = problems {
        assert!(problems.to_string().contains(": "), "{problems}");
    }
}

/// A PROXY header: what a proxy in front sends.
pub fn preamble(bytes: &[u8]) {
    const LIMIT: usize = 1024;
    let Ok(Some(found)) = Preamble::parse(bytes, LIMIT) else {
        return;
    };
    assert!(found.length <= bytes.len().min(LIMIT));
    let own = &bytes[..found.length];
    assert_eq!(Preamble::parse(own, LIMIT), Ok(Some(found)), "what follows is no part of it");
    for length in 0..found.length {
        assert_eq!(Preamble::parse(&own[..length], LIMIT), Ok(None), "a part of it is no header");
    }
    if let Some(client) = found.client {
        assert_eq!(client.ip(), client.ip().to_canonical());
    }
}
