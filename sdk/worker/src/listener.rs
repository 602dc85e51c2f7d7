//! Taking connections from the channel, acknowledging each before it can be read.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use crate::channel::{Channel, Said};
use crate::sessions::Sessions;
use crate::stream::{Adopted, Counted, Open, Peer, Socket, Stream};
use crate::wire::{self, Decoder, ToWorker, encode};

/// Yields the connections sidetrack hands to this worker, as a `TcpListener` yields its own.
///
/// Dropping it tells sidetrack that this worker leaves: connections that are already on their way
/// are given back unread and go to another worker, and the streams that are open stay so.
pub struct Listener {
    channel: Arc<Channel>,
    sessions: Sessions,
    inbox: Decoder,
    /// Acknowledged, but the acknowledgement may not have left yet.
    arrived: Option<Arrival>,
    ready: bool,
    leave: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    leaving: bool,
}

#[derive(Debug)]
struct Arrival {
    stream: Stream,
    peer: Peer,
    acknowledgement: Said,
}

/// Why there is no channel to sidetrack.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There is no sign of sidetrack in the environment.
    #[error(
        "{} is not set: this program gets its connections from sidetrack, so start it with `sidetrack run -- PROGRAM`",
        wire::CHANNEL_FD
    )]
    NotStarted,
    /// The environment variable holds something else.
    #[error(
        "{}={value} is not a descriptor number: it is set by sidetrack, and nothing between sidetrack and this program may change it",
        wire::CHANNEL_FD
    )]
    NotANumber {
        /// What it holds.
        value: String,
    },
    /// The descriptor is closed, or something else.
    #[error(
        "descriptor {number}, named by {}, is {found}, not the channel to sidetrack: a wrapper between sidetrack and this program may have closed it, so let the wrapper `exec` the program with its descriptors open",
        wire::CHANNEL_FD
    )]
    NotAChannel {
        /// Its number.
        number: RawFd,
        /// What it is.
        found: String,
    },
    /// There is a listener already, or was one.
    #[error("the channel to sidetrack is already in use: one process has one listener")]
    Taken,
    /// The system refused.
    #[error("the channel to sidetrack cannot be used")]
    Io(#[from] io::Error),
}

/// No message of sidetrack is longer; relayed broadcasts are the longest.
const LONGEST_LINE: usize = 1 << 20;

/// One read brings at most one connection, whose line has about a hundred bytes.
const READ_SIZE: usize = 4096;

