//! How a worker that sidetrack did not start joins it: one line each way, then the same socket is
//! the channel.

use serde::{Deserialize, Serialize};

/// What the worker says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sidetrack:join")]
pub struct JoinRequest {
    /// The slot it wants to be known by; sidetrack finds one otherwise.
    #[serde(default)]
    pub slot: Option<String>,
    /// Its process as it knows itself. In another process namespace it has another number here.
    #[serde(default)]
    pub pid: u32,
}

/// What sidetrack answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum JoinReply {
    #[serde(rename = "sidetrack:joined")]
    Joined {
        slot: String,
        /// Never used before in this run of sidetrack; above 0, as `NODE_UNIQUE_ID` must be.
        id: u32,
        session_key: String,
        keepalive: String,
    },
    /// The socket closes after it.
    #[serde(rename = "sidetrack:refused")]
    Refused { reason: String },
}

/// The longest line of either kind, newline included.
pub const LONGEST_JOIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_read_back() {
        let request = JoinRequest { slot: Some("web-1".into()), pid: 7 };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"type":"sidetrack:join","slot":"web-1","pid":7}"#);
        assert_eq!(serde_json::from_str::<JoinRequest>(&line).unwrap(), request);
        let least: JoinRequest = serde_json::from_str(r#"{"type":"sidetrack:join"}"#).unwrap();
        assert_eq!(least, JoinRequest { slot: None, pid: 0 });

        let refused = r#"{"type":"sidetrack:refused","reason":"no"}"#;
        let reply: JoinReply = serde_json::from_str(refused).unwrap();
        assert_eq!(reply, JoinReply::Refused { reason: "no".into() });
        assert_eq!(serde_json::to_string(&reply).unwrap(), refused);
        assert!(serde_json::from_str::<JoinReply>(r#"{"type":"sidetrack:else"}"#).is_err());
    }
}
