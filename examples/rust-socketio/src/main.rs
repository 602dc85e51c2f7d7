//! Socket.IO on several processes: `echo` comes back, `say` goes to everybody on the same worker.

use axum::Router;
use axum::routing::get;
use sidetrack_worker::{EngineIoLayer, KeepaliveLayer, Listener, Sessions};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")] // the other cores have their own workers
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = Listener::from_env()?.leave_when(async move {
        terminate.recv().await;
    });
    let (drain, idle) = (listener.drain(), listener.idle());
    let slot = listener.settings().slot.unwrap_or_else(|| "w?".to_owned());

    let (socket_io, io) = SocketIo::new_layer();
    let (sessions, name) = (listener.sessions(), slot.clone());
    io.ns("/", move |socket: SocketRef, io: SocketIo| connected(socket, io, sessions, name));
    let app = Router::new()
        .route(
            "/",
            get(move || async move { format!("Socket.IO on {slot}, process {}\n", std::process::id()) }),
        )
        .layer(socket_io)
        // Around the layer that speaks Engine.IO: it announces a session before its client knows it.
        .layer(EngineIoLayer::new(listener.sessions()).ending_with_request())
        .layer(KeepaliveLayer::new(&listener));

    let stop = async move {
        drain.await;
        // Told now, the clients open their sessions anew on another worker.
        tokio::spawn(async move { io.close().await });
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    idle.await; // WebSockets outlive the server
    Ok(())
}

async fn connected(socket: SocketRef, io: SocketIo, sessions: Sessions, slot: String) {
    // The layer has announced those that began with polling. Those that began as a WebSocket need
    // no routing; announced here, they count in this worker's load.
    sessions.open(socket.id.as_str()).await.keep();
    socket.on_disconnect(async move |socket: SocketRef| sessions.close(socket.id.as_str()));

    socket.emit("welcome", &slot).ok();
    socket.on("echo", async |Data::<String>(text), answer: AckSender| {
        // It fails when the client has gone, and then nobody waits.
        answer.send(&text).ok();
    });
    socket.on("say", async move |socket: SocketRef, Data::<String>(text)| {
        io.emit("said", &(socket.id.as_str(), text)).await.ok();
    });
}
