//! The server's side: a socket, and who answers at it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path as UrlPath, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::{follow, metrics, policy, run, shadow};
use crate::listener::Servers;
use crate::pool::{Pool, Pools};
use crate::sys::unix::{self, SocketFile};
use crate::telemetry::Telemetry;

/// What the admin interface has authority over.
#[derive(Debug, Clone)]
pub struct Authority {
    pub pools: Arc<Pools>,
    pub servers: Arc<Servers>,
    pub telemetry: Arc<Telemetry>,
    /// One for each connection that may be pending.
    pub permits: Arc<Semaphore>,
    pub pending_limit: usize,
    /// When the run began.
    pub started: SystemTime,
}

/// The pool a request is about: `?pool=NAME`, or the only one or the default.
#[derive(Debug)]
pub(super) struct Chosen(pub(super) Arc<Pool>);

impl FromRequestParts<Authority> for Chosen {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, authority: &Authority) -> Result<Self, Response> {
        let name = named_pool(parts.uri.query().unwrap_or_default());
        let pool = authority.pools.named(name.as_deref());
        pool.map(|pool| Self(Arc::clone(pool))).map_err(|error| failure(StatusCode::NOT_FOUND, &error))
    }
}

fn named_pool(query: &str) -> Option<String> {
    let name = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "pool");
    name.map(|(_, name)| name.into_owned())
}

/// The bound socket. Its file goes with the value.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    /// Ours to remove, unless systemd has opened the socket.
    file: Option<SocketFile>,
}

impl Admin {
    /// Opens the socket for this user alone; or takes one that was opened, with the mode it has.
    ///
    /// # Errors
    /// When the path cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(path: &Path, opened: Option<StdListener>) -> io::Result<Self> {
        if let Some(listener) = opened {
            return Ok(Self { listener: UnixListener::from_std(listener)?, file: None });
        }
        let (listener, file) = unix::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener: UnixListener::from_std(listener)?, file: Some(file) })
    }

    /// Answers for as long as it is polled.
    pub async fn serve(self, authority: Authority) {
        let Self { listener, file } = self;
        let routes = Router::new()
            .route(
                "/v1/status",
                get(async |State(authority): State<Authority>| {
                    reply(StatusCode::OK, &run::status(&authority))
                }),
            )
            .route(
                "/v1/workers",
                get(async |State(authority): State<Authority>| {
                    reply(StatusCode::OK, &run::workers(&authority))
                }),
            )
            .route("/v1/workers/{slot}/drain", post(drain))
            .route("/v1/workers/{slot}/restart", post(restart))
            .route(
                "/v1/workers/{slot}/undrain",
                post(async |State(authority): State<Authority>, UrlPath(slot): UrlPath<String>| {
                    outcome(run::undrain(&authority, &slot))
                }),
            )
            .route("/v1/sessions/{sid}", get(session))
            .route("/metrics", get(scrape))
            .route("/v1/policy", get(chains))
            .route("/v1/policy/set", post(set))
            .route("/v1/policy/rollback", post(rollback))
            .route("/v1/policy/explain", post(explain))
            .route(
                "/v1/policy/shadow",
                get(async |Chosen(pool): Chosen| reply(StatusCode::OK, &shadow::status(&pool).await))
                    .post(set_shadow),
            )
            .route(
                "/v1/policy/shadow/off",
                post(async |Chosen(pool): Chosen| outcome(aside(move || shadow::off(&pool)).await)),
            )
            .route("/v1/decisions", get(follow::follow))
            .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such path") })
            .with_state(authority);
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the admin interface has ended");
        }
        drop(file);
    }
}

async fn drain(State(authority): State<Authority>, UrlPath(slot): UrlPath<String>, body: Bytes) -> Response {
    match parsed(&body) {
        Ok(order) => outcome(run::drain(&authority, &slot, &order)),
        Err(response) => *response,
    }
}

async fn restart(
    State(authority): State<Authority>,
    UrlPath(slot): UrlPath<String>,
    body: Bytes,
) -> Response {
    match parsed(&body) {
        Ok(order) => outcome(run::restart(&authority, &slot, &order)),
        Err(response) => *response,
    }
}

async fn session(State(authority): State<Authority>, UrlPath(sid): UrlPath<String>) -> Response {
    match run::session(&authority, &sid) {
        Ok(value) => reply(StatusCode::OK, &value),
        Err(error) => failure(StatusCode::NOT_FOUND, &error),
    }
}

async fn scrape(State(authority): State<Authority>) -> Response {
    let mut shadows = Vec::new();
    for pool in authority.pools.iter() {
        let shadow = shadow::look(pool).await;
        shadows.extend(shadow.map(|shadow| (metrics::labels(&authority.pools, pool), shadow)));
    }
    match metrics::scrape(&authority, shadows) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The chain of the pool that is named, or of all of them.
async fn chains(State(authority): State<Authority>, RawQuery(query): RawQuery) -> Response {
    let one = async |pool: &Pool| {
        let mut value = policy::status(pool);
        value["shadow"] = shadow::status(pool).await;
        value
    };
    let named = named_pool(query.as_deref().unwrap_or_default());
    if named.is_some() || !authority.pools.several() {
        return match authority.pools.named(named.as_deref()) {
            Ok(pool) => reply(StatusCode::OK, &one(pool).await),
            Err(error) => failure(StatusCode::NOT_FOUND, &error),
        };
    }
    let mut all = Vec::new();
    for pool in authority.pools.iter() {
        let mut value = one(pool).await;
        value["pool"] = json!(&*pool.name);
        all.push(value);
    }
    reply(StatusCode::OK, &json!({ "pools": all }))
}

async fn set(Chosen(pool): Chosen, body: Bytes) -> Response {
    let order: policy::Set = match parsed(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    outcome(aside(move || policy::set(&pool, &order)).await)
}

async fn set_shadow(Chosen(pool): Chosen, body: Bytes) -> Response {
    let order: shadow::Set = match parsed(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let asked = Arc::clone(&pool);
    match aside(move || shadow::set(&asked, &order)).await {
        Ok(()) => reply(StatusCode::OK, &shadow::status(&pool).await),
        Err(error) => failure(StatusCode::CONFLICT, &error),
    }
}

/// Compiling takes its time, and connections must not wait for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn rollback(Chosen(pool): Chosen, body: Bytes) -> Response {
    match parsed(&body) {
        Ok(order) => outcome(policy::rollback(&pool, &order)),
        Err(response) => *response,
    }
}

/// Of the pool that is named, else of the one that such a request is for.
async fn explain(State(authority): State<Authority>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let order: policy::Explain = match parsed(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let pools = &authority.pools;
    let named = named_pool(query.as_deref().unwrap_or_default());
    let explained = order.head().and_then(|head| {
        let pool = match &named {
            Some(name) => pools.named(Some(name))?,
            None => pools.meant(&head).ok_or_else(|| "no pool is for this host and path: 404".to_owned())?,
        };
        let mut value = policy::explain(pool, &order, head)?;
        if pools.several() {
            value["pool"] = json!(&*pool.name);
        }
        Ok(value)
    });
    outcome(explained)
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Box::new(failure(StatusCode::BAD_REQUEST, &error.to_string())))
}

fn outcome(done: Result<Value, String>) -> Response {
    match done {
        Ok(value) => reply(StatusCode::OK, &value),
        Err(error) => failure(StatusCode::CONFLICT, &error),
    }
}

pub(super) fn failure(status: StatusCode, error: &str) -> Response {
    reply(status, &json!({ "error": error }))
}

fn reply(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}
