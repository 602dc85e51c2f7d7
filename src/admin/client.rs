//! The client's side: one request on a connection of its own.

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
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
    let response = sender.send_request(request).await?;
    let good = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { good, value: serde_json::from_slice(&body)? })
}
