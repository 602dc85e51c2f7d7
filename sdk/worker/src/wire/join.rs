//! How a worker that sidetrack did not start joins it: one line each way, then the same socket is
//! the channel.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

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
        /// How long a session whose end no worker announces is remembered, in seconds.
        #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
        session_idle: Option<u64>,
        /// What the ids of new sessions begin with, if sidetrack wants that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sid_tag: Option<String>,
        /// Which requests are for the worker's pool, if there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        matches: Option<String>,
    },
    /// The socket closes after it.
    #[serde(rename = "sidetrack:refused")]
    Refused { reason: String },
}

/// The longest line of either kind, newline included.
pub const LONGEST_JOIN: usize = 4096;

/// What is not a number of seconds is as if it had not been said, and no reason not to join.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let seconds = value.as_u64().filter(|&seconds| seconds > 0);
    if seconds.is_none() && !value.is_null() {
        tracing::warn!(session_idle = %value, "expected a number of seconds; the default it is");
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_sidetrack_does_not_say_may_be_left_out() {
        let shortest =
            r#"{"type":"sidetrack:joined","slot":"w4","id":5,"session_key":"query:sid","keepalive":"close"}"#;
        let least: JoinReply = serde_json::from_str(shortest).unwrap();
        assert_eq!(serde_json::to_string(&least).unwrap(), shortest);
        let with = |more: &str| {
            let line = shortest.replace('}', more);
            let reply: JoinReply = serde_json::from_str(&line).unwrap();
            match &reply {
                JoinReply::Joined { session_idle, sid_tag, .. } => (*session_idle, sid_tag.clone()),
                JoinReply::Refused { .. } => panic!("{reply:?}"),
            }
        };
        assert_eq!(with(r#","session_idle":120,"sid_tag":"w4"}"#), (Some(120), Some("w4".into())));
        assert_eq!(with(r#","session_idle":null,"sid_tag":null}"#), (None, None));
        for rubbish in [r#""soon""#, "-1", "0", "1.5", "[60]", "true"] {
            assert_eq!(with(&format!(r#","session_idle":{rubbish}}}"#)), (None, None), "{rubbish}");
        }
    }

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
