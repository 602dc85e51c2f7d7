//! The client's side: one request on a connection of its own.

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// What the admin interface said.
#[derive(Debug)]
pub struct Answer {
    pub good: bool,
    pub value: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("nobody answers at {path}: {error}")]
    Connect { path: String, error: std::io::Error },
    #[error("the answer does not come: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the request makes no sense: {0}")]
    Request(#[from] hyper::http::Error),
}

/// Asks at a socket: `POST` with a body, `GET` without. Not cancel safe: the order may have been
/// carried out.
///
/// # Errors
/// When there is no answer; an answer that says no is one.
pub async fn ask(socket: &Path, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
    let response = send(socket, path, body).await?;
    let good = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { good, value: serde_json::from_slice(&body)? })
}

/// Lines as they come.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    /// Received and not yet told, from `told` on.
    rest: Vec<u8>,
    told: usize,
}

/// Asks for a stream of lines.
///
/// # Errors
/// When there is no answer; the inner error is an answer that says no, in words.
pub async fn lines(socket: &Path, path: &str) -> Result<Result<Lines, String>, ClientError> {
    let response = send(socket, path, None).await?;
    if response.status() == StatusCode::OK {
        return Ok(Ok(Lines { body: response.into_body(), rest: Vec::new(), told: 0 }));
    }
    let body = response.into_body().collect().await?.to_bytes();
    let value: Value = serde_json::from_slice(&body)?;
    Ok(Err(value["error"].as_str().unwrap_or("it says no").to_owned()))
}

impl Lines {
    /// The next line, without its end; none when there will be no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let fresh = &self.rest[self.told..];
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = fresh[..end].to_vec();
                self.told += end + 1;
                return Some(line);
            }
            self.rest.drain(..self.told);
            self.told = 0;
            // The other side may end in the middle of a line; half of one is no line.
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(frame.data_ref()?);
        }
    }
}

async fn send(
    socket: &Path,
    path: &str,
    body: Option<&Value>,
) -> Result<hyper::Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| ClientError::Connect { path: socket.display().to_string(), error })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "sidetrack")
        .body(Full::new(Bytes::from(body)))?;
    Ok(sender.send_request(request).await?)
}
