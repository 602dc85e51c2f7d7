//! Our own answers, for connections no worker shall have. The one place where a cause becomes a
//! status.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::time::timeout;

use crate::peek::Headless;
use crate::sys::reactor::watch;
use crate::sys::socket;
use crate::telemetry::Cause;
use crate::types::{Accepted, HeadError, Refusal};

/// How long a refused client may take to read its answer.
const LINGER: Duration = Duration::from_secs(2);

/// How much of a refused request is read and thrown away.
const MOST_DISCARDED: usize = 1024 * 1024;

/// A fatal alert, `protocol_version`, in a TLS 1.0 record: what a TLS client understands.
const TLS_ALERT: &[u8] = &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];

/// What a connection without a head is told; nothing when the client has left or never spoke.
#[must_use]
pub fn refusal_for(headless: Headless) -> Option<(Refusal, Cause)> {
    let (status, cause, reason) = match headless {
        Headless::Silent | Headless::Gone => return None,
        Headless::TooLarge => (431, Cause::HeadTooLarge, "the request head is too large"),
        Headless::Invalid(HeadError::TooManyHeaders) => {
            (431, Cause::HeadTooLarge, "the request has too many header fields")
        }
        Headless::TooSlow => (408, Cause::HeadTooSlow, "the request head did not arrive in time"),
        Headless::Invalid(HeadError::Version | HeadError::Http2) => {
            (505, Cause::Version, "this server speaks HTTP/1.1")
        }
        Headless::Invalid(HeadError::Malformed(_)) => (400, Cause::Malformed, "this is not an HTTP request"),
        Headless::Invalid(HeadError::Tls) => (400, Cause::Tls, "this port does not speak TLS"),
    };
    Some((Refusal { status, retry_after: None, reason: reason.to_owned() }, cause))
}

/// What a client is told that nobody shall have its connection.
#[must_use]
pub fn refusal(refusal: &Refusal, tls: bool) -> Vec<u8> {
    if tls { TLS_ALERT.to_vec() } else { response(refusal) }
}

/// Answers, and finishes writing. Now the client is to be given the time to read it: closing a socket
/// with unread bytes would reset the connection and take the answer with it. False when there is nobody
/// to tell.
pub fn answer(accepted: &Accepted, answer: &[u8]) -> bool {
    // A fresh socket's send buffer takes this small an answer whole; if it does not, the client
    // is not reading.
    socket::write(&accepted.socket, answer).is_ok()
        && shutdown(accepted.socket.as_raw_fd(), Shutdown::Write).is_ok()
}

/// Reads on for a moment behind an [`answer`]. Cancel safe: it may go on later.
pub async fn linger(accepted: &Accepted) {
    drop(timeout(LINGER, read_out(accepted)).await);
}

/// Reads until the client closes or has sent enough.
async fn read_out(accepted: &Accepted) -> io::Result<()> {
    let client = watch(accepted.socket.as_fd(), Interest::READABLE)?;
    // On the heap: as an array it would be carried by every connection's life, refused or not.
    let mut buffer = vec![0; 4096];
    let mut left = MOST_DISCARDED;
    loop {
        let mut guard = client.readable().await?;
        match socket::discard(&accepted.socket, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) if length >= left => return Ok(()),
            Ok(length) => left -= length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}

fn response(refusal: &Refusal) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut head = format!("HTTP/1.1 {} {}\r\n", refusal.status, phrase(refusal.status));
    if let Some(seconds) = refusal.retry_after {
        // Writing to a string cannot fail.
        let _ = write!(head, "Retry-After: {seconds}\r\n");
    }
    let body = format!("{}\n", refusal.reason);
    let _ = write!(
        head,
        "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

fn phrase(status: u16) -> &'static str {
    axum::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_http_response() {
        let refusal = Refusal { status: 503, retry_after: Some(1), reason: "no worker is ready".into() };
        let text = String::from_utf8(response(&refusal)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"));
        assert!(text.ends_with("Content-Length: 19\r\nConnection: close\r\n\r\nno worker is ready\n"));
    }

    #[test]
    fn those_who_left_get_no_answer() {
        assert_eq!(refusal_for(Headless::Silent), None);
        assert_eq!(refusal_for(Headless::Gone), None);
        assert_eq!(
            refusal_for(Headless::TooLarge).map(|(refusal, cause)| (refusal.status, cause)),
            Some((431, Cause::HeadTooLarge))
        );
    }
}
