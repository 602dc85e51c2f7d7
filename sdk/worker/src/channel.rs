//! The worker's half of the channel that speaks: whole lines, in order, from any task.
//!
//! A line is written at once when the channel has room. What does not fit waits in memory for a
//! task that lives only as long as there is something to write, so that a stream dropped anywhere
//! can report itself without waiting.
//!
//! A worker that has joined may lose its channel and get another. What was waiting is lost with
//! the old one, whoever waited for it is told, and everything said from then on goes to the new.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::life::Life;
use crate::outbox::Outbox;
use crate::wire::{self, Received};

/// Shared by the listener, its streams and its sessions.
#[derive(Debug)]
pub(crate) struct Channel {
    runtime: Handle,
    link: Mutex<Link>,
    departed: watch::Sender<Departed>,
    pub(crate) life: Life,
}

/// One connection to sidetrack.
#[derive(Debug)]
struct Link {
    socket: Arc<UnixStream>,
    outbox: Outbox,
    /// Counts the connections to sidetrack.
    number: u64,
    /// A task is about to write.
    flushing: bool,
    hung_up: bool,
    /// Sidetrack stops: it can find no worker for a connection any more.
    stops: bool,
}

/// What has left, as far as somebody waits for it.
#[derive(Debug, Clone, Copy, Default)]
struct Departed {
    link: u64,
    bytes: u64,
    hung_up: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// The kernel has it.
    Sent,
    /// It leaves once so many bytes have, over the link of that number.
    Waiting { link: u64, end: u64 },
    /// Nobody listens any more.
    HungUp,
}

/// Too many descriptors are in flight, and no event will tell when that changes.
const CROWDED: Duration = Duration::from_millis(10);

