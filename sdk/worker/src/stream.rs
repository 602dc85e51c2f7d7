//! A client's connection as the worker gets it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::channel::Channel;
use crate::framing::request::Head;
use crate::framing::response::Goes;
use crate::gate::{Gate, Owners, Verdict};
use crate::replay::Replay;
use crate::session_key::{Found, SessionKey};
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::socket::{Adopted, LONGEST_LOOK, Looked, Socket};
use crate::wire::{Luggage, hand_back};

/// A client's connection, with every byte the client has sent still unread.
///
/// When the next request on it belongs to a session of another worker, the connection is handed
/// back to sidetrack before anything of that request is read, and after every earlier response has
/// been written in full. To its server it then looks as if the client had gone: reads end, writes
/// fail with `BrokenPipe`, and shutting it down does nothing.
///
/// Sidetrack is told when it is dropped.
#[derive(Debug)]
pub struct Stream {
    // Before `open`: the socket is closed when that is reported.
    /// None once it has been handed back.
    socket: Option<Socket>,
    replay: Replay,
    /// None when whatever comes is this worker's.
    guard: Option<Box<Guard>>,
    unread: Option<Unread>,
    open: Option<Open>,
}

/// What it takes to notice a request of another worker's.
#[derive(Debug)]
struct Guard {
    gate: Gate,
    home: Home,
}

/// Whose requests these are.
#[derive(Debug)]
struct Home {
    settings: Arc<Settings>,
    sessions: Sessions,
}

impl Stream {
    pub(crate) fn new(socket: Socket, open: Open, sessions: &Sessions, luggage: Luggage) -> Self {
        let settings = sessions.settings();
        let guard = settings.hands_back_by().is_some().then(|| {
            let home = Home { settings: Arc::clone(&settings), sessions: sessions.clone() };
            Box::new(Guard { gate: Gate::new(luggage.last_stop), home })
        });
        Self {
            socket: Some(socket),
            replay: Replay::new(luggage.data.into_vec()),
            guard,
            unread: Some(Unread::new(&open.channel)),
            open: Some(open),
        }
    }

    /// A stream that is served whoever owns its sessions.
    pub(crate) fn unguarded(socket: Socket, open: Open) -> Self {
        let unread = Some(Unread::new(&open.channel));
        Self { socket: Some(socket), replay: Replay::default(), guard: None, unread, open: Some(open) }
    }

    /// The socket, for its options; none once the connection has been handed back.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// True once the connection has been handed back.
    #[must_use]
    pub fn is_handed_back(&self) -> bool {
        self.socket.is_none()
    }

    /// Reads up to `limit` bytes: what was read before comes first.
    fn poll_read_some(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        limit: u64,
    ) -> Poll<io::Result<usize>> {
        if !self.replay.is_empty() {
            return Poll::Ready(Ok(self.replay.read(buffer, limit)));
        }
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        let socket = Pin::new(socket);
        match usize::try_from(limit) {
            Ok(limit) if limit < buffer.remaining() => {
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit));
                ready!(socket.poll_read(cx, &mut part))?;
                let read = part.filled().len();
                buffer.advance(read);
                Poll::Ready(Ok(read))
            }
            _ => {
                let before = buffer.filled().len();
                ready!(socket.poll_read(cx, buffer))?;
                Poll::Ready(Ok(buffer.filled().len() - before))
            }
        }
    }

    /// Gives the connection back to sidetrack, unless nobody takes it.
    fn hand_back(&mut self) -> io::Result<()> {
        self.guard = None;
        let (Some(socket), Some(open)) = (self.socket.take(), self.open.take()) else { return Ok(()) };
        let line = hand_back::hand_back(self.replay.rest());
        match open.channel.say_with(&line, socket.release()?) {
            Ok(()) => {
                self.replay = Replay::default();
                self.unread = None;
                // Reported as closed by the drop of `open`: it is in other hands.
                Ok(())
            }
            // Sidetrack has gone this very moment: better served here than not at all.
            Err(descriptor) => {
                if let Adopted::Socket(socket, _) = Socket::adopt(descriptor)? {
                    self.socket = Some(socket);
                    self.open = Some(open);
                }
                Ok(())
            }
        }
    }

    /// Follows what has been written.
    fn wrote(&mut self, parts: &[IoSlice<'_>], mut written: usize) {
        for part in parts {
            let Some(guard) = &mut self.guard else { return };
            let length = written.min(part.len());
            written -= length;
            if length > 0 && guard.gate.wrote(&part[..length]) == Goes::Elsewhere {
                self.guard = None;
            }
        }
    }
}

