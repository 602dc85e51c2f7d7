//! What a worker needs to say and to read when connections go both ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Connections may come as messages from now on, with what other workers have read from them.
pub const READY: &[u8] = b"{\"type\":\"sidetrack:ready\",\"replays\":true}\n";

/// Carries a connection back whose next request belongs to another worker. `data` is what was read
/// from that request's first byte on.
#[must_use]
pub fn hand_back(data: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(100 + data.len().div_ceil(3) * 4);
    line.extend_from_slice(
        b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"type\":\"sidetrack:hand-back\",\"data\":\"",
    );
    // No character of the alphabet needs an escape.
    line.extend_from_slice(STANDARD.encode(data).as_bytes());
    line.extend_from_slice(b"\"}}\n");
    line
}

/// Announces that this worker owns a session whose end it will not announce.
#[must_use]
pub fn fleeting_session_opened(sid: &str) -> Vec<u8> {
    let mut line = json!({ "type": "sidetrack:opened", "sid": sid, "ends": false }).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Reads the `data` of a hand-off or a hand-back.
///
/// # Errors
/// When it is not base64.
pub fn data(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_back_is_the_line_of_the_documentation() {
        let line = String::from_utf8(hand_back(b"GET")).unwrap();
        assert_eq!(
            line,
            "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"type\":\"sidetrack:hand-back\",\"data\":\"R0VU\"}}\n"
        );
        assert_eq!(data("R0VU").unwrap(), b"GET");
        assert!(data("R0V").is_err());
        let opened = String::from_utf8(fleeting_session_opened("a\"b")).unwrap();
        assert_eq!(opened, "{\"ends\":false,\"sid\":\"a\\\"b\",\"type\":\"sidetrack:opened\"}\n");
    }
}
