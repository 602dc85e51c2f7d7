//! Messages as bytes, newline included.

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::Luggage;

/// A descriptor has arrived and is ours now. Sent before anything is read from it.
pub const HANDLE_ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";

/// A message announced a descriptor that did not arrive.
pub const HANDLE_NACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

/// Connections may come as messages from now on, with or without luggage.
pub const READY: &[u8] = b"{\"type\":\"sidetrack:ready\",\"replays\":true}\n";

/// This worker takes no more connections; the open ones it finishes. Node says it when
/// `worker.disconnect()` is called.
pub const LEAVING: &[u8] = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"exitedAfterDisconnect\",\"seq\":0}\n";

/// Carries a connection to a worker that takes sockets as messages. `data:""` is the one shape
/// that both major versions of `@socket.io/sticky` understand.
pub const CONNECTION: &[u8] =
    b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"type\":\"sticky:connection\",\"data\":\"\"}}\n";

/// Carries one end of a socket pair in place of a connection, to see whether the worker answers.
pub const PROBE: &[u8] = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"type\":\"sticky:connection\",\"data\":\"\",\"sidetrack\":\"probe\"}}\n";

/// As [`CONNECTION`], with luggage.
pub fn connection(out: &mut Vec<u8>, luggage: &Luggage) {
    out.extend_from_slice(
        b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"type\":\"sticky:connection\",\"data\":\"\"",
    );
    carry(out, luggage);
    out.extend_from_slice(b"}}\n");
}

/// Carries a connection to the worker's own listening server, as a cluster primary does.
pub fn new_connection(out: &mut Vec<u8>, key: &str, seq: u64, luggage: &Luggage) {
    out.extend_from_slice(b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":");
    // Neither can fail: the one writes a text, the other a number, and both into memory.
    let _ = serde_json::to_writer(&mut *out, key);
    let _ = write!(out, ",\"seq\":{seq}");
    carry(out, luggage);
    out.extend_from_slice(b"}}\n");
}

/// The `sidetrack` part of a hand-off; nothing for a connection without luggage.
fn carry(out: &mut Vec<u8>, luggage: &Luggage) {
    if luggage.is_empty() {
        return;
    }
    // Each part begins with a comma, and the first one's becomes the brace.
    out.extend_from_slice(b",\"sidetrack\":");
    let start = out.len();
    if !luggage.data.is_empty() {
        let data = BASE64.encode(&luggage.data);
        let _ = write!(out, ",\"data\":\"{data}\"");
    }
    if luggage.last_stop {
        out.extend_from_slice(b",\"final\":true");
    }
    if let Some(peer) = luggage.peer {
        let _ = write!(out, ",\"peer\":[\"{}\",{}]", peer.ip(), peer.port());
    }
    out[start] = b'{';
    out.push(b'}');
}

/// Where a worker's `listen()` is told it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketName {
    /// `family` is `IPv4` or `IPv6`.
    Tcp { address: String, family: &'static str, port: u16 },
    /// A Unix path has no socket name in Node.
    Unix,
}

/// Answers a worker's `listen()`: sidetrack listens, connections will come. `data` is what the first worker with
/// this server has brought.
#[must_use]
pub fn query_accepted(ack: u64, seq: u64, key: &str, name: &SocketName, data: &Value) -> Vec<u8> {
    let sockname = match name {
        SocketName::Tcp { address, family, port } => {
            json!({ "address": address, "family": family, "port": port })
        }
        SocketName::Unix => Value::Null,
    };
    line(
        &json!({ "cmd": "NODE_CLUSTER", "ack": ack, "errno": null, "key": key, "data": data, "sockname": sockname, "seq": seq }),
    )
}

/// Answers a worker's `listen()` with an error; `errno` is negative, as libuv counts.
#[must_use]
pub fn query_refused(ack: u64, seq: u64, key: &str, errno: i32) -> Vec<u8> {
    line(&json!({ "cmd": "NODE_CLUSTER", "ack": ack, "errno": errno, "key": key, "data": null, "seq": seq }))
}

/// Answers a request that only wants to be heard.
#[must_use]
pub fn acknowledged(ack: u64, seq: u64) -> Vec<u8> {
    line(&json!({ "cmd": "NODE_CLUSTER", "ack": ack, "seq": seq }))
}

