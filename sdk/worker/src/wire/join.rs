//! How a worker that sidetrack has not started asks to be one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The environment variable that names the socket on which a running sidetrack takes workers.
pub const JOIN: &str = "SIDETRACK_JOIN";

/// A worker's first and only line before it is one. From the answer [`Answer::Joined`] on, the
/// connection is the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "sidetrack:join")]
pub struct Join<'a> {
    /// The slot it wants; none for any.
    #[serde(borrow)]
    pub slot: Option<Cow<'a, str>>,
    /// The process.
    pub pid: u32,
    /// What it is called in logs.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
}

/// What sidetrack answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Answer<'a> {
    /// The process is a worker now.
    #[serde(rename = "sidetrack:joined")]
    Joined {
        /// Its slot.
        #[serde(borrow)]
        slot: Cow<'a, str>,
        /// Where requests name their session.
        #[serde(borrow, default)]
        session_key: Option<Cow<'a, str>>,
        /// What becomes of connections after a response.
        #[serde(borrow, default)]
        keepalive: Option<Cow<'a, str>>,
    },
    /// It is not, and the connection ends.
    #[serde(rename = "sidetrack:refused")]
    Refused {
        /// Why, for people.
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
}

/// A message as a line.
#[must_use]
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Texts and numbers in memory cannot fail to be written.
    let mut bytes = serde_json::to_vec(message).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_documentation() {
        let join = Join { slot: None, pid: 123, name: "chat".into() };
        assert_eq!(
            line(&join),
            b"{\"type\":\"sidetrack:join\",\"slot\":null,\"pid\":123,\"name\":\"chat\"}\n"
        );
        let joined =
            br#"{"type":"sidetrack:joined","slot":"w4","session_key":"query:sid","keepalive":"hand-back"}"#;
        assert_eq!(
            serde_json::from_slice::<Answer<'_>>(joined).unwrap(),
            Answer::Joined {
                slot: "w4".into(),
                session_key: Some("query:sid".into()),
                keepalive: Some("hand-back".into())
            }
        );
        let refused = br#"{"type":"sidetrack:refused","reason":"slot \"w4\" is taken"}"#;
        assert_eq!(
            serde_json::from_slice::<Answer<'_>>(refused).unwrap(),
            Answer::Refused { reason: "slot \"w4\" is taken".into() }
        );
    }
}
