//! Who may ask. A Unix socket has its file's mode; over TCP there is the token, and where there is none,
//! only this machine.
//!
//! A browser on this machine is the stranger to keep out: any page in it can send requests to a loopback
//! port. So a request that a page of another origin has caused is refused, a name that somebody else could
//! have pointed here (DNS rebinding) is refused unless there is a token, and without a token whatever acts
//! must say that it is JSON, which no page can send elsewhere without asking first.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::dashboard;
use super::reply::No;
use super::token::Token;

/// How often wrong tokens are worth a line.
const TOLD: Duration = Duration::from_secs(60);

/// What a browser says of where a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which way a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    Socket,
    Tcp,
}

/// At one listener.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whoever has it may ask. None where being able to connect is enough.
    token: Option<Token>,
    /// A Unix socket, where clients call the host whatever they like, as long as it is no domain's name.
    socket: bool,
    wrong: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Guard {
    /// For the Unix socket.
    pub(super) fn socket() -> Self {
        Self { token: None, socket: true, wrong: AtomicU64::new(0), told: Mutex::default() }
    }

    /// For TCP.
    pub(super) fn tcp(token: Option<Token>) -> Self {
        Self { token, socket: false, ..Self::socket() }
    }

    /// Before every handler.
    pub(super) async fn check(State(guard): State<Arc<Self>>, mut request: Request, next: Next) -> Response {
        request.extensions_mut().insert(if guard.socket { Entrance::Socket } else { Entrance::Tcp });
        match guard.admit(request.method(), request.uri().path(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(no) => {
                let unauthorized = no.status == StatusCode::UNAUTHORIZED;
                let mut response = no.into_response();
                if unauthorized {
                    let scheme = header::HeaderValue::from_static("Bearer realm=\"sidetrack\"");
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
                }
                response
            }
        }
    }

    fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), No> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(header::HOST);
        if let Some(origin) = text(header::ORIGIN)
            && origin.split_once("://").map(|(_, authority)| authority) != host
        {
            let error =
                format!("a page of {origin:?} may not ask here; a proxy in front must keep the Host header");
            return Err(No::new(StatusCode::FORBIDDEN, error));
        }
        if text(SITE).is_some_and(|site| matches!(site, "cross-site" | "same-site"))
            && path != dashboard::PAGE
        {
            // Following a link to the page is all that another site may bring about.
            return Err(No::new(StatusCode::FORBIDDEN, "a page of another site may not ask here"));
        }
        if self.token.is_none() && !host.is_none_or(|host| self.own(host)) {
            let error = format!(
                "{:?} may be a name that somebody has pointed here; ask for localhost or an address, or set \
                 admin-token-file",
                host.unwrap_or_default()
            );
            return Err(No::new(StatusCode::MISDIRECTED_REQUEST, error));
        }
        if dashboard::is_asset(path) {
            // Nothing of the run is in them, and the page is who asks for the token.
            return Ok(());
        }
        match &self.token {
            Some(token) => self.identify(token, text(header::AUTHORIZATION)),
            None if matches!(*method, Method::GET | Method::HEAD) => Ok(()),
            None => {
                let kind = text(header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
                if kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
                    return Ok(());
                }
                let error = "expected the header content-type: application/json, also without a body";
                Err(No::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
            }
        }
    }

    fn identify(&self, token: &Token, given: Option<&str>) -> Result<(), No> {
        let bearer = given
            .and_then(|given| given.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match bearer {
            Some((_, given)) if token.is(given.trim()) => Ok(()),
            Some(_) => {
                self.note_wrong();
                Err(No::new(StatusCode::UNAUTHORIZED, "this is not the token"))
            }
            None => {
                let error = "a token is needed: the header authorization: Bearer TOKEN, or --token-file FILE";
                Err(No::new(StatusCode::UNAUTHORIZED, error))
            }
        }
    }

    /// A line for the first, and for those of a minute: whoever guesses must not fill the log.
    fn note_wrong(&self) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD) {
            *told = Some(Instant::now());
            let times = self.wrong.swap(0, Ordering::Relaxed);
            tracing::warn!(times, "wrong tokens at the admin interface");
        }
    }

    /// A host that nobody else can have pointed here: an address, or a name of this machine's own.
    fn own(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.socket && !name.contains('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(token: bool) -> Guard {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        Guard::tcp(token.then(|| Token::read(&path).unwrap()))
    }

    fn said(guard: &Guard, method: &Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        guard.admit(method, path, &headers).err().map_or(200, |no| no.status.as_u16())
    }

    #[test]
    fn without_a_token_only_this_machine_may_ask() {
        let open = guard(false);
        let status = |host: &str| said(&open, &Method::GET, "/v1/status", &[("host", host)]);
        for host in [
            "localhost",
            "localhost:9000",
            "127.0.0.1:9000",
            "[::1]:9000",
            "LOCALHOST",
            "me.localhost",
            "192.0.2.1",
        ] {
            assert_eq!(status(host), 200, "{host}");
        }
        for host in
            ["evil.example", "evil.example:9000", "localhost.evil.example", "sidetrack", "", "127.0.0.1.evil"]
        {
            assert_eq!(status(host), 421, "{host}");
        }
        // No browser leaves it out.
        assert_eq!(said(&open, &Method::GET, "/v1/status", &[]), 200);
        // The page itself neither.
        assert_eq!(said(&open, &Method::GET, "/", &[("host", "evil.example")]), 421);
        let socket = Guard::socket();
        assert_eq!(said(&socket, &Method::GET, "/v1/status", &[("host", "sidetrack")]), 200);
        assert_eq!(said(&socket, &Method::GET, "/v1/status", &[("host", "evil.example")]), 421);
    }

    #[test]
    fn pages_of_others_may_not_ask() {
        let open = guard(false);
        let json = ("content-type", "application/json");
        let post = |headers: &[(&'static str, &str)]| {
            let headers: Vec<_> = [("host", "localhost:9000")].iter().chain(headers).copied().collect();
            said(&open, &Method::POST, "/v1/policy/rollback", &headers)
        };
        assert_eq!(post(&[json]), 200);
        assert_eq!(
            post(&[json, ("origin", "http://localhost:9000"), ("sec-fetch-site", "same-origin")]),
            200
        );
        for origin in ["http://evil.example", "http://localhost:9001", "http://127.0.0.1:9000", "null", ""] {
            assert_eq!(post(&[json, ("origin", origin)]), 403, "{origin}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(post(&[("content-type", kind)]), 415, "{kind}");
        }
        assert_eq!(post(&[]), 415);
        assert_eq!(post(&[("content-type", "Application/JSON; charset=utf-8")]), 200);
        // A picture whose address is a stream of ours; a link to the page.
        let from = |path: &str, site: &str| {
            said(&open, &Method::GET, path, &[("host", "localhost:9000"), ("sec-fetch-site", site)])
        };
        assert_eq!(from("/v1/decisions", "cross-site"), 403);
        assert_eq!(from("/v1/decisions", "same-site"), 403);
        assert_eq!(from("/v1/decisions", "none"), 200);
        assert_eq!(from("/", "cross-site"), 200);
        // What a browser asks before it sends JSON elsewhere.
        let ask = [("host", "localhost:9000"), ("origin", "http://evil.example")];
        assert_eq!(said(&open, &Method::OPTIONS, "/v1/policy/rollback", &ask), 403);
    }

    #[test]
    fn a_token_is_asked_for_everywhere_but_at_the_page() {
        let guard = guard(true);
        let with = |value: &str| {
            said(&guard, &Method::GET, "/v1/status", &[("host", "ops.example"), ("authorization", value)])
        };
        assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
        assert_eq!(with(&format!("bearer {TOKEN}")), 200);
        for value in [TOKEN, "Bearer", "Bearer ", "Bearer 0123456789abcdeg", "Basic 0123456789abcdef"] {
            assert_eq!(with(value), 401, "{value}");
        }
        for path in ["/v1/status", "/metrics", "/v1/openapi.json", "/dashboards", "/dashboard"] {
            assert_eq!(said(&guard, &Method::GET, path, &[("host", "localhost")]), 401, "{path}");
        }
        for path in ["/", "/dashboard/main.js"] {
            assert_eq!(said(&guard, &Method::GET, path, &[("host", "ops.example")]), 200, "{path}");
        }
        let foreign = [
            ("host", "localhost"),
            ("origin", "http://evil.example"),
            ("authorization", "Bearer 0123456789abcdef"),
        ];
        assert_eq!(said(&guard, &Method::POST, "/v1/policy/rollback", &foreign), 403);
    }
}
