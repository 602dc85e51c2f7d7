//! Announcing Engine.IO sessions at birth, from the response that tells the client its id.
//!
//! A client may come back with its session id the moment it has it, on another connection. So the
//! announcement has to leave before the response does, and a middleware sees the response first.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::Sessions;

/// Announces every session whose handshake passes through.
///
/// Put it around whatever speaks Engine.IO, with `socketioxide` around its own layer. It looks only
/// at handshakes, which are polling requests without a session id, and touches no other response. A
/// session that starts as a WebSocket needs no announcement to work: all of it is one connection.
/// To have such sessions counted, announce them from the connect handler.
#[derive(Debug, Clone)]
pub struct EngineIoLayer {
    sessions: Sessions,
    end: End,
}

/// How the end of a session is noticed. Unnoticed, it is forgotten when it has not been used for
/// [`Settings::session_idle`](crate::Settings::session_idle).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unnoticed,
    WithRequest,
}

impl EngineIoLayer {
    /// A layer that announces births. A session whose end nobody announces with
    /// [`Sessions::close`] is forgotten [`Settings::session_idle`](crate::Settings::session_idle) after
    /// its last request. Ids are as the server makes them, also where sidetrack wants a tag
    /// ([`Sessions::tagged`]): `engineioxide` cannot be told.
    #[must_use]
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions, end: End::Unnoticed }
    }

    /// Announces ends as well: a session has ended when the extensions of its handshake request
    /// are dropped. Right for servers that keep them as long as the session, as `socketioxide`
    /// does, and then it also covers sessions that never connected to a namespace, of which no
    /// handler hears.
    #[must_use]
    pub fn ending_with_request(mut self) -> Self {
        self.end = End::WithRequest;
        self
    }
}

impl<S> Layer<S> for EngineIoLayer {
    type Service = EngineIoService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EngineIoService { inner, layer: self.clone() }
    }
}

/// The service that [`EngineIoLayer`] makes.
#[derive(Debug, Clone)]
pub struct EngineIoService<S> {
    inner: S,
    layer: EngineIoLayer,
}

impl<S, B, R> Service<Request<B>> for EngineIoService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Body + Unpin + Send + 'static,
    R::Data: Send,
    R::Error: Send,
{
    type Response = Response<LookedAt<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !is_handshake(&request) {
            let response = self.inner.call(request);
            return Box::pin(async { Ok(response.await?.map(LookedAt::untouched)) });
        }
        let sessions = self.layer.sessions.clone();
        let life = Life(Arc::new(Session { sessions: sessions.clone(), sid: OnceLock::new() }));
        if self.layer.end == End::WithRequest {
            request.extensions_mut().insert(life.clone());
        }
        let end = self.layer.end;
        let response = self.inner.call(request);
        Box::pin(async move {
            let (head, body) = response.await?.into_parts();
            let (sid, body) = look_at(head.status, body).await;
            if let Some(sid) = sid {
                match end {
                    End::Unnoticed => sessions.open_fleeting(&sid).await,
                    End::WithRequest => {
                        sessions.open(&sid).await.keep();
                        // Cannot be set already: this is the only place that does.
                        life.0.sid.set(sid).ok();
                    }
                }
            }
            Ok(Response::from_parts(head, body))
        })
    }
}

/// Lives in the request's extensions; its last clone ends the session.
#[derive(Debug, Clone)]
struct Life(Arc<Session>);

#[derive(Debug)]
struct Session {
    sessions: Sessions,
    sid: OnceLock<String>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(sid) = self.sid.get() {
            self.sessions.close(sid);
        }
    }
}

/// A response body as it was, after its beginning has been looked at.
#[derive(Debug)]
pub struct LookedAt<R: Body> {
    first: Option<Result<Frame<R::Data>, R::Error>>,
    rest: R,
}

impl<R: Body> LookedAt<R> {
    fn untouched(rest: R) -> Self {
        Self { first: None, rest }
    }
}

impl<R: Body + Unpin> Unpin for LookedAt<R> {}

impl<R: Body + Unpin> Body for LookedAt<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        Poll::Ready(ready!(Pin::new(&mut self.rest).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.remaining() as u64),
            Some(Err(_)) | None => 0,
        };
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

/// A handshake's body is the session's id and four settings.
const LARGEST_HANDSHAKE: u64 = 1024;

/// The session id a handshake's response gives away. Waits for one frame, of a body that is known
/// to be small.
async fn look_at<R: Body + Unpin>(status: StatusCode, mut body: R) -> (Option<String>, LookedAt<R>) {
    let small = body.size_hint().upper().is_some_and(|bytes| bytes <= LARGEST_HANDSHAKE);
    if status != StatusCode::OK || !small {
        return (None, LookedAt::untouched(body));
    }
    let first = body.frame().await;
    let sid = match &first {
        Some(Ok(frame)) => frame.data_ref().and_then(|data| sid_in(data.chunk())),
        Some(Err(_)) | None => None,
    };
    (sid, LookedAt { first, rest: body })
}

