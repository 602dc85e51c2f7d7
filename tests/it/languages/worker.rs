//! What `tests/node/workers/app.js` serves, with axum and socketioxide.

use std::process;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use sha1::{Digest as _, Sha1};
use sidetrack_worker::{EngineIoLayer, KeepaliveLayer, Listener, Peer, Sessions};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = Listener::from_env()?.leave_when(async move {
        terminate.recv().await;
    });
    let (drain, idle) = (listener.drain(), listener.idle());

    let (socket_io, io) = SocketIo::builder().max_payload(4_000_000).build_layer();
    let sessions = listener.sessions();
    io.ns("/", move |socket: SocketRef| connected(socket, sessions));
    let app = Router::new()
        .route("/pid", get(|| async { json(format!("{{\"pid\":{}}}", process::id())) }))
        .route("/peer", get(peer))
        .route("/upload", post(upload))
        .layer(DefaultBodyLimit::disable())
        .layer(socket_io)
        .layer(map_response(named))
        .layer(EngineIoLayer::new(listener.sessions()).ending_with_request())
        .layer(KeepaliveLayer::new(&listener));
    let stop = async move {
        drain.await;
        tokio::spawn(async move { io.close().await });
    };
    let app = app.into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    idle.await;
    Ok(())
}

async fn connected(socket: SocketRef, sessions: Sessions) {
    sessions.open(socket.id.as_str()).await.keep();
    socket.on_disconnect(async move |socket: SocketRef| sessions.close(socket.id.as_str()));
    socket.on("echo", async |Data::<rmpv::Value>(payload), answer: AckSender| {
        answer.send(&payload).ok();
    });
    socket.on("whoami", async |answer: AckSender| {
        answer.send(&process::id()).ok();
    });
}

async fn peer(ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    let (address, port) = peer.addr().map(|addr| (addr.ip().to_string(), addr.port())).unwrap_or_default();
    json(format!("{{\"pid\":{},\"address\":\"{address}\",\"port\":{port}}}", process::id()))
}

async fn upload(body: axum::body::Bytes) -> Response {
    let sha1: String = Sha1::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    json(format!("{{\"pid\":{},\"bytes\":{},\"sha1\":\"{sha1}\"}}", process::id(), body.len()))
}

fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// The pid in a header of every response.
async fn named(mut response: Response) -> Response {
    let name = HeaderName::from_static("x-worker-pid");
    response.headers_mut().insert(name, HeaderValue::from(process::id()));
    response
}