/// A descriptor is adopted once per process, whoever asks.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl Listener {
    /// Takes the channel this process has inherited from sidetrack.
    ///
    /// The descriptor is made close-on-exec. The environment variable stays, since removing it is
    /// not safe once there are threads: when this program starts Node.js programs of its own, let
    /// it call `Command::env_remove(sidetrack_worker::wire::CHANNEL_FD)`.
    ///
    /// # Errors
    /// When the program was not started by sidetrack, or the descriptor is not a channel; the
    /// message says what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn from_env() -> Result<Self, ChannelError> {
        let value = env::var_os(wire::CHANNEL_FD).ok_or(ChannelError::NotStarted)?;
        let value = value.to_string_lossy();
        // 0, 1 and 2 are what every process has; none of them can be the channel.
        let number = value
            .parse()
            .ok()
            .filter(|&number: &RawFd| number > 2)
            .ok_or_else(|| ChannelError::NotANumber { value: value.to_string() })?;
        Self::new(inherited(number)?).map_err(ChannelError::Io)
    }

    /// A listener on a channel that came another way, such as one end of a socket pair in a test.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(channel: UnixStream) -> io::Result<Self> {
        let channel = Channel::new(channel)?;
        Ok(Self {
            sessions: Sessions::new(Arc::clone(&channel)),
            channel,
            inbox: Decoder::new(LONGEST_LINE),
            arrived: None,
            ready: false,
            leave: None,
            leaving: false,
        })
    }

    /// Tells sidetrack that connections may come. The first [`accept`](Self::accept) does so too.
    pub fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.channel.say(encode::READY);
        }
    }

    /// The next connection; none when there will be no more, because sidetrack asked this worker
    /// to finish or is gone.
    ///
    /// A connection is yielded only after its acknowledgement has left, so that it is never read
    /// here and given to another worker as well. A descriptor that was lost on the way, or is no
    /// connection, is refused and accepting goes on.
    ///
    /// Cancel safe: a connection that has arrived is kept for the next call.
    ///
    /// # Errors
    /// When the channel is broken: sidetrack speaks something else, or reading fails. There will
    /// be no more connections then.
    pub async fn accept(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        self.ready();
        loop {
            // Stays in `self` while its acknowledgement waits, so that cancelling loses nothing.
            if let Some(arrival) = &self.arrived {
                let acknowledged = self.channel.departure(arrival.acknowledgement).await;
                match self.arrived.take() {
                    Some(arrival) if acknowledged => return Ok(Some((arrival.stream, arrival.peer))),
                    // Not acknowledged, so perhaps somebody else's by now. Dropped unread.
                    _ => continue,
                }
            }
            if self.channel.has_ended() {
                return Ok(None);
            }
            match self.next().await {
                Ok(Some(ToWorker::Connection)) => self.arrived = self.take_connection(Counted::Yes),
                Ok(Some(ToWorker::Probe)) => self.arrived = self.take_connection(Counted::No),
                Ok(Some(ToWorker::Disconnect)) => self.channel.end(),
                // All that sidetrack had sent before it knew that we leave has been taken.
                Ok(Some(ToWorker::Acknowledged)) if self.leaving => self.channel.end(),
                Ok(Some(ToWorker::Acknowledged | ToWorker::Other)) => {}
                Ok(None) => {
                    self.channel.hang_up();
                    self.channel.end();
                }
                Err(error) => {
                    self.channel.hang_up();
                    self.channel.end();
                    return Err(error);
                }
            }
        }
    }

    /// The handle that announces this worker's sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// Leaves when `signal` resolves, such as on SIGTERM: tells sidetrack to send no more, takes
    /// what was on its way, and then ends as if sidetrack had asked. So [`drain`](Self::drain) is
    /// the one signal a server needs.
    ///
    /// The signal is looked at in [`accept`](Self::accept).
    #[must_use]
    pub fn leave_when(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.leave = Some(Box::pin(signal));
        self
    }

    /// Resolves when no more connections will come and all that came have begun to be read: the
    /// signal for a graceful shutdown. (A server that is shut down closes connections from which it
    /// has read nothing. Here each of them has a request waiting.)
    ///
    /// Somebody has to be in [`accept`](Self::accept) meanwhile, as `axum::serve` is.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + use<> {
        self.channel.until(|life| life.ended && life.unread == 0)
    }

    /// Resolves when no stream is open. To be awaited after the server has stopped: what was
    /// upgraded to a WebSocket outlives it.
    pub fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        self.channel.until(|life| life.open == 0)
    }

    /// The next message, with an eye on the signal to leave.
    async fn next(&mut self) -> io::Result<Option<ToWorker>> {
        let mut next = pin!(next(&mut self.inbox, &self.channel));
        std::future::poll_fn(|cx| {
            if let Some(leave) = &mut self.leave
                && leave.as_mut().poll(cx).is_ready()
            {
                self.leave = None;
                self.leaving = true;
                self.channel.say(encode::LEAVING);
            }
            next.as_mut().poll(cx)
        })
        .await
    }

    fn take_connection(&mut self, counted: Counted) -> Option<Arrival> {
        let Some(Ok(adopted)) = self.inbox.take_descriptor().map(Socket::adopt) else {
            self.channel.say(encode::HANDLE_NACK);
            return None;
        };
        let acknowledgement = self.channel.say(encode::HANDLE_ACK);
        let open = Open::new(&self.channel, counted);
        match adopted {
            Adopted::Socket(socket, peer) => {
                Some(Arrival { stream: Stream::new(socket, open), peer, acknowledgement })
            }
            // Reported as closed by the drop of `open`.
            Adopted::Gone => None,
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.channel.has_hung_up() {
            return;
        }
        if !self.channel.has_ended() {
            self.channel.end();
            if !self.leaving {
                self.channel.say(encode::LEAVING);
            }
        }
        let inbox = std::mem::replace(&mut self.inbox, Decoder::new(0));
        self.channel.runtime().spawn(refuse(inbox, Arc::clone(&self.channel)));
    }
}

