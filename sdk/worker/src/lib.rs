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
//! A program that something else starts, such as systemd, [joins](Join) a sidetrack that runs.
//!
//! # Sessions
//!
//! Requests of a session come to the worker that owns it when sidetrack knows who that is: tell it
//! with [`Sessions`], or let a layer do so.
//!
//! A client may send requests of *any* session over a connection it keeps open. So a [`Stream`]
//! looks at the head of each request before the server can read it, and when the session is not
//! this worker's it hands the connection back: unread, and after every earlier response has been
//! written. To the server it looks as if the client had left; the client notices nothing.
//! Sidetrack says whether that is wanted ([`Keepalive`]); where it is not, streams are passed
//! through as they are.
//!
//! # With axum
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
#![cfg_attr(not(feature = "axum"), doc = "\nThe feature `axum` makes the listener one for `axum::serve`.\n")]
//! # With hyper
//!
//! A [`Stream`] is a tokio stream, and hyper takes those:
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use hyper::server::conn::http1;
//! use hyper::{Request, Response, body::Incoming, service::service_fn};
//! use hyper_util::rt::TokioIo;
//! use sidetrack_worker::{Keepalive, Listener};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello".to_owned()))
//! }
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = Listener::from_env()?;
//! let keep_alive = listener.settings().keepalive != Keepalive::Close;
//! let idle = listener.idle();
//! while let Some((stream, _)) = listener.accept().await? {
//!     tokio::spawn(async move {
//!         let connection = http1::Builder::new()
//!             .keep_alive(keep_alive)
//!             .serve_connection(TokioIo::new(stream), service_fn(hello))
//!             .with_upgrades();
//!         connection.await.ok(); // the client has left
//!     });
//! }
//! idle.await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `axum` | `axum::serve` takes the listener; `ConnectInfo<Peer>` is the client's address |
//! | `tower` | `SessionLayer` learns sessions from responses; `KeepaliveLayer` closes connections where sidetrack wants that |
//! | `engineio` | `EngineIoLayer` announces Engine.IO (Socket.IO) sessions before the client learns their id; brings `tower` |
//!
//! None is on by default.

#![warn(missing_docs)]

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
pub mod matches;
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
pub use settings::{Keepalive, KeepaliveError, SettingError, Settings};
pub use socket::Peer;
pub use stream::Stream;