impl Channel {
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled, as everything in tokio does.
    pub(crate) fn new(socket: StdUnixStream) -> io::Result<Arc<Self>> {
        let link = Link {
            socket: watched(socket)?,
            outbox: Outbox::default(),
            number: 0,
            flushing: false,
            hung_up: false,
            stops: false,
        };
        Ok(Arc::new(Self {
            runtime: Handle::current(),
            link: Mutex::new(link),
            departed: watch::Sender::default(),
            life: Life::default(),
        }))
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Goes on with another connection to sidetrack.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    pub(crate) fn replace(&self, socket: StdUnixStream) -> io::Result<()> {
        let socket = watched(socket)?;
        let mut link = self.link();
        self.hang_up_locked(&mut link);
        link.socket = socket;
        link.outbox = Outbox::default();
        link.number += 1;
        link.hung_up = false;
        link.stops = false;
        self.departed.send_replace(Departed { link: link.number, bytes: 0, hung_up: false });
        Ok(())
    }

    /// Which connection to sidetrack this is, counted from 0.
    pub(crate) fn number(&self) -> u64 {
        self.link().number
    }

    /// Writes a line, or lets it wait behind what already waits.
    pub(crate) fn say(self: &Arc<Self>, line: &[u8]) -> Said {
        let mut link = self.link();
        if link.hung_up {
            return Said::HungUp;
        }
        let behind_others = !link.outbox.is_empty();
        let end = link.outbox.put(line);
        link.outbox.put_reports();
        self.write_unless(behind_others, &mut link);
        self.said(&mut link, end)
    }

    /// Writes a line that a descriptor goes with. The descriptor is closed once it has left.
    ///
    /// # Errors
    /// The descriptor, when nobody listens any more, or not to find a worker for it.
    pub(crate) fn say_with(self: &Arc<Self>, line: &[u8], descriptor: OwnedFd) -> Result<(), OwnedFd> {
        let mut link = self.link();
        if link.hung_up || link.stops {
            return Err(descriptor);
        }
        let behind_others = !link.outbox.is_empty();
        let end = link.outbox.put_with(line, descriptor);
        self.write_unless(behind_others, &mut link);
        match self.said(&mut link, end) {
            Said::Sent | Said::Waiting { .. } => Ok(()),
            Said::HungUp => link.outbox.take_back().map_or(Ok(()), Err),
        }
    }

    /// Waits until a line has left; false when it never will. Cancel safe.
    pub(crate) async fn departure(&self, said: Said) -> bool {
        match said {
            Said::Sent => true,
            Said::HungUp => false,
            Said::Waiting { link, end } => {
                let mut departed = self.departed.subscribe();
                let over = |departed: &Departed| departed.link != link || departed.hung_up;
                let reached = departed.wait_for(|departed| departed.bytes >= end || over(departed)).await;
                reached.is_ok_and(|departed| departed.bytes >= end && departed.link == link)
            }
        }
    }

    /// Reads once, waiting until there is something. 0 bytes mean that sidetrack is gone. Cancel
    /// safe: nothing is taken from the channel before the future is ready.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let socket = Arc::clone(&self.link().socket);
        loop {
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || wire::receive(&*socket, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The other end was closed with lines of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Received::default());
                }
                received => return received,
            }
        }
    }

    /// Reports that a connection has closed which came over this link. All connections closed
    /// before the task below runs are one line. Another link was never told of the connection.
    pub(crate) fn report_closed(self: &Arc<Self>, number: u64) {
        let mut link = self.link();
        if link.number == number && !link.hung_up {
            link.outbox.note_closed_stream();
            self.flush_soon(&mut link);
        }
    }

    /// Nobody listens any more: what waits is dropped, who waits is told.
    pub(crate) fn hang_up(&self) {
        let mut link = self.link();
        self.hang_up_locked(&mut link);
        link.outbox = Outbox::default();
    }

    pub(crate) fn has_hung_up(&self) -> bool {
        self.link().hung_up
    }

    /// Notes that sidetrack stops. What waits still leaves; [`departure`](Self::departure) of the
    /// result tells when.
    pub(crate) fn stops(self: &Arc<Self>) -> Said {
        let mut link = self.link();
        link.stops = true;
        let end = link.outbox.put(b"");
        self.said(&mut link, end)
    }

    /// True when a connection can be handed back.
    pub(crate) fn takes_back(&self) -> bool {
        let link = self.link();
        !link.hung_up && !link.stops
    }

    fn hang_up_locked(&self, link: &mut Link) {
        if !link.hung_up {
            link.hung_up = true;
            // Wakes the task below, should it wait for room. It fails when the other end has gone.
            shutdown(link.socket.as_raw_fd(), Shutdown::Both).ok();
            self.departed.send_modify(|departed| departed.hung_up = true);
        }
    }

    fn said(self: &Arc<Self>, link: &mut Link, end: u64) -> Said {
        if link.hung_up {
            Said::HungUp
        } else if link.outbox.is_empty() {
            Said::Sent
        } else {
            self.flush_soon(link);
            Said::Waiting { link: link.number, end }
        }
    }

    fn flush_soon(self: &Arc<Self>, link: &mut Link) {
        if !link.flushing && !link.hung_up {
            link.flushing = true;
            self.runtime.spawn(Arc::clone(self).flush());
        }
    }

    async fn flush(self: Arc<Self>) {
        loop {
            let (socket, written) = {
                let mut link = self.link();
                link.outbox.put_reports();
                let socket = Arc::clone(&link.socket);
                let written = socket.try_io(Interest::WRITABLE, || self.write(&mut link));
                if link.hung_up || link.outbox.is_empty() {
                    link.flushing = false;
                    return;
                }
                (socket, written)
            };
            if written.is_err_and(|error| is_crowded(&error)) {
                tokio::time::sleep(CROWDED).await;
            } else if socket.writable().await.is_err() {
                self.hang_up();
            }
        }
    }

    /// Writes without asking the reactor, which knows nothing of a socket it has only just met.
    fn write_unless(&self, behind_others: bool, link: &mut Link) {
        if !behind_others {
            // What it could not write is waited for by the caller.
            self.write(link).ok();
        }
    }

    /// Writes as much as the kernel takes. The error is one that passes.
    fn write(&self, link: &mut Link) -> io::Result<()> {
        while !link.outbox.is_empty() {
            match write_once(&link.socket, &link.outbox) {
                Ok(bytes) => {
                    link.outbox.depart(bytes);
                    let (number, bytes) = (link.number, link.outbox.departed());
                    self.departed.send_replace(Departed { link: number, bytes, hung_up: false });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_crowded(&error) => {
                    return Err(error);
                }
                Err(_) => {
                    self.hang_up_locked(link);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // Nothing that is done under the lock can leave half a line behind.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watched(socket: StdUnixStream) -> io::Result<Arc<UnixStream>> {
    socket.set_nonblocking(true)?;
    Ok(Arc::new(UnixStream::from_std(socket)?))
}

fn write_once(socket: &UnixStream, outbox: &Outbox) -> io::Result<usize> {
    let (bytes, descriptor) = outbox.next();
    let descriptor = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let rights = descriptor.as_ref().map(|descriptor| ControlMessage::ScmRights(descriptor));
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[io::IoSlice::new(bytes)], rights.as_slice(), flags, None)?)
}

fn is_crowded(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}