fn is_handshake<B>(request: &Request<B>) -> bool {
    let (mut engine, mut polling, mut known) = (false, false, false);
    for parameter in request.uri().query().unwrap_or_default().split('&') {
        engine |= parameter.starts_with("EIO=");
        polling |= parameter == "transport=polling";
        known |= parameter.starts_with("sid=");
    }
    request.method() == Method::GET && engine && polling && !known
}

/// The session id in an Engine.IO open packet. Protocol 3 puts the packet's length before it.
fn sid_in(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let packet = match text.split_once(':') {
        Some((length, packet)) if length.bytes().all(|byte| byte.is_ascii_digit()) => packet,
        _ => text,
    };
    let sid = packet.strip_prefix("0{\"sid\":\"")?.split_once('"')?.0;
    // An escape would mean an id that no known server makes, and that this text does not show.
    (!sid.is_empty() && !sid.contains('\\')).then(|| sid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use http_body_util::Full;

    type Answer = Response<Full<bytes::Bytes>>;

    /// Answers every request alike, and keeps or drops the request.
    #[derive(Clone)]
    struct Server {
        answer: fn() -> Answer,
        kept: Arc<std::sync::Mutex<Vec<http::Extensions>>>,
    }

    impl Service<Request<()>> for Server {
        type Response = Answer;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Answer, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            self.kept.lock().unwrap().push(request.into_parts().0.extensions);
            std::future::ready(Ok((self.answer)()))
        }
    }

    fn server(answer: fn() -> Answer) -> Server {
        Server { answer, kept: Arc::default() }
    }

    fn handshake() -> Answer {
        Response::new(Full::from("0{\"sid\":\"abc-_1\",\"upgrades\":[],\"pingInterval\":25000}"))
    }

    async fn ask(service: &mut EngineIoService<Server>, target: &str) -> bytes::Bytes {
        let request = Request::builder().uri(target).body(()).unwrap();
        let response = service.call(request).await.unwrap();
        let length = response.body().size_hint().exact().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len() as u64, length);
        body
    }

    #[tokio::test]
    async fn a_handshake_is_announced_before_its_response_and_arrives_whole() {
        let (mut fake, listener) = Fake::with_listener();
        let mut service = EngineIoLayer::new(listener.sessions()).layer(server(handshake));
        let body = ask(&mut service, "/socket.io/?EIO=4&transport=polling&t=x").await;
        assert!(body.starts_with(b"0{\"sid\":\"abc-_1\"") && body.ends_with(b"}"));
        assert_eq!(fake.waiting(), [r#"{"ends":false,"sid":"abc-_1","type":"sidetrack:opened"}"#]);
    }

    #[tokio::test]
    async fn nothing_else_is_announced() {
        let (mut fake, listener) = Fake::with_listener();
        let layer = EngineIoLayer::new(listener.sessions());
        let mut service = layer.layer(server(handshake));
        for target in [
            "/socket.io/?EIO=4&transport=polling&sid=abc-_1",
            "/socket.io/?EIO=4&transport=websocket",
            "/socket.io/?transport=polling",
            "/",
        ] {
            assert!(!ask(&mut service, target).await.is_empty());
        }
        let refused = || {
            let mut answer = handshake();
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            answer
        };
        let large = || Response::new(Full::from(format!("0{{\"sid\":\"{}\"}}", "x".repeat(2000))));
        let empty = || Response::new(Full::from(""));
        for answer in [refused, large, empty] {
            ask(&mut layer.layer(server(answer)), "/socket.io/?EIO=4&transport=polling").await;
        }
        assert!(fake.waiting().is_empty());
    }

    #[tokio::test]
    async fn a_session_ends_with_its_request_where_that_is_wanted() {
        let (mut fake, listener) = Fake::with_listener();
        let server = server(handshake);
        let kept = Arc::clone(&server.kept);
        let mut service = EngineIoLayer::new(listener.sessions()).ending_with_request().layer(server);
        ask(&mut service, "/engine.io/?transport=polling&EIO=4").await;
        assert_eq!(fake.waiting(), [r#"{"sid":"abc-_1","type":"sidetrack:opened"}"#]);
        kept.lock().unwrap().clear();
        assert_eq!(fake.waiting(), [r#"{"sid":"abc-_1","type":"sidetrack:closed"}"#]);
    }

    #[test]
    fn reads_the_id_of_both_protocols_and_of_nothing_else() {
        let sid = |body: &str| sid_in(body.as_bytes());
        assert_eq!(sid(r#"0{"sid":"a","x":1}"#).as_deref(), Some("a"));
        assert_eq!(sid(r#"96:0{"sid":"a","x":1}"#).as_deref(), Some("a"));
        for other in
            ["", "0", r#"0{"sid":""}"#, r#"0{"sid":"a\u0041"}"#, r#"0{"sid":"cut"#, r#"4{"sid":"a"}"#]
        {
            assert_eq!(sid(other), None, "{other}");
        }
    }
}
