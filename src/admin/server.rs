//! The server's side: where it listens, and who answers.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::middleware;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::Token;
use super::guard::Guard;
use super::orders::Orders;
use super::routes;
use crate::config::Config;
use crate::listener::Servers;
use crate::live::Live;
use crate::pool::Pools;
use crate::sys::unix::{self, Door, SocketFile};
use crate::telemetry::Telemetry;
use crate::upgrade::Desk;
use crate::worker::Rolling;

/// Connections at one listener. Whoever comes later waits in the kernel.
const MOST_CONNECTIONS: usize = 64;

/// For a request's head, and between two requests.
const HEAD: Duration = Duration::from_secs(30);

/// What the admin interface has authority over.
#[derive(Debug, Clone)]
pub struct Authority {
    pub pools: Arc<Pools>,
    pub servers: Arc<Servers>,
    pub telemetry: Arc<Telemetry>,
    /// One for each connection that may be pending.
    pub permits: Arc<Semaphore>,
    /// The configuration in force.
    pub config: Live<Config>,
    /// When the run began.
    pub started: SystemTime,
    /// When this program has gone on with it; none when it began it.
    pub upgraded: Option<SystemTime>,
    /// How far the last rolling restart has come.
    pub rolling: Live<Option<Rolling>>,
    /// Where orders about the whole run go.
    pub orders: Orders,
    /// Where upgrades are ordered.
    pub upgrades: Desk,
}

/// Where somebody may ask: a Unix socket, TCP, or both.
#[derive(Debug, Default)]
pub struct Admin {
    /// The file goes with the value, unless systemd has opened the socket.
    socket: Option<(UnixListener, Option<SocketFile>)>,
    tcp: Option<(TcpListener, Option<Token>)>,
}

/// The same, as one program leaves it to the next.
#[derive(Debug, Default)]
pub struct Doors {
    pub socket: Option<Door>,
    pub tcp: Option<OwnedFd>,
}

impl Admin {
    /// Opens a Unix socket for this user alone; or takes one that was opened, with the mode it has.
    ///
    /// # Errors
    /// When the path cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(&mut self, path: &Path, opened: Option<StdListener>) -> io::Result<()> {
        if let Some(listener) = opened {
            self.socket = Some((UnixListener::from_std(listener)?, None));
            return Ok(());
        }
        let (listener, file) = unix::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.socket = Some((UnixListener::from_std(listener)?, Some(file)));
        Ok(())
    }

    /// Listens on TCP for whoever has the token; without one, for everybody who can connect.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn listen(&mut self, address: SocketAddr, token: Option<Token>) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        self.tcp = Some((listener, token));
        Ok(address)
    }

    /// As the program before has opened it.
    ///
    /// # Errors
    /// When it cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn resume(doors: Doors, token: Option<Token>) -> io::Result<Self> {
        let socket = doors.socket.map(|door| {
            let (listener, file) = door.open();
            UnixListener::from_std(listener).map(|listener| (listener, file))
        });
        let tcp = doors.tcp.map(|listener| TcpListener::from_std(listener.into()).map(|it| (it, token)));
        Ok(Self { socket: socket.transpose()?, tcp: tcp.transpose()? })
    }

    /// Descriptors of it to go along to the next program.
    ///
    /// # Errors
    /// When there are none to be had.
    pub fn doors(&self) -> io::Result<Doors> {
        let socket = self.socket.as_ref().map(|(listener, file)| Door::of(listener, file.is_some()));
        let tcp = self.tcp.as_ref().map(|(listener, _)| listener.as_fd().try_clone_to_owned());
        Ok(Doors { socket: socket.transpose()?, tcp: tcp.transpose()? })
    }

    /// Answers for as long as it is polled.
    pub async fn serve(self, authority: Authority) {
        let routes = routes::router().with_state(authority);
        let guarded = |guard: Guard| {
            routes.clone().layer(middleware::from_fn_with_state(Arc::new(guard), Guard::check))
        };
        let (socket, _file) = self.socket.unzip();
        let socket = async {
            if let Some(listener) = socket {
                answer(listener, guarded(Guard::socket())).await;
            }
        };
        let tcp = async {
            if let Some((listener, token)) = self.tcp {
                answer(listener, guarded(Guard::tcp(token))).await;
            }
        };
        tokio::join!(socket, tcp);
    }
}

/// Takes connections, a bounded number at a time.
async fn answer<L: Listener>(mut listener: L, routes: Router) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let (stream, _) = listener.accept().await;
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD);
            // It fails when the client leaves in the middle, and then nobody is there to be told.
            drop(http.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}
