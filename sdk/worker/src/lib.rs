//! Serve connections that sidetrack hands over.
//!
//! A program started by `sidetrack run` binds no port. It takes its clients from a [`Listener`],
//! each with its first byte still unread and its real address, and serves them as if it had
//! accepted them itself:
//!
//! ```no_run
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = sidetrack_worker::Listener::from_env()?;
//! while let Some((mut stream, peer)) = listener.accept().await? {
//!     tokio::spawn(async move {
//!         let mut request = [0; 1024];
//!         stream.read(&mut request).await?;
//!         let body = format!("hello, {peer}\n");
//!         let length = body.len();
//!         stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes()).await
//!     });
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `axum` the listener goes straight into `axum::serve`:
#![cfg_attr(
    feature = "axum",
    doc = r#"
```no_run
use axum::{Router, extract::ConnectInfo, routing::get};
use sidetrack_worker::{Listener, Peer};

# async fn serve() -> Result<(), Box<dyn std::error::Error>> {
let listener = Listener::from_env()?;
let (drain, idle) = (listener.drain(), listener.idle());
let app = Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<Peer>| async move { format!("hello, {peer}") }));
axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
    .with_graceful_shutdown(drain)
    .await?;
// What was upgraded to a WebSocket outlives the server.
idle.await;
# Ok(())
# }
```
"#
)]
//!
//! Sessions stay with the worker that owns them when sidetrack knows who that is: see [`Sessions`],
//! and with the feature `engineio` the layer that announces Engine.IO sessions by itself.

#[cfg(feature = "axum")]
mod axum;
mod channel;
#[cfg(feature = "engineio")]
mod engineio;
#[cfg(test)]
mod fake;
mod framing;
mod gate;
mod join;
#[cfg(feature = "tower")]
mod keepalive;
mod life;
mod listener;
mod outbox;
mod own;
mod replay;
pub mod session_key;
#[cfg(feature = "tower")]
mod session_layer;
mod sessions;
mod settings;
mod socket;
mod stream;
pub mod wire;

/// The README's example compiles.
#[cfg(all(doctest, feature = "axum", feature = "engineio"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "engineio")]
pub use engineio::{EngineIoLayer, EngineIoService, LookedAt};
pub use join::{Join, JoinError};
#[cfg(feature = "tower")]
pub use keepalive::{KeepaliveLayer, KeepaliveService};
pub use listener::{ChannelError, Listener};
#[cfg(feature = "tower")]
pub use session_layer::{SessionLayer, SessionService};
pub use sessions::{Session, Sessions};
pub use settings::{Keepalive, SettingError, Settings};
pub use socket::Peer;
pub use stream::Stream;
