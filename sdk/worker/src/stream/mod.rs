//! A client's connection as the worker gets it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
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
use crate::wire::{Luggage, encode};

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
    /// What its luggage said of the client.
    peer: Option<SocketAddr>,
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
            peer: luggage.peer,
            guard,
            unread: Some(Unread::new(&open.channel)),
            open: Some(open),
        }
    }

    /// A stream that is served whoever owns its sessions.
    pub(crate) fn unguarded(socket: Socket, open: Open) -> Self {
        let unread = Some(Unread::new(&open.channel));
        let (replay, open) = (Replay::default(), Some(open));
        Self { socket: Some(socket), replay, peer: None, guard: None, unread, open }
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
        let line = encode::hand_back(self.replay.rest(), self.peer);
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
    fn is_elsewhere(&self, head: &Head<'_, '_>) -> bool {
        self.settings.hands_back_by().is_some()
            && self.settings.matches.as_ref().is_some_and(|matches| !matches.is_own(head))
            && self.sessions.channel().takes_back()
    }

    fn session(&self, head: &Head<'_, '_>) -> Found {
        self.settings.hands_back_by().map_or(Found::Nothing, |key| key.find(head))
    }

    fn serves(&self, sid: &str) -> bool {
        // Without sidetrack there is nobody to hand a connection to.
        self.sessions.use_it(sid) || !self.sessions.channel().takes_back()
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
mod tests;
