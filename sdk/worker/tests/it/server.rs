//! What the workers serve: hyper on the streams, answers that tell who gave them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sidetrack_worker::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Serves until there are no more connections.
pub async fn serve(mut listener: Listener, name: &'static str) {
    while let Some((stream, _)) = listener.accept().await.unwrap() {
        let service = service_fn(move |request| answer(request, name));
        tokio::spawn(async move {
            // Clients that go away are none of the tests' concern.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok();
        });
    }
}

async fn answer(request: Request<Incoming>, name: &str) -> Result<Response<Parts>, Infallible> {
    let response = Response::builder().header("x-worker", name);
    let path = request.uri().path().to_owned();
    if path == "/upgrade" {
        tokio::spawn(echo(request, name.to_owned()));
        let response = response.status(StatusCode::SWITCHING_PROTOCOLS).header("upgrade", "echo");
        return Ok(response.header("connection", "upgrade").body(Parts::default()).unwrap());
    }
    if path == "/early" {
        // Answered before the body is read, which hyper then reads to keep the connection.
        return Ok(response.body(Parts::sized("early")).unwrap());
    }
    let target = request.uri().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path == "/slow" {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let text = format!("{target} {} {}", body.len(), checksum(&body));
    Ok(response.body(if path == "/chunked" { Parts::unsized_(&text) } else { Parts::sized(&text) }).unwrap())
}

async fn echo(request: Request<Incoming>, name: String) {
    let mut upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
    upgraded.write_all(name.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = upgraded.read(&mut buffer).await {
        upgraded.write_all(&buffer[..read]).await.unwrap();
    }
}

pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// A body in parts, of a length that is told or not.
#[derive(Default)]
pub struct Parts {
    parts: VecDeque<Bytes>,
    told: bool,
}

impl Parts {
    fn sized(text: &str) -> Self {
        Self { parts: [Bytes::from(text.to_owned())].into(), told: true }
    }

    fn unsized_(text: &str) -> Self {
        Self { parts: text.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect(), told: false }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.parts.iter().map(|part| part.len() as u64).sum();
        if self.told { SizeHint::with_exact(length) } else { SizeHint::default() }
    }
}