/// Asks a worker to take no more connections, finish the open ones and exit.
#[must_use]
pub fn disconnect(seq: u64) -> Vec<u8> {
    line(&json!({ "cmd": "NODE_CLUSTER", "act": "disconnect", "seq": seq }))
}

/// Announces that this worker owns a session. Sent before the client can know its id.
#[must_use]
pub fn session_opened(sid: impl Display) -> Vec<u8> {
    line(&json!({ "type": "sidetrack:opened", "sid": sid.to_string() }))
}

/// Announces that this worker owns a session whose end it will not announce.
#[must_use]
pub fn fleeting_session_opened(sid: impl Display) -> Vec<u8> {
    line(&json!({ "type": "sidetrack:opened", "sid": sid.to_string(), "ends": false }))
}

/// Carries a connection back whose next request belongs to another worker. `data` is what was read
/// from that request's first byte on, `peer` what the connection's luggage said of it.
#[must_use]
pub fn hand_back(data: &[u8], peer: Option<SocketAddr>) -> Vec<u8> {
    let mut message = json!({ "type": "sidetrack:hand-back", "data": BASE64.encode(data) });
    if let Some(peer) = peer {
        message["peer"] = json!([peer.ip(), peer.port()]);
    }
    line(&json!({ "cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message }))
}

/// Announces that a session has ended.
#[must_use]
pub fn session_closed(sid: impl Display) -> Vec<u8> {
    line(&json!({ "type": "sidetrack:closed", "sid": sid.to_string() }))
}

/// Reports how many handed-off connections have closed since the last report.
#[must_use]
pub fn sockets_closed(count: u64) -> Vec<u8> {
    line(&json!({ "type": "sidetrack:sockets-closed", "count": count }))
}

fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FromWorker;

    fn sent(encode: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_hand_back_is_read_as_it_is_written() {
        let line = hand_back(b"GET", None);
        let Ok(FromWorker::HandBack(back)) = FromWorker::parse(line.trim_ascii_end()) else {
            panic!("no hand-back: {}", String::from_utf8_lossy(&line));
        };
        assert_eq!((back.data(), back.peer(), back.key), (Some(b"GET".to_vec()), None, None));
        let peer = Some("[2001:db8::1]:443".parse().unwrap());
        let line = hand_back(b"", peer);
        let Ok(FromWorker::HandBack(back)) = FromWorker::parse(line.trim_ascii_end()) else {
            panic!("no hand-back: {}", String::from_utf8_lossy(&line));
        };
        assert_eq!(back.peer(), peer);
        let opened = fleeting_session_opened("a\"b");
        let expected = FromWorker::SessionOpened { sid: "a\"b".into(), ends: false };
        assert_eq!(FromWorker::parse(opened.trim_ascii_end()).unwrap(), expected);
    }

    #[test]
    fn luggage_travels_in_a_part_of_its_own_and_only_when_there_is_some() {
        let bare = Luggage::default();
        assert_eq!(sent(|out| new_connection(out, "k", 3, &bare))["msg"]["sidetrack"], Value::Null);
        assert_eq!(sent(|out| connection(out, &bare)), serde_json::from_slice::<Value>(CONNECTION).unwrap());

        let peer = Some("192.0.2.1:56324".parse().unwrap());
        let full = Luggage { data: Box::from(*b"GET"), last_stop: true, peer };
        let whole = json!({ "data": "R0VU", "final": true, "peer": ["192.0.2.1", 56324] });
        assert_eq!(sent(|out| connection(out, &full))["msg"]["sidetrack"], whole);
        let message = sent(|out| new_connection(out, "a\"b", 3, &full));
        assert_eq!((&message["msg"]["sidetrack"], &message["msg"]["key"]), (&whole, &json!("a\"b")));

        let kept = Luggage { last_stop: true, ..Luggage::default() };
        assert_eq!(sent(|out| connection(out, &kept))["msg"]["sidetrack"], json!({ "final": true }));
        let moved = Luggage { data: Box::from(*b"GET"), ..Luggage::default() };
        assert_eq!(sent(|out| connection(out, &moved))["msg"]["sidetrack"], json!({ "data": "R0VU" }));
        let announced = Luggage { peer, ..Luggage::default() };
        let whole = json!({ "peer": ["192.0.2.1", 56324] });
        assert_eq!(sent(|out| new_connection(out, "k", 3, &announced))["msg"]["sidetrack"], whole);
    }
}
