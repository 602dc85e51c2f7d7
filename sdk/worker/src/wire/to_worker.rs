//! What sidetrack says to a worker.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A message from sidetrack, as a worker that is not Node needs to tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToWorker {
    /// A connection; its descriptor came along.
    Connection,
    /// A socket of sidetrack's own, to see whether this worker answers; its descriptor came along.
    /// To be served like any connection, and not to be reported as closed.
    Probe,
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
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(borrow, default)]
            cmd: Option<&'a str>,
            #[serde(borrow, default)]
            act: Option<&'a str>,
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
                sidetrack: Option<&'a str>,
            },
            Other(IgnoredAny),
        }
        let line: Line<'_> = serde_json::from_slice(line)?;
        Ok(match (line.cmd, line.act) {
            (Some("NODE_HANDLE"), _) => match line.msg {
                Some(Message::Ours { sidetrack: Some("probe") }) => Self::Probe,
                Some(Message::Ours { .. } | Message::Other(_)) | None => Self::Connection,
            },
            (Some("NODE_CLUSTER"), Some("disconnect")) => Self::Disconnect,
            (Some("NODE_CLUSTER"), None) if line.ack.is_some() => Self::Acknowledged,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;

    #[test]
    fn tells_what_concerns_a_worker_from_the_rest() {
        let parse = |line: &[u8]| ToWorker::parse(line).unwrap();
        assert_eq!(parse(encode::CONNECTION), ToWorker::Connection);
        assert_eq!(parse(encode::PROBE), ToWorker::Probe);
        assert_eq!(parse(&encode::disconnect(3)), ToWorker::Disconnect);
        assert_eq!(parse(&encode::acknowledged(0, 2)), ToWorker::Acknowledged);
        assert_eq!(parse(br#"{"cmd":"NODE_HANDLE","msg":["sidetrack"]}"#), ToWorker::Connection);
        assert_eq!(parse(br#"{"type":3,"msg":{"sidetrack":"probe"},"data":[]}"#), ToWorker::Other);
        assert!(ToWorker::parse(b"rubbish").is_err());
    }
}
