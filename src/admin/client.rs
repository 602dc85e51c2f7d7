//! The client's side: one request on a connection of its own.

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::fields::refusal;
use super::place::{Place, Way};

/// What the admin interface said.
#[derive(Debug)]
pub struct Answer {
    pub good: bool,
    pub value: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("nobody answers at {place}: {error}")]
    Connect { place: String, error: std::io::Error },
    #[error("the answer does not come: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the request makes no sense: {0}")]
    Request(#[from] hyper::http::Error),
}

/// Asks somewhere: `POST` with a body, `GET` without. Not cancel safe: the order may have been
/// carried out.
///
/// A question that is cut off is asked once more: another program may have gone on there this very moment. An
/// order is not.
///
/// # Errors
/// When there is no answer; an answer that says no is one.
pub async fn ask(place: &Place, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
    match ask_once(place, path, body).await {
        Err(ClientError::Http(_)) if body.is_none() => ask_once(place, path, None).await,
        asked => asked,
    }
}

async fn ask_once(place: &Place, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
    let response = send(place, path, body).await?;
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
pub async fn lines(place: &Place, path: &str) -> Result<Result<Lines, String>, ClientError> {
    let response = send(place, path, None).await?;
    if response.status() == StatusCode::OK {
        return Ok(Ok(Lines { body: response.into_body(), rest: Vec::new(), told: 0 }));
    }
    let body = response.into_body().collect().await?.to_bytes();
    let value: Value = serde_json::from_slice(&body)?;
    Ok(Err(refusal(&value)))
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
    place: &Place,
    path: &str,
    body: Option<&Value>,
) -> Result<hyper::Response<Incoming>, ClientError> {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let host = match &place.way {
        Way::Socket(_) => "sidetrack",
        Way::Tcp(authority) => authority,
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = &place.token {
        request = request.header(header::AUTHORIZATION, token.bearer());
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = request.body(Full::new(Bytes::from(body)))?;
    match &place.way {
        Way::Socket(path) => {
            let stream = UnixStream::connect(path).await;
            speak(stream.map_err(|error| nobody(path.display(), error))?, request).await
        }
        Way::Tcp(authority) => {
            let stream = TcpStream::connect(authority).await;
            speak(stream.map_err(|error| nobody(format_args!("http://{authority}"), error))?, request).await
        }
    }
}

fn nobody(place: impl std::fmt::Display, error: std::io::Error) -> ClientError {
    ClientError::Connect { place: place.to_string(), error }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<hyper::Response<Incoming>, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
