//! What a worker says to sidetrack.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A message from a worker: what Node's cluster module sends, what `@socket.io/sticky` and
/// `@socket.io/cluster-adapter` send, and sidetrack's own (`sidetrack:…`), which the shim and the
/// SDKs speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromWorker<'a> {
    /// The oldest unacknowledged descriptor has arrived. Nothing was read from it yet.
    HandleAck,
    /// The oldest unacknowledged descriptor was lost on the way.
    HandleNack,
    /// A descriptor comes from the worker, for whatever reason of its program. It waits for an
    /// acknowledgement.
    Handle,
    /// A connection comes back: its next request belongs to another worker. It waits for an
    /// acknowledgement.
    HandBack(HandBack<'a>),
    /// The process has started. It is not ready.
    Online,
    /// `listen()` was called: where shall it listen?
    Query(ServerQuery<'a>),
    /// A server is listening: connections for it may come.
    Listening(ServerQuery<'a>),
    /// A server has closed; its key as sidetrack gave it.
    ServerClosed { key: Cow<'a, str> },
    /// The answer to a connection sent to a listening server.
    Accepted { ack: u64, accepted: bool },
    /// The worker is about to leave and waits for an answer.
    Leaving { seq: u64 },
    /// The shim is loaded. `main` is the program's script.
    Hello { main: Cow<'a, str>, replays: bool },
    /// The program has begun to listen for messages.
    Listens,
    /// Connections may come as messages. `replays` says whether the worker knows of [`Luggage`].
    ///
    /// [`Luggage`]: super::Luggage
    Ready { replays: bool },
    /// The process is a tool that starts the real server and keeps the channel to itself.
    Wrapper { name: Cow<'a, str> },
    /// A session has begun. `ends` says whether its end will be announced too.
    SessionOpened { sid: Cow<'a, str>, ends: bool },
    /// A session has ended.
    SessionClosed { sid: Cow<'a, str> },
    /// Handed-off connections have closed.
    SocketsClosed { count: u64 },
    /// A message of `@socket.io/cluster-adapter` for other workers.
    Adapter(AdapterMessage<'a>),
    /// Valid, and nothing to us: a program's own message to its parent.
    Other,
}

/// A server in a worker, as its `listen()` call described it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerQuery<'a> {
    /// Number of the request, which the answer repeats.
    pub seq: u64,
    /// Host or Unix path; none means every address.
    pub address: Option<Cow<'a, str>>,
    /// 0 for any free port, negative for a Unix path.
    pub port: i64,
    /// `4`, `6`, `-1` (Unix), or `udp4`/`udp6`.
    pub address_type: Cow<'a, str>,
    /// A descriptor number the worker wants to listen on.
    pub fd: Option<i64>,
    /// Tells several servers with the same address apart.
    pub index: u64,
    /// What all workers' servers are to have in common, such as the keys of TLS tickets: each is told what the
    /// first one has brought.
    pub data: Value,
}

/// A connection that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandBack<'a> {
    /// What the worker has read from the misplaced request on, in base64.
    data: Cow<'a, str>,
    /// The server it was given the connection for; none when it came as a message.
    pub key: Option<Cow<'a, str>>,
    peer: Option<(IpAddr, u16)>,
}

impl HandBack<'_> {
    /// What the worker has read; none when the text is no base64.
    #[must_use]
    pub fn data(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.data.as_bytes()).ok()
    }

    /// The client, if the connection came with word of one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.map(SocketAddr::from)
    }
}

/// As much of a `@socket.io/cluster-adapter` message as relaying needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterMessage<'a> {
    /// The adapter instance that speaks.
    pub uid: Option<Cow<'a, str>>,
    /// For an answer: the adapter instance that asked.
    pub requester: Option<Cow<'a, str>>,
}

/// The message types of cluster-adapter 0.3 that answer one requester.
const ADAPTER_ANSWERS: [u64; 2] = [8, 10];

impl<'a> FromWorker<'a> {
    /// Reads one line.
    ///
    /// Valid JSON that is none of the messages above is [`FromWorker::Other`]: a program may send
    /// its parent what it likes.
    ///
    /// # Errors
    /// When the line is not JSON.
    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        // These come for every connection, always in these very bytes.
        if line == b"{\"cmd\":\"NODE_HANDLE_ACK\"}" {
            return Ok(Self::HandleAck);
        }
        if let Some(ack) = accepted(line) {
            return Ok(Self::Accepted { ack, accepted: true });
        }
        let text = line;
        let line: Line<'a> = match serde_json::from_slice(text) {
            Ok(line) => line,
            Err(_) => return serde_json::from_slice::<IgnoredAny>(text).map(|_| Self::Other),
        };
        Ok(match line.cmd.as_deref() {
            Some("NODE_CLUSTER") => line.cluster(text)?,
            Some("NODE_HANDLE_ACK") => Self::HandleAck,
            Some("NODE_HANDLE_NACK") => Self::HandleNack,
            Some("NODE_HANDLE") => line.handle(),
            Some(_) => Self::Other,
            None => line.message(),
        })
    }
}

