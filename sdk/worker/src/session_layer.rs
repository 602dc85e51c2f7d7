//! Learning sessions from the responses that give clients their ids.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::SET_COOKIE;
use http::{HeaderMap, Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::Sessions;
use crate::session_key::{Found, Head, SessionKey, decoded, one_of};

/// Announces every session whose id a response gives to a client, by whatever means sidetrack
/// finds it in requests:
///
/// | session key | a session is this worker's when |
/// |---|---|
/// | `cookie:NAME` | a response sets that cookie; no longer when one removes it |
/// | `header:NAME` | a response has that header |
/// | `path:N` | its first request came here for want of an owner: the client names it |
/// | `query:NAME` | never: where a response gives the id is the program's own affair, so announce it with [`Sessions::open`] |
///
/// A `DELETE` request that succeeds ends its session. The end of others is not seen: they are
/// forgotten when they have not been used for [`Settings::session_idle`](crate::Settings::session_idle).
#[derive(Debug, Clone)]
pub struct SessionLayer {
    sessions: Sessions,
}

/// The service that [`SessionLayer`] makes.
#[derive(Debug, Clone)]
pub struct SessionService<S> {
    inner: S,
    sessions: Sessions,
}

impl SessionLayer {
    /// A layer that announces with this handle.
    #[must_use]
    pub fn new(sessions: Sessions) -> Self {
        sessions.adopt_unknown();
        Self { sessions }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, sessions: self.sessions.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send,
    R: Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = self.sessions.settings();
        let asked = settings.session_key.as_ref().map_or(Found::Nothing, |key| key.find(&Asked(&request)));
        if let Found::Id(sid) = &asked {
            // Also where no connection is handed back, and so nothing else sees that it is used.
            self.sessions.use_it(sid);
        }
        let deletes = request.method() == Method::DELETE;
        let sessions = self.sessions.clone();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            let given =
                settings.session_key.as_ref().map_or(Given::Nothing, |key| given(key, response.headers()));
            let ends = match given {
                Given::Id(sid) => {
                    sessions.open_fleeting(&sid).await;
                    false
                }
                Given::End => true,
                Given::Nothing => deletes && response.status().is_success(),
            };
            if let Found::Id(sid) = asked
                && ends
            {
                sessions.close(&sid);
            }
            Ok(response)
        })
    }
}

/// What a response says about the client's session.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    Id(String),
    End,
}

fn given(key: &SessionKey, headers: &HeaderMap) -> Given {
    let id = |value: &str| match one_of(std::iter::once(value.into())) {
        Found::Id(sid) => Given::Id(sid),
        Found::Nothing | Found::Ambiguous => Given::Nothing,
    };
    match key {
        SessionKey::Header(name) => {
            headers.get(name).and_then(|value| value.to_str().ok()).map_or(Given::Nothing, id)
        }
        SessionKey::Cookie(name) => {
            let cookies = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut ours = cookies.filter_map(|text| cookie::Cookie::parse(text).ok());
            // The last is the one the client keeps.
            match ours.rfind(|cookie| cookie.name() == name) {
                None => Given::Nothing,
                Some(cookie) if cookie.max_age().is_some_and(|age| !age.is_positive()) => Given::End,
                Some(cookie) if cookie.value().is_empty() => Given::End,
                Some(cookie) => id(&decoded(cookie.value())),
            }
        }
        SessionKey::Query(_) | SessionKey::Path(_) => Given::Nothing,
    }
}

/// A request as session keys look at it.
struct Asked<'r, B>(&'r Request<B>);

impl<B> Head for Asked<'_, B> {
    fn path(&self) -> &str {
        self.0.uri().path()
    }

    fn query(&self) -> &str {
        self.0.uri().query().unwrap_or_default()
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.headers().get_all(name).iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use http::StatusCode;
    use std::convert::Infallible;

    /// Answers with whatever the test asks for in its own headers.
    #[derive(Clone)]
    struct Mirror;

    impl Service<Request<()>> for Mirror {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<()>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let mut response = Response::new(());
            for (name, value) in request.headers() {
                if let Some(name) = name.as_str().strip_prefix("want-") {
                    let name: http::HeaderName = name.parse().unwrap();
                    response.headers_mut().append(name, value.clone());
                }
            }
            if request.uri().path() == "/fails" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            std::future::ready(Ok(response))
        }
    }

    /// Method, target and headers of a request.
    type Sent<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    /// What sidetrack hears of these requests.
    async fn heard(key: &str, requests: &[Sent<'_>]) -> Vec<String> {
        let (mut fake, listener) = Fake::with_key(key);
        let mut service = SessionLayer::new(listener.sessions()).layer(Mirror);
        for (method, target, headers) in requests {
            let mut request = Request::builder().method(*method).uri(*target);
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            service.call(request.body(()).unwrap()).await.unwrap();
        }
        fake.waiting()
    }

    const OPENED: &str = r#"{"ends":false,"sid":"a b","type":"sidetrack:opened"}"#;
    const CLOSED: &str = r#"{"sid":"a b","type":"sidetrack:closed"}"#;

    #[tokio::test]
    async fn a_cookie_that_is_set_is_a_session_until_it_is_removed() {
        let set = ("want-set-cookie", "io=a%20b; Path=/; Max-Age=60");
        let other = ("want-set-cookie", "xio=c");
        let has = ("cookie", "io=a%20b");
        let first: &[_] = &[other, set];
        assert_eq!(heard("cookie:io", &[("GET", "/", first), ("GET", "/", &[has, set])]).await, [OPENED]);
        for removal in ["io=; Path=/", "io=x; Max-Age=0"] {
            let removes = ("want-set-cookie", removal);
            let heard = heard("cookie:io", &[("GET", "/", &[set]), ("GET", "/", &[has, removes])]).await;
            assert_eq!(heard, [OPENED, CLOSED]);
        }
    }

    #[tokio::test]
    async fn a_header_that_is_given_is_a_session_until_it_is_deleted() {
        let gives = ("want-mcp-session-id", "a b");
        let has = ("mcp-session-id", "a b");
        let requests: &[Sent<'_>] = &[
            ("POST", "/", &[gives]),
            ("POST", "/", &[has]),
            ("DELETE", "/fails", &[has]),
            ("DELETE", "/", &[("mcp-session-id", "unknown")]),
            ("DELETE", "/", &[has]),
        ];
        assert_eq!(heard("header:Mcp-Session-Id", requests).await, [OPENED, CLOSED]);
    }

    #[tokio::test]
    async fn nothing_else_is_a_session() {
        let long = "x".repeat(257);
        let headers: &[(&str, &str)] = &[("want-x", &long), ("want-set-cookie", "sid=1"), ("want-sid", "1")];
        for key in ["header:x", "query:sid", "path:1", "cookie:io"] {
            assert!(heard(key, &[("GET", "/?sid=2", headers)]).await.is_empty(), "{key}");
        }
    }
}
