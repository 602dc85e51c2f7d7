//! The answer to a health check.

use serde_json::json;

/// A whole response: 200 when there are workers to serve, else 503. `body` is left out for a HEAD.
#[must_use]
pub fn health_answer(ready: usize, draining: bool, head_only: bool) -> Vec<u8> {
    let (status, word) = match (ready, draining) {
        (_, true) => ("503 Service Unavailable", "draining"),
        (0, false) => ("503 Service Unavailable", "no worker is ready"),
        (_, false) => ("200 OK", "ready"),
    };
    let body = format!("{}\n", json!({ "status": word, "workers": ready }));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    (if head_only { head } else { head + &body }).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_whole_response() {
        let text = |ready, draining, head_only| {
            String::from_utf8(health_answer(ready, draining, head_only)).unwrap()
        };
        let well = text(4, false, false);
        assert!(well.starts_with("HTTP/1.1 200 OK\r\n"), "{well}");
        assert!(well.ends_with("\r\n\r\n{\"status\":\"ready\",\"workers\":4}\n"), "{well}");
        assert!(well.contains("Content-Length: 31\r\n"), "{well}");
        assert_eq!(text(4, false, true), well[..well.len() - 31]);
        assert!(text(0, false, false).starts_with("HTTP/1.1 503 "));
        assert!(text(4, true, false).contains("draining"));
    }
}