/// The number in a listening server's yes, if the line is one as Node writes it.
fn accepted(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let tail = rest[digits..].strip_prefix(b",\"accepted\":true,\"seq\":")?.strip_suffix(b"}")?;
    let number = std::str::from_utf8(&rest[..digits]).ok()?;
    if tail.iter().all(u8::is_ascii_digit) { number.parse().ok() } else { None }
}

/// Every field of every message, all optional: one pass over the line whatever it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow, default)]
    cmd: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    act: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(default)]
    accepted: Option<bool>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(borrow, default)]
    address_type: Option<Scalar<'a>>,
    #[serde(default)]
    fd: Option<i64>,
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Scalar<'a>>,
    #[serde(borrow, default)]
    source: Option<Scalar<'a>>,
    #[serde(borrow, default)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(borrow, default)]
    sid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    main: Option<Cow<'a, str>>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    ends: Option<bool>,
    #[serde(default)]
    replays: Option<bool>,
    #[serde(borrow, default)]
    msg: Option<HandleMessage<'a>>,
}

/// What a server's workers share, whatever it is.
#[derive(Deserialize)]
struct Shared {
    #[serde(default)]
    data: Value,
}

/// What goes with a handle: ours, or whatever the program sends.
#[derive(Deserialize)]
#[serde(untagged)]
enum HandleMessage<'a> {
    Ours {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        data: Cow<'a, str>,
        #[serde(borrow, default)]
        key: Option<Cow<'a, str>>,
        #[serde(default)]
        peer: Option<(IpAddr, u16)>,
    },
    /// Node repeats a message whose descriptor was lost inside another one.
    Repeated {
        #[serde(rename = "cmd")]
        _cmd: Repeated,
        #[serde(borrow)]
        msg: Box<Self>,
    },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
enum Repeated {
    #[serde(rename = "NODE_HANDLE")]
    Handle,
}

/// A field that different senders give different types. Anything else is accepted and ignored.
///
/// They are tried in this order, and one that does not fit costs an error in words: so first comes what comes for
/// every connection.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Number(u64),
    Signed(i64),
    Other(IgnoredAny),
}

/// `data` is a session id in sticky's messages and an object in the adapter's.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Object(AdapterData),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdapterData {
    #[serde(default)]
    requester_uid: Option<String>,
}

