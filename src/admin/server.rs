//! The server's side: a socket, and who answers at it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::policy;
use crate::policy::{Chain, Watch};
use crate::sys::unix::{self, SocketFile};
use crate::worker::Fleet;

/// What the admin interface has authority over.
#[derive(Debug, Clone)]
pub struct Authority {
    pub policy: Arc<Chain>,
    pub fleet: Arc<Fleet>,
    /// Told when a link has got another file.
    pub watch: Arc<Watch>,
}

/// The bound socket. Its file goes with the value.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    file: SocketFile,
}

impl Admin {
    /// Opens the socket for this user alone.
    ///
    /// # Errors
    /// When the path cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = unix::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener: UnixListener::from_std(listener)?, file })
    }

    /// Answers for as long as it is polled.
    pub async fn serve(self, authority: Authority) {
        let Self { listener, file } = self;
        let routes = Router::new()
            .route(
                "/v1/policy",
                get(|State(authority): State<Authority>| async move {
                    reply(StatusCode::OK, &policy::status(&authority))
                }),
            )
            .route("/v1/policy/set", post(set))
            .route("/v1/policy/rollback", post(rollback))
            .route("/v1/policy/explain", post(explain))
            .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such path") })
            .with_state(authority);
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the admin interface has ended");
        }
        drop(file);
    }
}

async fn set(State(authority): State<Authority>, body: Bytes) -> Response {
    let order: policy::Set = match parsed(&body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    // Compiling takes its time, and connections must not wait for it.
    let done = tokio::task::spawn_blocking(move || policy::set(&authority, &order)).await;
    outcome(done.unwrap_or_else(|error| Err(error.to_string())))
}

async fn rollback(State(authority): State<Authority>, body: Bytes) -> Response {
    match parsed(&body) {
        Ok(order) => outcome(policy::rollback(&authority, &order)),
        Err(response) => *response,
    }
}

async fn explain(State(authority): State<Authority>, body: Bytes) -> Response {
    match parsed(&body) {
        Ok(order) => outcome(policy::explain(&authority, &order)),
        Err(response) => *response,
    }
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

fn failure(status: StatusCode, error: &str) -> Response {
    reply(status, &json!({ "error": error }))
}

fn reply(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}