/// Gives back what comes after the listener has gone, so that no client waits for a worker that
/// will never read it.
async fn refuse(mut inbox: Decoder, channel: Arc<Channel>) {
    while let Ok(Some(message)) = next(&mut inbox, &channel).await {
        if matches!(message, ToWorker::Connection | ToWorker::Probe) {
            drop(inbox.take_descriptor());
            channel.say(encode::HANDLE_NACK);
        }
    }
    channel.hang_up();
}

/// The next message; none when sidetrack is gone. Cancel safe: what was read is in `inbox`.
async fn next(inbox: &mut Decoder, channel: &Channel) -> io::Result<Option<ToWorker>> {
    let mut buffer = [0; READ_SIZE];
    loop {
        match inbox.next_line() {
            // What is none of ours is no concern: a program may be sent what it likes.
            Ok(Some(line)) => return Ok(Some(ToWorker::parse(line).unwrap_or(ToWorker::Other))),
            Ok(None) => {
                inbox.close_strays();
            }
            Err(oversized) => return Err(io::Error::new(io::ErrorKind::InvalidData, oversized)),
        }
        let received = channel.receive(&mut buffer).await?;
        if received.bytes == 0 {
            return Ok(None);
        }
        inbox.push(&buffer[..received.bytes], received.descriptors);
        if received.lost {
            inbox.push_lost();
        }
    }
}

