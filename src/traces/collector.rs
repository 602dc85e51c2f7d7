//! Where spans are sent.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// OTLP's port for HTTP.
const PORT: u16 = 4318;

/// A collector that takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected http://HOST:PORT of a collector, such as http://127.0.0.1:4318, found \"{text}\""
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri.scheme_str() == Some("https") {
            return Err(format!(
                "\"{text}\": there is no TLS here; send to a collector on this machine or network, and let it send on"
            ));
        }
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http") && uri.query().is_none());
        Ok(Self {
            host: host.ok_or_else(wrong)?.to_owned(),
            port: uri.port_u16().unwrap_or(PORT),
            path: format!("{}/v1/traces", uri.path().trim_end_matches('/')),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        write!(f, "http://{host}:{port}{path}")
    }
}

impl Endpoint {
    /// Sends a message on a connection of its own.
    ///
    /// # Errors
    /// When it is not taken; in words.
    pub(super) async fn send(&self, message: String) -> Result<(), String> {
        let sent = timeout(PATIENCE, self.post(message)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn post(&self, message: String) -> Result<(), String> {
        let text = |error: hyper::Error| error.to_string();
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // It ends with the sender.
        tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(message)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        drop(response.into_body().collect().await);
        if status.is_success() { Ok(()) } else { Err(format!("the collector answers {status}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_collector() {
        for (text, shown) in [
            ("http://127.0.0.1", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector:80/otlp/", "http://collector:80/otlp/v1/traces"),
            ("http://[::1]:9", "http://[::1]:9/v1/traces"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for text in ["", "collector", "collector:4318", "ftp://x", "http://x/?a=b", "http://"] {
            assert!(text.parse::<Endpoint>().unwrap_err().contains("expected http://HOST:PORT"), "{text}");
        }
        assert!("https://x".parse::<Endpoint>().unwrap_err().contains("no TLS"));
    }
}
