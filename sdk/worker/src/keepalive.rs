//! Closing connections where sidetrack wants that.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Keepalive, Listener, Sessions};

/// Says `Connection: close` in every response when `--keepalive close` is wanted, and does nothing
/// otherwise.
///
/// For `axum::serve`, which has no switch of its own. With hyper, pass [`Keepalive::Close`] on to
/// `keep_alive(false)` instead.
#[derive(Debug, Clone)]
pub struct KeepaliveLayer {
    sessions: Sessions,
}

/// The service that [`KeepaliveLayer`] makes.
#[derive(Debug, Clone)]
pub struct KeepaliveService<S> {
    inner: S,
    sessions: Sessions,
}

impl KeepaliveLayer {
    /// A layer that does what this listener is told.
    #[must_use]
    pub fn new(listener: &Listener) -> Self {
        Self { sessions: listener.sessions() }
    }
}

impl<S> Layer<S> for KeepaliveLayer {
    type Service = KeepaliveService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        KeepaliveService { inner, sessions: self.sessions.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for KeepaliveService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let http1 = request.version() <= Version::HTTP_11;
        let closes = http1 && self.sessions.settings().keepalive == Keepalive::Close;
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use std::convert::Infallible;
    use std::os::unix::net::UnixStream;

    #[derive(Clone)]
    struct Answer(StatusCode);

    impl Service<Request<()>> for Answer {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<()>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let mut response = Response::new(());
            *response.status_mut() = self.0;
            std::future::ready(Ok(response))
        }
    }

    #[tokio::test]
    async fn connections_are_closed_only_where_that_is_wanted() {
        let closes = |keepalive, status| async move {
            let (_here, there) = UnixStream::pair().unwrap();
            let settings = Settings { keepalive, ..Settings::default() };
            let listener = Listener::with_settings(there, settings).unwrap();
            let mut service = KeepaliveLayer::new(&listener).layer(Answer(status));
            let response = service.call(Request::new(())).await.unwrap();
            response.headers().get(CONNECTION).is_some_and(|value| value == "close")
        };
        assert!(closes(Keepalive::Close, StatusCode::OK).await);
        assert!(!closes(Keepalive::Close, StatusCode::SWITCHING_PROTOCOLS).await);
        assert!(!closes(Keepalive::HandBack, StatusCode::OK).await);
        assert!(!closes(Keepalive::Worker, StatusCode::OK).await);
    }
}