/// Adopts the channel's descriptor after a look at what it is.
fn inherited(number: RawFd) -> Result<UnixStream, ChannelError> {
    let wrong = |found: String| ChannelError::NotAChannel { number, found };
    let found = std::fs::read_link(format!("/proc/self/fd/{number}"))
        .map_err(|error| wrong(format!("not open ({error})")))?;
    if !found.to_string_lossy().starts_with("socket:") {
        return Err(wrong(found.display().to_string()));
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ChannelError::Taken);
    }
    // SAFETY: the descriptor is open, as we have just seen; sidetrack has put it there for whoever
    // reads the variable that names it, and `TAKEN` lets one caller do so in the life of a process.
    #[allow(unsafe_code, reason = "an inherited descriptor is known by its number alone")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };

    let name: SockaddrStorage = getsockname(descriptor.as_raw_fd()).map_err(io::Error::from)?;
    let kind = getsockopt(&descriptor, sockopt::SockType).map_err(io::Error::from)?;
    if name.family() != Some(AddressFamily::Unix) || kind != SockType::Stream {
        return Err(wrong("a socket of another kind".into()));
    }
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(io::Error::from)?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, PATIENCE, connect, tcp_pair};
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const READY: &str = r#"{"type":"sidetrack:ready"}"#;
    const ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
    const NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
    const LEAVING: &str = r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":0}"#;

    fn closed(count: u64) -> String {
        format!(r#"{{"count":{count},"type":"sidetrack:sockets-closed"}}"#)
    }

    async fn accept(listener: &mut Listener) -> (Stream, Peer) {
        timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_connection_comes_with_its_bytes_unread_and_its_address() {
        let (mut fake, mut listener) = Fake::with_listener();
        let (mut client, addr) = connect(&fake);
        client.write_all(b"hello").unwrap();
        let (mut stream, peer) = accept(&mut listener).await;
        assert_eq!(peer, Peer::Tcp(addr));
        // Both went out before anybody could read.
        assert_eq!(fake.waiting(), [READY, ACK]);

        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        stream.write_all(b"world").await.unwrap();
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "world");
        assert_eq!(fake.lines(1).await, [closed(1)]);
    }

    #[tokio::test]
    async fn one_end_of_a_socket_pair_is_a_connection_too() {
        let (mut fake, mut listener) = Fake::with_listener();
        let (mut here, there) = UnixStream::pair().unwrap();
        fake.send(encode::PROBE, Some(there.as_fd()));
        drop(there);
        let (mut stream, peer) = accept(&mut listener).await;
        assert_eq!((peer, peer.to_string().as_str()), (Peer::Unix, "unix"));
        stream.write_all(b"alive").await.unwrap();
        drop(stream);
        let mut answer = String::new();
        here.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "alive");
        // Not counted, so not reported: the next line is about the next connection.
        let (_client, _) = connect(&fake);
        drop(accept(&mut listener).await);
        assert_eq!(fake.lines(4).await, [READY, ACK, ACK, &closed(1)]);
    }

    #[tokio::test]
    async fn messages_may_be_joined_or_cut_anywhere() {
        let (fake, mut listener) = Fake::with_listener();
        for cut in 1..encode::CONNECTION.len() {
            let (mut client, accepted, _) = tcp_pair();
            client.write_all(&[u8::try_from(cut).unwrap()]).unwrap();
            let (front, back) = encode::CONNECTION.split_at(cut);
            let mut first = b"{\"a\":1}\n\"text\"\nrubbish\n".to_vec();
            first.extend_from_slice(front);
            // The descriptor may ride on either part.
            let on_back = cut % 2 == 0;
            fake.send(&first, (!on_back).then(|| accepted.as_fd()));
            assert!(timeout(std::time::Duration::from_millis(1), listener.accept()).await.is_err());
            fake.send(back, on_back.then(|| accepted.as_fd()));
            let (mut stream, _) = accept(&mut listener).await;
            assert_eq!(usize::from(stream.read_u8().await.unwrap()), cut);
        }
    }

    #[tokio::test]
    async fn a_connection_without_its_descriptor_is_refused_and_accepting_goes_on() {
        let (mut fake, mut listener) = Fake::with_listener();
        fake.send(encode::CONNECTION, None);
        let (reader, _writer) = std::io::pipe().unwrap();
        fake.hand_over(reader.as_fd());
        let (_client, addr) = connect(&fake);
        assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
        assert_eq!(fake.waiting(), [READY, NACK, NACK, ACK]);
    }

    #[tokio::test]
    async fn a_descriptor_nobody_spoke_of_is_closed() {
        let (fake, mut listener) = Fake::with_listener();
        let (mut reader, writer) = std::io::pipe().unwrap();
        fake.send(b"{\"type\":\"stray\"}\n", Some(writer.as_fd()));
        drop(writer);
        let (_client, addr) = connect(&fake);
        assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_has_gone_costs_nothing_and_is_reported() {
        let (mut fake, mut listener) = Fake::with_listener();
        let (client, accepted, _) = tcp_pair();
        // Closing with bytes unread resets the connection.
        (&accepted).write_all(b"unread").unwrap();
        while client.peek(&mut [0]).unwrap() == 0 {}
        drop(client);
        while accepted.peer_addr().is_ok() {
            tokio::task::yield_now().await;
        }
        fake.hand_over(accepted.as_fd());
        assert!(timeout(std::time::Duration::from_millis(50), listener.accept()).await.is_err());
        assert_eq!(fake.lines(3).await, [READY.to_owned(), ACK.to_owned(), closed(1)]);
    }

    #[tokio::test]
    async fn streams_dropped_together_are_reported_together() {
        let (mut fake, mut listener) = Fake::with_listener();
        let mut streams = Vec::new();
        for _ in 0..10 {
            connect(&fake);
            streams.push(accept(&mut listener).await.0);
        }
        fake.lines(11).await;
        let idle = listener.idle();
        streams.clear();
        assert_eq!(fake.lines(1).await, [closed(10)]);
        timeout(PATIENCE, idle).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_channel_delays_connections_and_announcements_but_loses_none() {
        let (mut fake, mut listener) = Fake::with_listener();
        listener.ready();
        let sessions = listener.sessions();
        let mut count = 0;
        while timeout(std::time::Duration::from_millis(20), sessions.opened(&format!("s{count}")))
            .await
            .is_ok()
        {
            count += 1;
        }
        let (_client, addr) = connect(&fake);
        for _ in 0..3 {
            let impatient = timeout(std::time::Duration::from_millis(5), listener.accept()).await;
            assert!(impatient.is_err(), "yielded before its acknowledgement has left");
        }
        let (accepted, lines) = tokio::join!(accept(&mut listener), fake.lines(count + 3));
        assert_eq!(accepted.1, Peer::Tcp(addr));
        assert_eq!(lines.len(), count + 3);
        assert_eq!(lines.last().map(String::as_str), Some(ACK));
        assert_eq!(sessions.count(), count + 1);
    }

    #[tokio::test]
    async fn sessions_are_announced_once_and_in_order() {
        let (mut fake, listener) = Fake::with_listener();
        let sessions = listener.sessions();
        sessions.opened("a\"b").await;
        sessions.clone().opened("a\"b").await;
        sessions.closed("a\"b");
        sessions.closed("a\"b");
        sessions.closed("never opened");
        assert_eq!(
            fake.waiting(),
            [r#"{"sid":"a\"b","type":"sidetrack:opened"}"#, r#"{"sid":"a\"b","type":"sidetrack:closed"}"#]
        );
    }

    #[tokio::test]
    async fn the_end_of_the_channel_ends_accept_after_what_came_before() {
        let (fake, mut listener) = Fake::with_listener();
        let drain = listener.drain();
        let (_client, addr) = connect(&fake);
        drop(fake);
        // Its acknowledgement cannot leave any more, so it may be another worker's by now.
        assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none(), "{addr}");
        timeout(PATIENCE, drain).await.unwrap();
        timeout(PATIENCE, listener.idle()).await.unwrap();
        listener.sessions().opened("nobody listens").await;
    }

    #[tokio::test]
    async fn a_disconnect_ends_accept_and_leaves_streams_and_sessions_alone() {
        let (mut fake, mut listener) = Fake::with_listener();
        let (_client, _) = connect(&fake);
        fake.send(&encode::disconnect(1), None);
        let (stream, _) = accept(&mut listener).await;
        assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none());
        let sessions = listener.sessions();
        drop(listener);
        sessions.opened("late").await;
        assert_eq!(fake.waiting(), [READY, ACK, r#"{"sid":"late","type":"sidetrack:opened"}"#]);
        drop(stream);
        assert_eq!(fake.lines(1).await, [closed(1)]);
    }

    #[tokio::test]
    async fn a_drain_waits_until_every_connection_has_begun_to_be_read() {
        let (fake, mut listener) = Fake::with_listener();
        let mut drain = std::pin::pin!(listener.drain());
        let (mut first, _) = connect(&fake);
        connect(&fake);
        fake.send(&encode::disconnect(1), None);
        let (mut read, _) = accept(&mut listener).await;
        let (dropped, _) = accept(&mut listener).await;
        assert!(listener.accept().await.unwrap().is_none());
        drop(dropped);
        assert!(timeout(std::time::Duration::from_millis(20), &mut drain).await.is_err());
        first.write_all(b"request").unwrap();
        read.read_u8().await.unwrap();
        timeout(PATIENCE, drain).await.unwrap();
    }

    #[tokio::test]
    async fn a_listener_that_leaves_takes_what_was_on_its_way() {
        let (mut fake, listener) = Fake::with_listener();
        let (leave, left) = tokio::sync::oneshot::channel::<()>();
        let mut listener = listener.leave_when(async { left.await.unwrap_or_default() });
        let waiting = timeout(std::time::Duration::from_millis(5), listener.accept()).await;
        assert!(waiting.is_err());
        leave.send(()).unwrap();
        let (_client, addr) = connect(&fake);
        assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
        assert_eq!(fake.waiting(), [READY, LEAVING, ACK]);
        fake.send(&encode::acknowledged(0, 5), None);
        assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none());
        drop(listener);
        // Not said again; what comes next is about the stream dropped above.
        assert_eq!(fake.lines(1).await, [closed(1)]);
    }

    #[tokio::test]
    async fn a_dropped_listener_says_so_and_gives_back_what_comes_late() {
        let (mut fake, mut listener) = Fake::with_listener();
        listener.ready();
        let (_early, _) = connect(&fake);
        drop(listener);
        assert_eq!(fake.lines(3).await, [READY, LEAVING, NACK]);
        let (_late, _) = connect(&fake);
        assert_eq!(fake.lines(1).await, [NACK]);
    }

    #[tokio::test]
    async fn an_endless_line_is_an_error_and_an_end() {
        let (fake, mut listener) = Fake::with_listener();
        let drain = listener.drain();
        let flood = async {
            let filler = [b'x'; 4096];
            loop {
                match wire::send(fake.channel(), &filler, None) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let error = tokio::select! {
            accepted = listener.accept() => accepted.unwrap_err(),
            () = flood => panic!("the listener went away"),
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(listener.accept().await.unwrap().is_none());
        timeout(PATIENCE, drain).await.unwrap();
    }

    #[test]
    fn a_descriptor_that_is_no_channel_is_named() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let message = |number: RawFd| inherited(number).unwrap_err().to_string();
        assert!(message(file.as_raw_fd()).contains("is /dev/null, not the channel"));
        assert!(message(1_000_000).contains("not open"));
        drop(tcp);
    }
}
