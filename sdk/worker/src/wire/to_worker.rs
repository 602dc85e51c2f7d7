//! What sidetrack says to a worker.

use serde::Deserialize;

/// A message from sidetrack, as a worker that is not Node needs to tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToWorker {
    /// A connection; its descriptor came along.
    Connection,
    /// Stop taking connections, finish the open ones, then exit.
    Disconnect,
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
        }
        let line: Line<'_> = serde_json::from_slice(line)?;
        Ok(match (line.cmd, line.act) {
            (Some("NODE_HANDLE"), _) => Self::Connection,
            (Some("NODE_CLUSTER"), Some("disconnect")) => Self::Disconnect,
            _ => Self::Other,
        })
    }
}
