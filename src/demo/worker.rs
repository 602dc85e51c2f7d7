//! The demo's worker: axum and socketioxide on connections handed over by sidetrack.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nix::sys::signal::{Signal, raise};
use serde::Serialize;
use sidetrack_worker::{EngineIoLayer, KeepaliveLayer, Listener, Peer, Sessions, wire};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use tokio::signal::unix::{SignalKind, signal};

/// Pages in background tabs may sleep for a minute; they shall find their sessions again.
const PING_TIMEOUT: Duration = Duration::from_secs(90);
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long a session may wait before it connects to the namespace. Until then nothing but the
/// layer knows of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });

/// How long closing connections may take before the process ends without them.
const FAREWELL: Duration = Duration::from_secs(3);

/// Everything the page loads, embedded.
const ASSETS: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/demo.css", "text/css; charset=utf-8", include_str!("page/demo.css")),
    ("/demo.js", "text/javascript; charset=utf-8", include_str!("page/demo.js")),
    ("/engine.js", "text/javascript; charset=utf-8", include_str!("page/engine.js")),
];

/// Which worker this is.
#[derive(Debug, Clone, Serialize)]
struct Worker {
    pid: u32,
    slot: String,
}

/// The answer to "who serves me?".
#[derive(Debug, Serialize)]
struct Who<'a> {
    #[serde(flatten)]
    worker: &'a Worker,
    /// The client as this worker sees it; none on a Unix socket.
    client: Option<SocketAddr>,
    /// How a session's messages travel now; none outside a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
}

/// Serves until sidetrack has no more connections for this worker, or the process is asked to end.
///
/// # Errors
/// When the process was not started by sidetrack; the message says what to do.
pub async fn serve() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    // A terminal sends it to sidetrack and its workers alike; sidetrack decides when they end.
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    let asked = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => {}
            }
        }
    };
    serve_on(Listener::from_env()?.leave_when(asked)).await
}

pub(super) async fn serve_on(listener: Listener) -> anyhow::Result<()> {
    let worker =
        Worker { pid: std::process::id(), slot: std::env::var(wire::SLOT).unwrap_or_else(|_| "w?".into()) };
    let (drain, idle) = (listener.drain(), listener.idle());
    let (app, io) = app(worker, listener.sessions());
    let app = app.layer(KeepaliveLayer::new(&listener));
    let stop = async move {
        drain.await;
        // Told now, the clients open their sessions anew on another worker.
        tokio::spawn(async move { io.close().await });
    };
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop)
        .await?;
    if tokio::time::timeout(FAREWELL, idle).await.is_err() {
        tracing::debug!("ended with connections open");
    }
    Ok(())
}

fn app(worker: Worker, sessions: Sessions) -> (Router, SocketIo) {
    let worker = Arc::new(worker);
    let (socket_io, io) = SocketIo::builder()
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .build_layer();
    let (announced, owner) = (sessions.clone(), Arc::clone(&worker));
    io.ns("/", move |socket: SocketRef| connected(socket, announced, owner));

    let mut routes = Router::new().route("/whoami", get(whoami));
    for (path, kind, text) in ASSETS {
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
        routes = routes.route(path, get(move || async move { (headers, text) }));
    }
    let app =
        routes.with_state(worker).layer(socket_io).layer(EngineIoLayer::new(sessions).ending_with_request());
    (app, io)
}

async fn whoami(State(worker): State<Arc<Worker>>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    match serde_json::to_string(&Who { worker: &worker, client: shown(peer), transport: None }) {
        Ok(body) => ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A session has connected. Polling sessions are announced already, by the layer; those that began
/// as a WebSocket need no routing and are announced here to be counted.
async fn connected(socket: SocketRef, sessions: Sessions, worker: Arc<Worker>) {
    // socketioxide uses the Engine.IO session id, the one in the URL, as the socket's id.
    sessions.open(socket.id.as_str()).await.keep();
    socket.on_disconnect(async move |socket: SocketRef| sessions.close(socket.id.as_str()));

    let peer = socket.req_parts().extensions.get().map(|&ConnectInfo(peer)| peer);
    let client = peer.and_then(shown);
    let answering = Arc::clone(&worker);
    socket.on("who", async move |socket: SocketRef, answer: AckSender| {
        let transport = match socket.transport_type() {
            socketioxide::TransportType::Polling => "polling",
            socketioxide::TransportType::Websocket => "websocket",
        };
        // It fails when the client has gone, and then nobody asks any more.
        answer.send(&Who { worker: &answering, client, transport: Some(transport) }).ok();
    });
    // For those who want to see a worker die without a terminal. Never for strangers.
    if client.is_none_or(|client| client.ip().is_loopback()) {
        socket.on("kill", async move || {
            tracing::warn!(pid = worker.pid, slot = worker.slot, "killed, as the page wished");
            // Like `kill -9`: nothing is said, nothing is tidied up. It does not return.
            raise(Signal::SIGKILL).ok();
        });
    }
}

/// An IPv4 client of a listener for both is shown as what it is.
fn shown(peer: Peer) -> Option<SocketAddr> {
    peer.addr().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}