impl Guard {
    /// Looks at what comes next without reading it; or reads it at once, if all that has arrived
    /// may be read and fits.
    fn poll_look(
        &mut self,
        cx: &mut Context<'_>,
        replay: &Replay,
        socket: &Socket,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Verdict>> {
        let rest = replay.rest();
        if !rest.is_empty() {
            match self.gate.look(rest, &self.home) {
                Verdict::More if rest.len() >= LONGEST_LOOK => return Poll::Ready(Ok(Verdict::Open)),
                Verdict::More => {}
                verdict => return Poll::Ready(Ok(verdict)),
            }
        }
        let room = buffer.remaining();
        socket.poll_look(cx, rest, buffer, |bytes, all| match self.gate.look(bytes, &self.home) {
            // The server shall see the end, or what a client leaves behind that goes in the middle.
            _ if bytes.is_empty() => Looked::Done(Verdict::Open),
            Verdict::More if all || bytes.len() >= LONGEST_LOOK => Looked::Done(Verdict::Open),
            Verdict::More => Looked::More,
            // A look that is full may have left something behind.
            Verdict::Read
                if rest.is_empty()
                    && bytes.len() < LONGEST_LOOK
                    && bytes.len() <= room
                    && bytes.len() as u64 <= self.gate.granted() =>
            {
                Looked::Take(Verdict::Read)
            }
            verdict => Looked::Done(verdict),
        })
    }
}

impl Owners for Home {
    fn session(&self, head: &Head<'_, '_>) -> Found {
        self.settings.hands_back_by().map_or(Found::Nothing, |key| key.find(head))
    }

    fn serves(&self, sid: &str) -> bool {
        // Without sidetrack there is nobody to hand a connection to.
        self.sessions.use_it(sid) || self.sessions.channel().has_hung_up()
    }

