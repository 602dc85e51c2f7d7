//! What sidetrack says to a worker.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Luggage;

/// A message from sidetrack, as a worker that is not Node needs to tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker {
    /// A connection; its descriptor came along.
    Connection(Luggage),
    /// A socket of sidetrack's own, to see whether this worker answers; its descriptor came along.
    /// To be served like any connection, and not to be reported as closed.
    Probe,
    /// A connection with luggage that cannot be read; its descriptor came along. To be refused.
    Damaged,
    /// The oldest connection handed back has arrived.
    HandleAck,
    /// The oldest connection handed back was lost on the way.
    HandleNack,
    /// Stop taking connections, finish the open ones, then exit.
    Disconnect,
    /// The answer to [`encode::LEAVING`](super::encode::LEAVING): what was sent before it is all.
    Acknowledged,
    /// Anything else; safe to ignore.
    Other,
}

impl ToWorker {
    /// Reads one line.
    ///
    /// # Errors
    /// When the line is not a JSON object.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let line: Line<'_> = serde_json::from_slice(line)?;
        Ok(match (line.cmd.as_deref(), line.act.as_deref()) {
            (Some("NODE_HANDLE"), _) => match line.msg {
                Some(Message::Ours { sidetrack: Some(Part::Kind(kind)) }) if kind == "probe" => Self::Probe,
                Some(Message::Ours { sidetrack: Some(Part::Luggage { data, last_stop, peer }) }) => {
                    let peer = peer.map(SocketAddr::from);
                    BASE64.decode(data.as_bytes()).map_or(Self::Damaged, |data| {
                        Self::Connection(Luggage { data: data.into(), last_stop, peer })
                    })
                }
                Some(Message::Ours { .. } | Message::Other(_)) | None => Self::Connection(Luggage::default()),
            },
            (Some("NODE_HANDLE_ACK"), _) => Self::HandleAck,
            (Some("NODE_HANDLE_NACK"), _) => Self::HandleNack,
            (Some("NODE_CLUSTER"), Some("disconnect")) => Self::Disconnect,
            (Some("NODE_CLUSTER"), None) if line.ack.is_some() => Self::Acknowledged,
            _ => Self::Other,
        })
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    cmd: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    act: Option<Cow<'a, str>>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(borrow, default)]
    msg: Option<Message<'a>>,
}

/// A program may be sent anything; ours are objects.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message<'a> {
    Ours {
        #[serde(borrow, default)]
        sidetrack: Option<Part<'a>>,
    },
    Other(IgnoredAny),
}

/// What sidetrack adds to a program's message.
#[derive(Deserialize)]
#[serde(untagged)]
enum Part<'a> {
    Kind(#[serde(borrow)] Cow<'a, str>),
    Luggage {
        #[serde(borrow, default)]
        data: Cow<'a, str>,
        #[serde(rename = "final", default)]
        last_stop: bool,
        #[serde(default)]
        peer: Option<(IpAddr, u16)>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;

    fn parse(line: &[u8]) -> ToWorker {
        ToWorker::parse(line).unwrap()
    }

    fn connection(data: &[u8], last_stop: bool) -> ToWorker {
        ToWorker::Connection(Luggage { data: data.into(), last_stop, peer: None })
    }

    #[test]
    fn tells_what_concerns_a_worker_from_the_rest() {
        assert_eq!(parse(encode::CONNECTION), connection(b"", false));
        assert_eq!(parse(encode::PROBE), ToWorker::Probe);
        assert_eq!(parse(&encode::disconnect(3)), ToWorker::Disconnect);
        assert_eq!(parse(&encode::acknowledged(0, 2)), ToWorker::Acknowledged);
        assert_eq!(parse(encode::HANDLE_ACK), ToWorker::HandleAck);
        assert_eq!(parse(encode::HANDLE_NACK), ToWorker::HandleNack);
        assert_eq!(parse(br#"{"cmd":"NODE_HANDLE","msg":["sidetrack"]}"#), connection(b"", false));
        assert_eq!(parse(br#"{"type":3,"msg":{"sidetrack":"probe"},"data":[]}"#), ToWorker::Other);
        assert!(ToWorker::parse(b"rubbish").is_err());
    }

    #[test]
    fn a_connection_may_bring_luggage() {
        let with = |part: &str| {
            parse(
                format!(
                    r#"{{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{{"type":"sticky:connection","data":"","sidetrack":{part}}}}}"#
                )
                .as_bytes(),
            )
        };
        assert_eq!(with(r#"{"data":"R0VU","final":true}"#), connection(b"GET", true));
        assert_eq!(with(r#"{"data":"R0VU"}"#), connection(b"GET", false));
        assert_eq!(with(r#"{"final":true}"#), connection(b"", true));
        assert_eq!(with(r#"{"data":"\u0052\/\/\/","later":1}"#), connection(&[0x47, 0xff, 0xff], false));
        let peer = Some("[2001:db8::1]:443".parse().unwrap());
        let announced = ToWorker::Connection(Luggage { peer, ..Luggage::default() });
        assert_eq!(with(r#"{"peer":["2001:db8::1",443]}"#), announced);
        assert_eq!(with(r#"{"data":"R0V"}"#), ToWorker::Damaged);
    }
}
