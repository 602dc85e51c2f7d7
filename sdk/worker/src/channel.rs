//! The worker's half of the channel that speaks: whole lines, in order, from any task.
//!
//! A line is written at once when the channel has room. What does not fit waits in memory for a
//! task that lives only as long as there is something to write, so that a stream dropped anywhere
//! can report itself without waiting.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{MsgFlags, send};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::wire::{self, Received, encode};

/// Shared by the listener, its streams and its sessions.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    runtime: Handle,
    outbox: Mutex<Outbox>,
    /// How many bytes have left, as far as somebody waits for it; [`HUNG_UP`] when no more will.
    departed: watch::Sender<u64>,
    life: watch::Sender<Life>,
}

/// How far this worker has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    /// No more connections will come.
    pub(crate) ended: bool,
    /// Connections handed over and not yet dropped.
    pub(crate) open: usize,
    /// Connections of which nothing has been read yet. Each has a request waiting in it.
    pub(crate) unread: usize,
}

#[derive(Debug, Default)]
struct Outbox {
    /// What has not left yet.
    waiting: Vec<u8>,
    /// How many bytes were ever put in.
    written: u64,
    /// Streams dropped and not yet reported.
    closed_streams: u64,
    /// A task is about to write.
    flushing: bool,
    hung_up: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// The kernel has it.
    Sent,
    /// It leaves once this many bytes have.
    Waiting(u64),
    /// Nobody listens any more.
    HungUp,
}

const HUNG_UP: u64 = u64::MAX;

impl Channel {
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled, as everything in tokio does.
    pub(crate) fn new(socket: StdUnixStream) -> io::Result<Arc<Self>> {
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            socket: UnixStream::from_std(socket)?,
            runtime: Handle::current(),
            outbox: Mutex::default(),
            departed: watch::Sender::new(0),
            life: watch::Sender::default(),
        }))
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Writes a line, or lets it wait behind what already waits.
    pub(crate) fn say(self: &Arc<Self>, line: &[u8]) -> Said {
        let mut outbox = self.outbox();
        if outbox.hung_up {
            return Said::HungUp;
        }
        let behind_others = !outbox.waiting.is_empty();
        outbox.put(line);
        let end = outbox.written;
        outbox.put_closings();
        if !behind_others {
            // Without asking the reactor, which knows nothing of a socket it has only just met.
            let written = self.write(&outbox.waiting);
            self.account(&mut outbox, written);
        }
        if outbox.hung_up {
            Said::HungUp
        } else if outbox.waiting.is_empty() {
            Said::Sent
        } else {
            self.flush_soon(&mut outbox);
            Said::Waiting(end)
        }
    }

    /// Waits until a line has left; false when it never will. Cancel safe.
    pub(crate) async fn departure(&self, said: Said) -> bool {
        match said {
            Said::Sent => true,
            Said::HungUp => false,
            Said::Waiting(end) => {
                let mut departed = self.departed.subscribe();
                let reached = departed.wait_for(|&bytes| bytes >= end).await;
                reached.is_ok_and(|bytes| *bytes != HUNG_UP)
            }
        }
    }

    /// Reads once, waiting until there is something. 0 bytes mean that sidetrack is gone. Cancel
    /// safe: nothing is taken from the channel before the future is ready.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_io(Interest::READABLE, || wire::receive(&self.socket, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The other end was closed with lines of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Received::default());
                }
                received => return received,
            }
        }
    }

    /// Reports come together: all connections closed before the task below runs are one line.
    pub(crate) fn report_closed(self: &Arc<Self>) {
        let mut outbox = self.outbox();
        outbox.closed_streams += 1;
        self.flush_soon(&mut outbox);
    }

    pub(crate) fn end(&self) {
        self.live(|life| life.ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.life.borrow().ended
    }

    pub(crate) fn live(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(change);
    }

    /// Resolves once this is true. Does not keep the channel open: its end is an end too.
    pub(crate) fn until(&self, reached: fn(&Life) -> bool) -> impl Future<Output = ()> + Send + use<> {
        let mut life = self.life.subscribe();
        async move {
            life.wait_for(reached).await.ok();
        }
    }

    /// Nobody listens any more: what waits is dropped, who waits is told.
    pub(crate) fn hang_up(&self) {
        self.hang_up_locked(&mut self.outbox());
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.outbox().hung_up
    }

    fn hang_up_locked(&self, outbox: &mut Outbox) {
        outbox.hung_up = true;
        outbox.waiting = Vec::new();
        self.departed.send_replace(HUNG_UP);
    }

    fn flush_soon(self: &Arc<Self>, outbox: &mut Outbox) {
        if !outbox.flushing && !outbox.hung_up {
            outbox.flushing = true;
            self.runtime.spawn(Arc::clone(self).flush());
        }
    }

    async fn flush(self: Arc<Self>) {
        loop {
            {
                let mut outbox = self.outbox();
                outbox.put_closings();
                if !outbox.waiting.is_empty() {
                    let written = self.socket.try_io(Interest::WRITABLE, || self.write(&outbox.waiting));
                    self.account(&mut outbox, written);
                }
                if outbox.waiting.is_empty() {
                    outbox.flushing = false;
                    return;
                }
            }
            if self.socket.writable().await.is_err() {
                self.hang_up();
            }
        }
    }

    /// Writes as much as the kernel takes.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(send(self.socket.as_raw_fd(), bytes, flags)?)
    }

    fn account(&self, outbox: &mut Outbox, written: io::Result<usize>) {
        match written {
            Ok(bytes) => {
                outbox.waiting.drain(..bytes);
                self.departed.send_replace(outbox.written - outbox.waiting.len() as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.hang_up_locked(outbox),
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Nothing that is done under the lock can leave half a line behind.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    fn put(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
        self.written += line.len() as u64;
    }

    fn put_closings(&mut self) {
        if self.closed_streams > 0 {
            let line = encode::sockets_closed(std::mem::take(&mut self.closed_streams));
            self.put(&line);
        }
    }
}