    fn stays(&self, sid: &str) {
        let named_by_client = matches!(self.settings.session_key, Some(SessionKey::Path(_)));
        if named_by_client && self.sessions.adopts_unknown() {
            self.sessions.say_fleeting(sid);
        } else {
            self.sessions.use_it(sid);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            let limit = match (&mut this.guard, &this.socket) {
                (Some(guard), Some(socket)) if guard.gate.granted() == 0 => {
                    match ready!(guard.poll_look(cx, &this.replay, socket, buffer))? {
                        Verdict::Read if buffer.filled().len() > before => {
                            guard.gate.read(buffer.filled().len() - before);
                            this.unread = None;
                            return Poll::Ready(Ok(()));
                        }
                        Verdict::Read | Verdict::More => {}
                        Verdict::Wait => {
                            guard.gate.wait(cx.waker());
                            return Poll::Pending;
                        }
                        Verdict::Open => this.guard = None,
                        Verdict::HandBack => this.hand_back()?,
                    }
                    continue;
                }
                (Some(guard), _) => guard.gate.granted(),
                (None, _) => u64::MAX,
            };
            let read = ready!(this.poll_read_some(cx, buffer, limit))?;
            if let Some(guard) = &mut this.guard {
                guard.gate.read(read);
            }
            this.unread = None;
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else { return Poll::Ready(Err(handed_back())) };
        let written = ready!(Pin::new(socket).poll_write(cx, bytes))?;
        this.wrote(&[IoSlice::new(bytes)], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else { return Poll::Ready(Err(handed_back())) };
        let written = ready!(Pin::new(socket).poll_write_vectored(cx, parts))?;
        this.wrote(parts, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_shutdown(cx),
            // The socket is another worker's by now.
            None => Poll::Ready(Ok(())),
        }
    }
}

fn handed_back() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection has been handed back to sidetrack")
}

/// Whether sidetrack is told when a connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    /// Sidetrack counts connections, and its own probes are none.
    No,
}

/// A connection from its acknowledgement to its end.
#[derive(Debug)]
pub(crate) struct Open {
    channel: Arc<Channel>,
    counted: Counted,
    /// The link it came over.
    link: u64,
}

impl Open {
    pub(crate) fn new(channel: &Arc<Channel>, counted: Counted) -> Self {
        channel.life.change(|state| state.open += 1);
        Self { channel: Arc::clone(channel), counted, link: channel.number() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.counted == Counted::Yes {
            self.channel.report_closed(self.link);
        }
        self.channel.life.change(|state| state.open = state.open.saturating_sub(1));
    }
}

/// A connection until the first read from it.
#[derive(Debug)]
struct Unread(Arc<Channel>);

impl Unread {
    fn new(channel: &Arc<Channel>) -> Self {
        channel.life.change(|state| state.unread += 1);
        Self(Arc::clone(channel))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.life.change(|state| state.unread = state.unread.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, PATIENCE, tcp_pair};
    use crate::wire::encode;
    use crate::{Listener, Settings};
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const FOREIGN: &[u8] = b"GET /?sid=foreign HTTP/1.1\r\n\r\n";

    struct Scene {
        fake: Fake,
        listener: Listener,
        client: TcpStream,
        stream: Stream,
    }

    /// A stream whose worker owns the session `own`, with luggage, as sidetrack sends it.
    async fn scene(luggage: Option<(&[u8], bool)>) -> Scene {
        let (mut fake, mut listener) = Fake::with_settings(Settings {
            session_key: Some("query:sid".parse().unwrap()),
            ..Settings::default()
        });
        listener.sessions().open("own").await.keep();
        let (client, accepted, _) = tcp_pair();
        let line = luggage.map_or_else(|| encode::CONNECTION.to_vec(), with_luggage);
        fake.send(&line, Some(accepted.as_fd()));
        drop(accepted);
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
        assert_eq!(fake.waiting().len(), 3);
        Scene { fake, listener, client, stream }
    }

    fn with_luggage((data, last): (&[u8], bool)) -> Vec<u8> {
        let line = String::from_utf8(hand_back::hand_back(data)).unwrap();
        let data = line.split('"').rev().nth(1).unwrap();
        let part = format!("\"sidetrack\":{{\"data\":\"{data}\",\"final\":{last}}}");
        format!("{{\"cmd\":\"NODE_HANDLE\",\"msg\":{{{part}}}}}\n").into_bytes()
    }

    async fn read(stream: &mut Stream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    async fn is_at_its_end(stream: &mut Stream) -> bool {
        timeout(PATIENCE, stream.read(&mut [0; 100])).await.unwrap().unwrap() == 0
    }

    #[tokio::test]
    async fn a_handed_back_socket_is_unread_and_untouched() {
        let Scene { mut fake, listener, mut client, mut stream } = scene(None).await;
        client.write_all(FOREIGN).unwrap();
        assert!(is_at_its_end(&mut stream).await);
        assert!(stream.is_handed_back() && stream.descriptor().is_none());
        let (lines, descriptor) = fake.with_descriptor().await;
        assert_eq!(lines[0].as_bytes(), hand_back::hand_back(b"").trim_ascii_end());
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let vectored = stream.write_vectored(&[IoSlice::new(b"x")]).await;
        assert_eq!(vectored.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        stream.flush().await.unwrap();
        stream.shutdown().await.unwrap();
        timeout(PATIENCE, listener.idle()).await.unwrap();
        drop(stream);

        // Its new owner reads every byte, and only it can close the connection.
        let mut socket = TcpStream::from(descriptor);
        socket.set_nonblocking(false).unwrap();
        let mut request = FOREIGN.to_vec();
        socket.read_exact(&mut request).unwrap();
        assert_eq!(request, FOREIGN);
        socket.write_all(b"answer").unwrap();
        drop(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        fake.send(encode::HANDLE_NACK, None);
    }

    #[tokio::test]
    async fn luggage_comes_first_and_follows_the_same_rules() {
        let own = b"POST /?sid=own HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789";
        let stream = [own.as_slice(), own, FOREIGN, b"GET /rest"].concat();
        for cut in 0..=stream.len() {
            let (luggage, rest) = stream.split_at(cut);
            let Scene { mut fake, mut client, mut stream, listener: _listener } =
                scene(Some((luggage, false))).await;
            client.write_all(rest).unwrap();
            for _ in 0..2 {
                assert_eq!(read(&mut stream, own.len()).await, own, "cut at {cut}");
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
            assert!(is_at_its_end(&mut stream).await);
            let (lines, _) = fake.with_descriptor().await;
            let unread = luggage.get(own.len() * 2..).unwrap_or_default();
            assert_eq!(lines[0].as_bytes(), hand_back::hand_back(unread).trim_ascii_end(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn only_the_first_request_is_final() {
        for luggage in [FOREIGN, b"", &FOREIGN[..10]] {
            let Scene { mut fake, mut client, mut stream, listener: _listener } =
                scene(Some((luggage, true))).await;
            client.write_all(&[&FOREIGN[luggage.len()..], FOREIGN].concat()).unwrap();
            assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            assert!(is_at_its_end(&mut stream).await);
            fake.with_descriptor().await;
        }
    }

    #[tokio::test]
    async fn a_vectored_response_in_parts_is_followed() {
        let Scene { mut fake, mut client, mut stream, listener: _listener } = scene(None).await;
        client.write_all(b"GET /?sid=own HTTP/1.1\r\n\r\n").unwrap();
        client.write_all(FOREIGN).unwrap();
        read(&mut stream, 26).await;
        let parts: Vec<IoSlice<'_>> =
            [b"HTTP/1.1 200 OK\r\nContent-".as_slice(), b"", b"Length: 4\r\n\r\nbo"]
                .map(IoSlice::new)
                .to_vec();
        assert_eq!(stream.write_vectored(&parts).await.unwrap(), 40);
        assert!(timeout(Duration::from_millis(20), stream.read_u8()).await.is_err());
        // Whoever waits in a read is woken by the write that completes the response.
        let (mut reader, mut writer) = tokio::io::split(stream);
        let waiting = tokio::spawn(async move { reader.read(&mut [0; 100]).await });
        tokio::task::yield_now().await;
        writer.write_all(b"dy").await.unwrap();
        assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap(), 0);
        fake.with_descriptor().await;
    }

    #[tokio::test]
    async fn a_head_that_comes_slowly_is_looked_at_once_for_each_piece() {
        let Scene { mut fake, mut client, mut stream, listener: _listener } = scene(None).await;
        let polls = Cell::new(0);
        let mut buffer = [0; 100];
        let mut reading = std::pin::pin!(async {
            let mut part = ReadBuf::new(&mut buffer);
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                Pin::new(&mut stream).poll_read(cx, &mut part)
            })
            .await
        });
        let (last, pieces) = FOREIGN.split_last().unwrap();
        for byte in pieces {
            client.write_all(&[*byte]).unwrap();
            assert!(timeout(Duration::from_millis(2), &mut reading).await.is_err());
        }
        client.write_all(&[*last]).unwrap();
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        // Each piece may cost its own poll and that of the timeout, and no more.
        assert!(polls.get() <= 3 * FOREIGN.len(), "{} polls", polls.get());
        fake.with_descriptor().await;
    }

    #[tokio::test]
    async fn what_is_no_whole_head_goes_to_the_server() {
        // The client has gone in the middle of a head.
        let Scene { client, mut stream, .. } = scene(Some((b"GET /?sid=for", false))).await;
        (&client).write_all(b"eign HTTP").unwrap();
        drop(client);
        assert_eq!(read(&mut stream, 22).await, b"GET /?sid=foreign HTTP");
        assert!(is_at_its_end(&mut stream).await);
        // It has said nothing at all.
        let Scene { client, mut stream, .. } = scene(None).await;
        drop(client);
        assert!(is_at_its_end(&mut stream).await);
        // A head without end, and another protocol.
        let endless = [b"GET /?sid=foreign HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; LONGEST_LOOK]].concat();
        for bytes in [endless.as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0\r\n\r\n"] {
            let Scene { mut client, mut stream, .. } = scene(None).await;
            client.write_all(bytes).unwrap();
            assert_eq!(read(&mut stream, bytes.len()).await, bytes);
            assert!(!stream.is_handed_back());
        }
    }

    #[tokio::test]
    async fn connections_are_left_alone_where_that_is_wanted() {
        for keepalive in [crate::Keepalive::Worker, crate::Keepalive::Close] {
            let session_key = Some("query:sid".parse().unwrap());
            let (fake, mut listener) =
                Fake::with_settings(Settings { session_key, keepalive, ..Settings::default() });
            let (mut client, _) = crate::fake::connect(&fake);
            client.write_all(FOREIGN).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap().unwrap();
            assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
        }
    }

    #[tokio::test]
    async fn a_probe_is_answered_whatever_it_asks_for() {
        let Scene { fake, mut listener, .. } = scene(None).await;
        let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        fake.send(encode::PROBE, Some(there.as_fd()));
        here.write_all(FOREIGN).unwrap();
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
        assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
    }

    #[tokio::test]
    async fn a_client_on_a_unix_socket_is_handed_back_too() {
        let Scene { mut fake, mut listener, .. } = scene(None).await;
        let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        fake.hand_over(there.as_fd());
        here.write_all(&FOREIGN[..12]).unwrap();
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
        assert!(timeout(Duration::from_millis(10), stream.read_u8()).await.is_err());
        here.write_all(&FOREIGN[12..]).unwrap();
        assert!(is_at_its_end(&mut stream).await);
        fake.with_descriptor().await;
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_handed_back_is_served() {
        let Scene { fake, mut client, mut stream, listener: _listener } = scene(None).await;
        // The stream finds out only when it tries: nobody reads the channel meanwhile.
        drop(fake);
        client.write_all(FOREIGN).unwrap();
        assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
        stream.write_all(b"answer").await.unwrap();
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_session_that_its_client_names_stays_where_it_was_sent() {
        let (mut fake, mut listener) = Fake::with_settings(Settings {
            session_key: Some("path:2".parse().unwrap()),
            ..Settings::default()
        });
        #[cfg(feature = "tower")]
        let _layer = crate::SessionLayer::new(listener.sessions());
        let (mut client, accepted, _) = tcp_pair();
        fake.send(
            b"{\"cmd\":\"NODE_HANDLE\",\"msg\":{\"sidetrack\":{\"final\":true}}}\n",
            Some(accepted.as_fd()),
        );
        drop(accepted);
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
        let request = b"GET /echo/s1/xhr HTTP/1.1\r\n\r\n";
        client.write_all(request).unwrap();
        client.write_all(request).unwrap();
        assert_eq!(read(&mut stream, request.len()).await, request);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        if cfg!(feature = "tower") {
            assert_eq!(read(&mut stream, request.len()).await, request);
            let said = fake.waiting();
            assert_eq!(said[2..], [r#"{"ends":false,"sid":"s1","type":"sidetrack:opened"}"#]);
        } else {
            assert!(is_at_its_end(&mut stream).await);
        }
    }
}
