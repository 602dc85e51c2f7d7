//! The listener as `axum::serve` takes it.

use std::io;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;

use crate::{Listener, Peer, Stream};

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Peer;

    /// Never returns once there are no more connections; [`Listener::drain`] tells.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match Self::accept(self).await {
            Ok(Some(connection)) => return connection,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the channel to sidetrack is broken"),
        }
        std::future::pending().await
    }

    /// A worker has no address of its own.
    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "sidetrack listens, this worker does not"))
    }
}

/// `ConnectInfo<Peer>` tells a handler who the client is.
impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        *stream.remote_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, PATIENCE, connect};
    use crate::wire::encode;
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use std::io::{Read as _, Write as _};

    #[tokio::test]
    async fn axum_serves_handed_over_connections_until_sidetrack_says_enough() {
        let (mut fake, listener) = Fake::with_listener();
        let drain = listener.drain();
        let who = get(|ConnectInfo(peer): ConnectInfo<Peer>| async move { peer.to_string() });
        let app = Router::new().route("/", who).into_make_service_with_connect_info::<Peer>();
        let server = tokio::spawn(async { axum::serve(listener, app).with_graceful_shutdown(drain).await });

        let (mut client, addr) = connect(&fake);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            client.read_to_string(&mut answer).map(|_| answer)
        });
        let answer = answer.await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&addr.to_string()), "{answer}");

        fake.send(&encode::disconnect(1), None);
        tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
        assert_eq!(fake.lines(3).await.len(), 3);
    }
}