impl<'a> Line<'a> {
    fn handle(self) -> FromWorker<'a> {
        let message = match self.msg {
            Some(HandleMessage::Repeated { msg, .. }) => Some(*msg),
            message => message,
        };
        match message {
            Some(HandleMessage::Ours { kind, data, key, peer }) if kind == "sidetrack:hand-back" => {
                FromWorker::HandBack(HandBack { data, key, peer })
            }
            _ => FromWorker::Handle,
        }
    }

    fn cluster(self, text: &[u8]) -> Result<FromWorker<'a>, serde_json::Error> {
        if let (Some(ack), Some(accepted)) = (self.ack, self.accepted) {
            return Ok(FromWorker::Accepted { ack, accepted });
        }
        Ok(match self.act.as_deref() {
            Some("online") => FromWorker::Online,
            Some("queryServer") => {
                let Shared { data } = serde_json::from_slice(text)?;
                FromWorker::Query(ServerQuery { data, ..self.query() })
            }
            Some("listening") => FromWorker::Listening(self.query()),
            Some("close") => self.key.map_or(FromWorker::Other, |key| FromWorker::ServerClosed { key }),
            Some("exitedAfterDisconnect") => FromWorker::Leaving { seq: self.seq.unwrap_or_default() },
            _ => FromWorker::Other,
        })
    }

    fn query(self) -> ServerQuery<'a> {
        ServerQuery {
            seq: self.seq.unwrap_or_default(),
            address: self.address,
            port: self.port.unwrap_or(-1),
            address_type: match self.address_type {
                Some(Scalar::Number(number)) => number.to_string().into(),
                Some(Scalar::Signed(number)) => number.to_string().into(),
                Some(Scalar::Text(text)) => text,
                Some(Scalar::Other(_)) | None => Cow::Borrowed(""),
            },
            fd: self.fd.filter(|&fd| fd >= 0),
            index: self.index.unwrap_or_default(),
            data: Value::Null,
        }
    }

    fn message(self) -> FromWorker<'a> {
        if matches!(&self.source, Some(Scalar::Text(source)) if source == "_sio_adapter") {
            return FromWorker::Adapter(self.adapter());
        }
        let kind = match &self.kind {
            Some(Scalar::Text(kind)) => kind.as_ref(),
            _ => return FromWorker::Other,
        };
        let message = match (kind, self.sid, self.data) {
            ("sticky:connection", _, Some(Data::Text(sid))) => {
                Some(FromWorker::SessionOpened { sid, ends: true })
            }
            ("sticky:disconnection", _, Some(Data::Text(sid))) => Some(FromWorker::SessionClosed { sid }),
            ("sidetrack:opened", Some(sid), _) => {
                Some(FromWorker::SessionOpened { sid, ends: self.ends.unwrap_or(true) })
            }
            ("sidetrack:closed", Some(sid), _) => Some(FromWorker::SessionClosed { sid }),
            ("sidetrack:sockets-closed", ..) => self.count.map(|count| FromWorker::SocketsClosed { count }),
            ("sidetrack:hello", ..) => Some(FromWorker::Hello {
                main: self.main.unwrap_or_default(),
                replays: self.replays.unwrap_or_default(),
            }),
            ("sidetrack:listens", ..) => Some(FromWorker::Listens),
            ("sidetrack:ready", ..) => Some(FromWorker::Ready { replays: self.replays.unwrap_or_default() }),
            ("sidetrack:wrapper", ..) => self.name.map(|name| FromWorker::Wrapper { name }),
            _ => None,
        };
        message.unwrap_or(FromWorker::Other)
    }

    fn adapter(self) -> AdapterMessage<'a> {
        let answers = matches!(self.kind, Some(Scalar::Number(kind)) if ADAPTER_ANSWERS.contains(&kind));
        let requester = match self.data {
            Some(Data::Object(data)) if answers => data.requester_uid.map(Cow::Owned),
            _ => None,
        };
        AdapterMessage { uid: self.uid, requester }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> FromWorker<'_> {
        FromWorker::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn reads_what_node_sends() {
        assert_eq!(parse(r#"{"cmd":"NODE_HANDLE_ACK"}"#), FromWorker::HandleAck);
        assert_eq!(parse(r#"{"cmd":"NODE_HANDLE_NACK"}"#), FromWorker::HandleNack);
        assert_eq!(parse(r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#), FromWorker::Online);
        assert_eq!(
            parse(r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}"#),
            FromWorker::Accepted { ack: 7, accepted: true }
        );
        for other in [
            r#"{"seq":3,"accepted":true,"ack":7,"cmd":"NODE_CLUSTER"}"#,
            r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":true}"#,
        ] {
            assert_eq!(parse(other), FromWorker::Accepted { ack: 7, accepted: true });
        }
        assert_eq!(
            parse(r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":false,"seq":3}"#),
            FromWorker::Accepted { ack: 7, accepted: false }
        );
        assert_eq!(
            parse(
                r#"{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":3000,"addressType":4,"flags":0,"index":0,"data":null,"seq":1}"#
            ),
            FromWorker::Query(ServerQuery {
                seq: 1,
                address: None,
                port: 3000,
                address_type: "4".into(),
                fd: None,
                index: 0,
                data: Value::Null,
            })
        );
        let tls = parse(
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","port":443,"data":{"ticketKeys":"00ff"},"seq":1}"#,
        );
        let FromWorker::Query(query) = tls else { panic!("no query") };
        assert_eq!(query.data, serde_json::json!({ "ticketKeys": "00ff" }));
        let unix = parse(
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","address":"/tmp/s","port":-1,"addressType":-1,"index":0,"seq":1}"#,
        );
        assert!(
            matches!(unix, FromWorker::Query(ServerQuery { port: -1, address_type, .. }) if address_type == "-1")
        );
    }

    #[test]
    fn reads_sessions_of_sticky_and_of_the_shim() {
        let opened = FromWorker::SessionOpened { sid: "abc".into(), ends: true };
        assert_eq!(parse(r#"{"type":"sticky:connection","data":"abc"}"#), opened);
        assert_eq!(parse(r#"{"type":"sidetrack:opened","sid":"abc"}"#), opened);
        let bundled = parse(r#"{"type":"sidetrack:opened","sid":"abc","ends":false}"#);
        assert_eq!(bundled, FromWorker::SessionOpened { sid: "abc".into(), ends: false });
        assert_eq!(
            parse(r#"{"type":"sticky:disconnection","data":"abc"}"#),
            FromWorker::SessionClosed { sid: "abc".into() }
        );
        assert_eq!(
            parse(r#"{"type":"sidetrack:sockets-closed","count":3}"#),
            FromWorker::SocketsClosed { count: 3 }
        );
    }

    #[test]
    fn tells_a_connection_that_comes_back_from_a_programs_own_handle() {
        let line = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"type":"sidetrack:hand-back","data":"R0VU","key":":3000:4:undefined:0"}}"#;
        let FromWorker::HandBack(back) = parse(line) else { panic!("no hand-back") };
        assert_eq!((back.data(), back.key.as_deref()), (Some(b"GET".to_vec()), Some(":3000:4:undefined:0")));
        let line =
            r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"type":"sidetrack:hand-back","data":"%"}}"#;
        let FromWorker::HandBack(back) = parse(line) else { panic!("no hand-back") };
        assert_eq!((back.data(), back.key), (None, None));
        let again = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{line}}}"#);
        assert_eq!(parse(&again), parse(line));
        for other in [r#""socket""#, "null", r#"{"type":"mine","data":"x"}"#, r#"{"type":5,"data":[]}"#] {
            let line = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{other}}}"#);
            assert_eq!(parse(&line), FromWorker::Handle, "{line}");
        }
    }

    #[test]
    fn reads_whom_an_adapter_message_concerns() {
        let broadcast = parse(
            r#"{"source":"_sio_adapter","uid":"u1","nsp":"/","type":3,"data":{"opts":{},"packet":{}}}"#,
        );
        assert_eq!(
            broadcast,
            FromWorker::Adapter(AdapterMessage { uid: Some("u1".into()), requester: None })
        );
        let answer = parse(
            r#"{"source":"_sio_adapter","uid":"u2","nsp":"/","type":8,"data":{"requestId":"r","requesterUid":"u1"}}"#,
        );
        assert_eq!(
            answer,
            FromWorker::Adapter(AdapterMessage { uid: Some("u2".into()), requester: Some("u1".into()) })
        );
    }

    #[test]
    fn a_programs_own_messages_are_no_concern_and_rubbish_is_an_error() {
        assert_eq!(parse(r#"{"type":{"nested":1},"data":[1,2]}"#), FromWorker::Other);
        assert_eq!(parse(r#"{"type":"sticky:connection","data":5}"#), FromWorker::Other);
        assert_eq!(parse(r#""ready""#), FromWorker::Other);
        assert_eq!(parse(r#"{"seq":"not a number"}"#), FromWorker::Other);
        assert!(FromWorker::parse(b"not json").is_err());
        assert!(FromWorker::parse(b"{\"cmd\":").is_err());
    }
}
